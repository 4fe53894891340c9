"""Recommendation, pages and reports of a stored result."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.samples import plan


def test_a_probe_recommends_emits_and_writes_a_page(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    code, out, err = bnoise("probe", config, "--page", "p.html")
    assert code == 0, err
    assert "\nRecommended batch  " in out
    assert "The page is in p.html." in err
    stored = json.loads(Path(".bnoise/quad.probe.json").read_text())
    best = stored["recommendation"]
    product = best["micro_batch_size"] * best["accumulation_steps"] * best["world_size"]
    assert product == best["batch_size"]
    assert stored["throughput"]["seconds"] <= 0.2 * stored["cost"]["seconds"] + 0.05
    code, out, _ = bnoise("probe", config, "--emit", "deepspeed")
    assert code == 0
    lines = json.loads(out)
    assert (
        lines["train_batch_size"]
        == lines["train_micro_batch_size_per_gpu"] * lines["gradient_accumulation_steps"]
    )


def test_a_report_says_the_same_again(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    _, first, _ = bnoise("probe", config, "--verbose")
    stored = ".bnoise/quad.probe.json"
    before = Path(stored).read_bytes()
    code, again, err = bnoise("report", stored)
    assert (code, again, err) == (0, first, "")
    assert json.loads(bnoise("report", stored, "--json")[1]) == json.loads(before)
    assert bnoise("report", stored, "--plot", "p.png", "--page", "p.md")[0] == 0
    assert "![" in Path("p.md").read_text()
    assert bnoise("report", stored, stored)[0] == 0
    assert Path(stored).read_bytes() == before


def test_a_report_advises_for_another_plan_of_the_same_measurement(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    bnoise("probe", config, "--quiet")
    stored = ".bnoise/quad.probe.json"
    code, out, err = bnoise("report", stored, "--config", config, "--set", "training.world_size=2",
                            "--set", "training.batch_size=64", "--set", "training.steps=1000")  # fmt: skip
    assert code == 0, err
    assert "2 devices" in out
    assert "run" in out
    code, _, err = bnoise("report", stored, "--config", config, "--set", "training.steps=100000000",
                          "--set", "advice.deadline=1s")  # fmt: skip
    assert code == 2
    assert "bnoise: advice.deadline: no batch on 1 device ends within 1.0 s" in err
    code, out, err = bnoise("report", stored, "--config", config, "--set", "model.noise_scale=30")
    assert (code, out) == (3, "")
    assert "was measured for another config than quad.yaml" in err


def test_an_output_that_cannot_be_made_is_said_and_is_a_failure(bnoise: Call, write: Write) -> None:
    empty = dataclasses.replace(plan(), points=())
    write("r.json", json.dumps(empty.to_json()))
    code, out, err = bnoise("report", "r.json", "--quiet", "--plot", "p.png", "--page", "p.md")
    assert code == 4
    assert "No picture: there is nothing to draw" in err
    assert "Critical batch size" in out
    assert "![" not in Path("p.md").read_text()


def test_texts_of_a_stored_result_cannot_steer_the_terminal(bnoise: Call, write: Write) -> None:
    evil = plan()
    evil = dataclasses.replace(
        evil, provenance=dataclasses.replace(evil.provenance, device="\x1b[31mred\x07")
    )
    write("r.json", json.dumps(evil.to_json()))
    code, out, _ = bnoise("report", "r.json")
    assert code == 0
    assert "\x1b" not in out
    assert "[31mred" in out
