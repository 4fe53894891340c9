"""`bnoise probe`: what it prints and stores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.cases import QUADRATIC_CONFIG, Call, Write


def test_a_probe_prints_stores_and_draws(bnoise: Call, write: Write, tmp_path: Path) -> None:
    config = write("quad.yaml", QUADRATIC_CONFIG)
    code, out, err = bnoise("probe", str(config), "--plot", "p.svg")
    assert code == 0, err
    assert out.startswith("Verdict  ")
    assert "\nTrade-off  " in out
    assert "The result is in .bnoise/quad.probe.json. The picture is in p.svg.\n" in err
    stored = json.loads((tmp_path / ".bnoise/quad.probe.json").read_text())
    exact = stored["noise_scale"]["exact"]
    assert stored["noise_scale"]["low"] * 0.8 < exact < stored["noise_scale"]["high"] * 1.25
    assert stored["critical_batch_size"]["basis"] == "probe"
    assert stored["config"]["probe"]["precision"] == 0.15
    assert (tmp_path / "p.svg").stat().st_size > 1000


def without_times(text: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text)
    del data["cost"]["seconds"], data["cost"]["warmup_seconds"], data["provenance"]["time"]
    for measured_in_time in ("throughput", "tradeoff", "recommendation"):
        assert data.pop(measured_in_time)
    del data["alternatives"]  # only if the step times are known well enough
    data["doubts"] = [doubt for doubt in data["doubts"] if doubt["about"] != "advice"]
    return data


def test_json_is_alone_on_stdout_and_repeats(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    code, first, err = bnoise("probe", config, "--json")
    assert (code, err) == (0, "")
    assert without_times(first) == without_times(bnoise("probe", config, "--json")[1])
    other = without_times(bnoise("probe", config, "--json", "--seed", "1")[1])
    assert other["noise_scale"] != without_times(first)["noise_scale"]
    assert other["provenance"]["seed"] == 1


def test_quiet_says_nothing_on_stderr(bnoise: Call, write: Write) -> None:
    code, out, err = bnoise(
        "probe", str(write("q.yaml", QUADRATIC_CONFIG)), "--quiet", "--out", "deep/r.json"
    )
    assert (code, err) == (0, "")
    assert Path("deep/r.json").exists()
    assert out


def test_the_default_config_is_bnoise_yaml(bnoise: Call, write: Write) -> None:
    code, _, err = bnoise("probe")
    assert code == 2
    assert "bnoise.yaml: found no such file; expected a config file of this name in " in err
    write("bnoise.yaml", QUADRATIC_CONFIG)
    assert bnoise("probe", "--quiet")[0] == 0
    assert Path(".bnoise/bnoise.probe.json").exists()


def test_dry_run_measures_nothing(bnoise: Call, write: Write) -> None:
    code, out, _ = bnoise("probe", str(write("q.yaml", QUADRATIC_CONFIG)), "--dry-run")
    assert code == 0
    assert "everything builds, one batch ran" in out
    assert not Path(".bnoise/q.probe.json").exists()


def test_dry_run_counts_the_copy_of_an_adaptive_optimizer(bnoise: Call, write: Write) -> None:
    config = str(write("q.yaml", QUADRATIC_CONFIG))
    own = json.loads(bnoise("probe", config, "--dry-run", "--json")[1])
    adam = ["--set", "optimizer._target_=torch.optim.Adam", "--set", "probe.warmup_steps=2"]
    adaptive = json.loads(bnoise("probe", config, "--dry-run", "--json", *adam)[1])
    assert own["extra_bytes"] == 3 * 4 * own["parameters"]
    assert adaptive["extra_bytes"] == 4 * 4 * own["parameters"]


def test_several_points_make_a_trajectory(bnoise: Call, write: Write) -> None:
    config = str(write("q.yaml", QUADRATIC_CONFIG))
    code, out, _ = bnoise("probe", config, "--json", "--set", "probe.at_steps=[0, 30, 60]",
                          "--set", "probe.max_examples=9000")  # fmt: skip
    assert code == 0
    data = json.loads(out)
    assert [point["step"] for point in data["trajectory"]] == [0, 30, 60]
    assert data["critical_batch_size"]["basis"] == "trajectory"
    scales = [point["noise_scale"]["value"] for point in data["trajectory"]]
    assert min(scales) <= data["critical_batch_size"]["value"] <= max(scales)
    assert data["cost"]["gradient_examples"] <= 9000
    assert data["schedule"]["exchange_rate"] == pytest.approx(data["critical_batch_size"]["value"])
    for point in data["trajectory"]:
        geometric = math.sqrt(point["noise_scale"]["value"] * data["critical_batch_size"]["value"])
        assert point["batch_size"] == pytest.approx(geometric)
    code, out, _ = bnoise("report", ".bnoise/q.probe.json")
    assert code == 0
    assert "A schedule of these batch sizes would take" in out


def test_version_and_help(bnoise: Call) -> None:
    assert bnoise("--version")[:2] == (0, "bnoise 0.1.0\n")
    code, out, _ = bnoise("probe", "--help")
    assert code == 0
    for option in (
        "--set",
        "--device",
        "--budget",
        "--seed",
        "--out",
        "--plot",
        "--json",
        "--dry-run",
        "--quiet",
    ):
        assert option in out


def test_a_noise_scale_beyond_the_dataset_is_no_headline(bnoise: Call, write: Write) -> None:
    few = ["--set", "dataset.examples=32", "--set", "model.noise_scale=100"]
    code, out, _ = bnoise("probe", str(write("q.yaml", QUADRATIC_CONFIG)), *few, "--quiet")
    assert code == 3
    headline, reason = " ".join(out.split()).split(". But ")
    assert headline.endswith("Critical batch size: cannot tell (at least 32.0 examples, no upper bound)")
    assert "exceeds the dataset's 32 examples" in reason
