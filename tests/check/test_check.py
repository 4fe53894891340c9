"""The pre-training check: every verdict, exit code and format, what it matches, and what it must not run."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnoise_cli.check.check_config import Rules
from bnoise_cli.check.verdict import Verdict, judge
from bnoise_cli.cli import app
from bnoise_cli.errors import ExitCode
from bnoise_cli.maths.tradeoff import examples_ratio, steps_ratio
from bnoise_cli.records import CriticalBatchSize, Doubt
from bnoise_cli.spec.identity import weights_hash
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.schema import Check
from tests.cases import QUADRATIC_CONFIG, ROOT, Call, Write
from tests.samples import Device, plan, store
from tests.samples import result as probed


def critical(
    value: float | None, low: float, high: float | None, basis: str = "horizon"
) -> CriticalBatchSize:
    return CriticalBatchSize(value=value, low=low, high=high, basis=basis)


def doubt(code: str) -> Doubt:
    return Doubt(code=code, finding=f"the {code} is in doubt", remedy="Mend it.")


KNOWN = critical(100.0, 80.0, 125.0)
WIDE = critical(100.0, 10.0, 1000.0)
AT_LEAST = critical(None, 40.0, None)
UNKNOWN = critical(None, 0.0, None)

# --- the verdict --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("found", "batch_size", "allowed", "doubts", "verdict"), [
    # B/B_crit is the overhead: at most the allowed one at the lower limit, at the estimate, at the upper limit.
    (KNOWN, 1, 1.0, (), "pass"),
    (KNOWN, 80, 1.0, (), "pass"),
    (KNOWN, 100, 1.0, (), "pass"),
    (KNOWN, 101, 1.0, (), "warn"),
    (KNOWN, 125, 1.0, (), "warn"),
    (KNOWN, 126, 1.0, (), "fail"),
    (KNOWN, 10**12, 1.0, (), "fail"),
    (KNOWN, 50, 0.5, (), "pass"),
    (KNOWN, 51, 0.5, (), "warn"),
    (KNOWN, 63, 0.5, (), "fail"),
    (KNOWN, 500, 4.0, (), "warn"),
    # A wide interval settles only what lies wholly outside it.
    (WIDE, 10, 1.0, (), "pass"),
    (WIDE, 11, 1.0, (), "cannot_tell"),
    (WIDE, 1000, 1.0, (), "cannot_tell"),
    (WIDE, 1001, 1.0, (), "fail"),
    (AT_LEAST, 40, 1.0, (), "pass"),
    (AT_LEAST, 41, 1.0, (), "cannot_tell"),
    (AT_LEAST, 10**9, 1.0, (), "cannot_tell"),
    (UNKNOWN, 1, 1.0, (), "cannot_tell"),
    # Doubts that leave nothing to judge by; others only stand beside.
    (KNOWN, 1, 1.0, ("at_initialisation",), "cannot_tell"),
    (KNOWN, 10**6, 1.0, ("at_initialisation",), "cannot_tell"),
    (KNOWN, 10**6, 1.0, ("diverged",), "cannot_tell"),
    (KNOWN, 1, 1.0, ("not_a_mean",), "cannot_tell"),
    (AT_LEAST, 1, 1.0, ("law",), "cannot_tell"),
    (KNOWN, 126, 1.0, ("law",), "fail"),
    (KNOWN, 126, 1.0, ("momentum", "range", "imprecise"), "fail"),
])  # fmt: skip
def test_every_verdict(
    found: CriticalBatchSize, batch_size: int, allowed: float, doubts: tuple[str, ...], verdict: str
) -> None:
    result = probed(critical_batch_size=found, doubts=tuple(map(doubt, doubts)))
    judged = judge(result, batch_size, 1, Check(max_compute_overhead=allowed))
    assert judged.verdict == verdict
    if verdict == "cannot_tell" and doubts:
        assert (judged.finding, judged.remedy) == (f"the {doubts[0]} is in doubt", "Mend it.")
    else:
        assert f"{batch_size:,}" in judged.finding
    assert bool(judged.remedy) == (verdict != "pass")


@pytest.mark.parametrize(("found", "batch_size", "asked", "verdict"), [
    (KNOWN, 100, 0.5, "pass"),
    (KNOWN, 99, 0.5, "warn"),  # and no usual size meets both limits
    (KNOWN, 43, 0.3, "pass"),
    (KNOWN, 42, 0.3, "warn"),
    (KNOWN, 1, None, "pass"),
    (KNOWN, 126, 0.9, "fail"),  # too large comes first
    (AT_LEAST, 17, 0.3, "warn"),  # at most 17/57, wherever B_crit lies
    (AT_LEAST, 18, 0.3, "pass"),
    (critical(1e30, 1e30, 1e30), 1, 0.5, "warn"),
])  # fmt: skip
def test_too_small_a_batch_warns_where_that_is_asked_for(
    found: CriticalBatchSize, batch_size: int, asked: float | None, verdict: str
) -> None:
    judged = judge(
        probed(critical_batch_size=found, doubts=()), batch_size, 1, Check(min_time_efficiency=asked)
    )
    assert judged.verdict == verdict
    if verdict == "warn" and judged.suggested_batch_size is not None:
        again = judge(
            probed(critical_batch_size=found, doubts=()),
            judged.suggested_batch_size,
            1,
            Check(min_time_efficiency=asked),
        )
        assert again.verdict == "pass"
    elif verdict == "warn":
        assert "change one of the two limits" in judged.remedy


@settings(max_examples=300, deadline=None)
@given(
    st.floats(1e-2, 1e12), st.floats(1, 3), st.integers(1, 10**12), st.floats(0.01, 100), st.integers(1, 64)
)
def test_the_figures_are_the_closed_form_and_the_advice_mends(
    value: float, factor: float, batch_size: int, allowed: float, world_size: int
) -> None:
    found = critical(value, value / factor, value * factor)
    check = Check(max_compute_overhead=allowed)
    judged = judge(probed(critical_batch_size=found, doubts=()), batch_size, world_size, check)
    assert judged.compute_overhead is not None
    assert judged.time_efficiency is not None
    assert judged.compute_overhead == pytest.approx(examples_ratio(batch_size, value) - 1)
    assert judged.compute_overhead_limits.low == pytest.approx(batch_size / (value * factor))
    assert judged.time_efficiency == pytest.approx(1 / steps_ratio(batch_size, value))
    assert (judged.verdict == "fail") == (judged.compute_overhead_limits.low > allowed)
    if judged.verdict in ("warn", "fail"):
        suggested = judged.suggested_batch_size
        if suggested is None:
            assert world_size > allowed * value, "not even one example on each device"
            assert "plan fewer devices" in judged.remedy
        else:
            assert suggested % world_size == 0
            again = judge(probed(critical_batch_size=found, doubts=()), suggested, world_size, check)
            assert again.verdict == "pass"


def test_after_a_wide_interval_the_advice_is_surely_enough() -> None:
    judged = judge(probed(critical_batch_size=WIDE, doubts=()), 4096, 1, Check())
    assert (judged.verdict, judged.suggested_batch_size) == ("fail", 8)


def test_a_law_that_does_not_hold_leaves_nothing_to_judge() -> None:
    """A probe has no value then; a sweep has one beside the doubt; of a trajectory one point may have failed."""
    swept = dataclasses.replace(probed(critical_batch_size=KNOWN, doubts=(doubt("law"),)), kind="sweep")
    assert judge(swept, 126, 1, Check()).verdict == "cannot_tell"
    along = probed(critical_batch_size=critical(None, 40.0, None, "trajectory"), doubts=())
    assert judge(along, 1, 1, Check()).verdict == "cannot_tell"


def test_a_batch_that_was_recommended_for_speed_is_told_so() -> None:
    advised = plan(KNOWN, Device()).recommendation
    assert advised is not None
    result = probed(critical_batch_size=KNOWN, doubts=(), recommendation=advised)
    check = Check(max_compute_overhead=advised.batch_size / 200)
    words = f"The result recommends {advised.batch_size:,}, for speed on its device"
    assert words in judge(result, advised.batch_size, 1, check).remedy
    assert words not in judge(result, advised.batch_size + 1, 1, check).remedy


@pytest.mark.parametrize(("rules", "codes"), [
    (Rules(), {"pass": 0, "warn": 0, "fail": 1, "cannot_tell": 3, "invalid": 2, "error": 4}),
    (Rules(strict=True), {"pass": 0, "warn": 1, "fail": 1, "cannot_tell": 3, "invalid": 2, "error": 4}),
    (Rules(exit_zero=True), {"pass": 0, "warn": 0, "fail": 0, "cannot_tell": 0, "invalid": 2, "error": 4}),
    (Rules(strict=True, exit_zero=True),
     {"pass": 0, "warn": 0, "fail": 0, "cannot_tell": 0, "invalid": 2, "error": 4}),
])  # fmt: skip
def test_every_exit_code(rules: Rules, codes: dict[str, int]) -> None:
    assert {verdict.value: int(rules.code(verdict)) for verdict in Verdict} == codes


# --- the stored result --------------------------------------------------------------------------------


@pytest.fixture
def config(write: Write) -> str:
    return str(write("c.yaml", QUADRATIC_CONFIG))


def test_a_stored_probe_is_judged(bnoise: Call, config: str) -> None:
    store(config)
    code, out, _ = bnoise("check", config)
    assert code == 0
    text = " ".join(out.split())
    assert "pass c.yaml: a batch of 32 examples takes 1.32 (1.29 to 1.36) times the fewest examples" in text
    assert (
        "4.12 times the fewest steps, 2.00 allowed: B_crit is 100 (90.0 to 112), by training runs of a probe"
        in text
    )
    assert "By .bnoise/c.probe.json." in text
    code, out, _ = bnoise("check", config, "--batch-size", "4096")
    assert code == 1
    assert "Set training.batch_size to 96 or less." in out
    assert bnoise("check", config, "--set", "training.batch_size=4096")[0] == 1
    assert bnoise("check", config, "--batch-size", "4096", "--exit-zero")[0] == 0


def test_a_sweep_outranks_a_probe_and_the_newest_counts(bnoise: Call, config: str) -> None:
    def found() -> Any:
        [checked] = json.loads(bnoise("check", config, "--format", "json")[1])["checked"]
        return checked["critical_batch_size"]["value"]

    base = probed().provenance
    store(config)
    assert found() == 100
    store(config, ".bnoise/other.json", critical_batch_size=critical(200.0, 180.0, 220.0),
          provenance=dataclasses.replace(base, time="2026-02-01T00:00:00+00:00"))  # fmt: skip
    assert found() == 200
    store(config, ".bnoise/a.json", critical_batch_size=critical(300.0, 280.0, 320.0),
          provenance=dataclasses.replace(base, time="2025-02-01T00:00:00+00:00"))  # fmt: skip
    assert found() == 200
    store(config, kind="sweep", critical_batch_size=critical(50.0, 40.0, 60.0, "sweep"),
          provenance=dataclasses.replace(base, time="2024-02-01T00:00:00+00:00"))  # fmt: skip
    assert found() == 50
    assert "by training" in bnoise("check", config)[1]
    assert found() == 50
    code, out, _ = bnoise("check", config, "--result", ".bnoise/a.json", "--format", "json")
    assert code == 0
    assert json.loads(out)["checked"][0]["critical_batch_size"]["value"] == 300


def test_results_are_also_looked_for_beside_the_config(bnoise: Call, write: Write) -> None:
    Path("deep").mkdir()
    write("deep/c.yaml", QUADRATIC_CONFIG)
    store("deep/c.yaml", "deep/.bnoise/c.probe.json")
    assert bnoise("check", "deep/c.yaml")[0] == 0


def test_another_config_is_told_from_this_one(bnoise: Call, config: str, write: Write) -> None:
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert "cannot tell  c.yaml: there is no stored measurement of this config" in out
    assert "`bnoise probe c.yaml`" in out
    store(config)
    write("c.yaml", QUADRATIC_CONFIG.replace("noise_scale: 20.0", "noise_scale: 21.0"))
    code, out, _ = bnoise("check", config)
    assert code == 3
    text = " ".join(out.split())
    assert (
        ".bnoise/c.probe.json was measured for another config: `model.noise_scale` was 20.0 and is 21.0"
        in text
    )
    code, out, _ = bnoise("check", config, "--set", "model.dimension=17", "--set", "optimizer.lr=3")
    assert "`model.dimension` was 16 and is 17" in " ".join(out.split())
    assert "`optimizer.lr` was 0.01 and is 3" in " ".join(out.split())


def test_changed_code_of_the_user_is_named(bnoise: Call, write: Write) -> None:
    write("mine.py", "def build(width): ...\n")
    write("c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.NoisyQuadratic", "mine.py:build"))
    spec = load_spec(Path("c.yaml"), at_hand=False)
    from bnoise_cli.spec.identity import code_hashes

    store("c.yaml", provenance=dataclasses.replace(probed().provenance, code=code_hashes(spec)))
    assert bnoise("check", "c.yaml")[0] == 0
    write("mine.py", "# Builds.\ndef build(width): ...\n")
    assert bnoise("check", "c.yaml")[0] == 0
    write("mine.py", "def build(width): return 3\n")
    code, out, _ = bnoise("check", "c.yaml")
    assert code == 3
    assert "mine.py has changed" in out


def test_what_cannot_be_read_is_said(bnoise: Call, config: str) -> None:
    path = store(config)
    whole = path.read_text()
    path.write_text(whole[:500])
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert ".bnoise/c.probe.json is not JSON, or torn" in " ".join(out.split())
    code, _, err = bnoise("check", config, "--result", str(path))
    assert code == 2
    assert "not JSON, or torn" in err
    path.write_text(whole.replace('"confidence": 0.95', '"confidence": 7', 99))
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert "is damaged" in out
    path.write_text(whole.replace('"schema_version": 1', '"schema_version": 2'))
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert "schema_version 2" in " ".join(out.split())
    code, _, err = bnoise("check", config, "--result", "nowhere.json")
    assert code == 2
    assert "nowhere.json" in err
    store("c.yaml", ".bnoise/good.json")
    assert bnoise("check", config)[0] in (0, 3), "one bad file does not hide a good one of the same age"


def test_a_result_that_says_nothing_gives_way(bnoise: Call, config: str) -> None:
    """An interrupted or damaged sweep beside a good probe."""
    store(config)
    store(config, kind="sweep", critical_batch_size=critical(None, 0.0, None, "sweep"))
    code, out, _ = bnoise("check", config)
    assert code == 0
    assert "by training runs of a probe" in " ".join(out.split())
    path = Path(".bnoise/c.sweep.json")
    path.write_text(path.read_text().replace('"confidence": 0.95', '"confidence": 7'))
    assert bnoise("check", config)[0] == 0
    path.write_text("{")
    assert bnoise("check", config)[0] == 0
    Path(".bnoise/c.probe.json").unlink()
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert ".bnoise/c.sweep.json is not JSON, or torn" in " ".join(out.split())


@pytest.mark.parametrize(("target", "file"), [("net.build", "net.py"), ("net.build", "net/__init__.py")])
def test_code_in_the_current_folder_counts(bnoise: Call, write: Write, target: str, file: str) -> None:
    Path("configs").mkdir()
    Path(file).parent.mkdir(exist_ok=True)
    write(file, "def build(dimension, noise_scale): ...\n")
    write("configs/c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.NoisyQuadratic", target))
    store("configs/c.yaml")
    assert bnoise("check", "configs/c.yaml")[0] == 0
    write(file, "def build(dimension, noise_scale): return 3\n")
    code, out, _ = bnoise("check", "configs/c.yaml")
    assert code == 3
    assert f"{file} has changed" in " ".join(out.split())


def test_other_weights_are_another_start(bnoise: Call, write: Write) -> None:
    """Compared where both are at hand; a CI machine may have none."""
    config = str(write("c.yaml", QUADRATIC_CONFIG + "checkpoint: w.pt\n"))
    write("w.pt", "a" * 3_000_000)
    spec = load_spec(Path(config))
    store(config, provenance=dataclasses.replace(probed().provenance, weights=weights_hash(spec)))
    assert bnoise("check", config)[0] == 0
    write("w.pt", "a" * 2_999_999 + "b")
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert "w.pt has changed" in out
    Path("w.pt").unlink()
    assert bnoise("check", config)[0] == 0


def test_another_batch_size_is_held_against_the_devices(bnoise: Call, config: str) -> None:
    store(config)
    assert bnoise("check", config, "--batch-size", "70", "--set", "training.world_size=7")[0] == 0
    code, out, _ = bnoise("check", config, "--batch-size", "70", "--set", "training.world_size=8")
    assert code == 2
    assert "70 for 8 devices" in " ".join(out.split())


def test_the_command_that_measures_is_one_to_paste(bnoise: Call, write: Write) -> None:
    """Quoted for a shell, with the same settings, and into a file of its own where two configs have one name."""
    for folder in ("a b", "c"):
        Path(folder).mkdir()
        write(f"{folder}/x.yaml", QUADRATIC_CONFIG)
    _, out, _ = bnoise("check", "a b/x.yaml", "--set", "model.dimension=17")
    assert "`bnoise probe 'a b/x.yaml' --set model.dimension=17`" in " ".join(out.split())
    _, out, _ = bnoise("check", "*/x.yaml")
    assert "`bnoise probe 'a b/x.yaml' --out 'a b/.bnoise/x.probe.json'`" in " ".join(out.split())
    assert bnoise("probe", "c/x.yaml", "--out", "c/.bnoise/x.probe.json", "--quiet")[0] in (0, 3)
    _, out, _ = bnoise("check", "*/x.yaml", "--batch-size", "1")
    assert "2 configs 2" in " ".join(out.split()), "they are the same config, so one result serves both"


def test_a_batch_size_that_nobody_chose_is_not_judged(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG.replace("training:\n  batch_size: 32\n", ""))
    store("c.yaml")
    code, out, _ = bnoise("check", "c.yaml")
    assert code == 3
    assert "training.batch_size is not set" in out
    assert bnoise("check", "c.yaml", "--batch-size", "32")[0] == 0


# --- several configs ----------------------------------------------------------------------------------


def test_each_config_has_its_verdict_and_the_gravest_counts(bnoise: Call, write: Write) -> None:
    Path("configs/deep").mkdir(parents=True)
    for name, text in {
        "good": QUADRATIC_CONFIG,
        "deep/large": QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: 3200"),
        "open": QUADRATIC_CONFIG.replace("dimension: 16", "dimension: 17"),
        "wrong": QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: -1"),
    }.items():
        write(f"configs/{name}.yaml", text)
    store("configs/good.yaml")

    def codes(*arguments: str) -> tuple[int, dict[str, str]]:
        code, out, _ = bnoise("check", *arguments, "--format", "json")
        data = json.loads(out)
        assert data["exit_code"] == code
        return code, {Path(each["config"]).stem: each["verdict"] for each in data["checked"]}

    every = {"good": "pass", "large": "fail", "open": "cannot_tell", "wrong": "invalid"}
    assert codes("configs/**/*.yaml") == (2, every)
    assert codes("configs/*.yaml", "configs/good.yaml") == (
        2,
        {k: v for k, v in every.items() if k != "large"},
    )
    assert codes("configs/good.yaml", "configs/open.yaml")[0] == 3
    assert codes("configs/open.yaml", "configs/deep/large.yaml")[0] == 1
    assert codes("configs/open.yaml", "configs/deep/large.yaml", "--exit-zero")[0] == 0
    assert codes("configs/**/*.yaml", "--exit-zero")[0] == 2
    _, out, _ = bnoise("check", "configs/**/*.yaml")
    assert "4 configs  1 pass, 1 fail, 1 cannot tell, 1 invalid config" in out
    code, _, err = bnoise("check", "nothing/*.yaml")
    assert code == 2
    assert "no file matches 'nothing/*.yaml'" in err
    code, _, err = bnoise("check", "absent.yaml")
    assert code == 2


def test_patterns_end_and_count_each_file_once(bnoise: Call, write: Write) -> None:
    """Links that lead in circles, hidden folders, a file named twice."""
    Path("configs/.hidden").mkdir(parents=True)
    for name in ("configs/c.yaml", "configs/.hidden/c.yaml"):
        write(name, QUADRATIC_CONFIG)
    Path("configs/a").symlink_to(".")
    Path("configs/b").symlink_to(".")
    Path("configs/loop.yaml").symlink_to("loop.yaml")
    Path("configs/link.yaml").symlink_to("c.yaml")
    store("configs/c.yaml")
    for arguments in (
        ["configs/**/*.yaml"],
        ["configs/c.yaml", str(Path("configs").resolve() / "**/*.yaml")],
    ):
        code, out, _ = bnoise("check", *arguments, "--format", "json")
        assert code == 0
        assert len(json.loads(out)["checked"]) == 1
    code, _, err = bnoise("check", "configs/***.yaml")
    assert code in (0, 2)
    assert "Traceback" not in err
    assert bnoise("check", "configs/loop.yaml", "--format", "github")[0] == 2


def test_without_a_name_it_is_bnoise_yaml(bnoise: Call, write: Write) -> None:
    write("bnoise.yaml", QUADRATIC_CONFIG)
    store("bnoise.yaml")
    assert bnoise("check")[0] == 0


def test_a_warning_fails_where_that_is_asked_for(bnoise: Call, config: str) -> None:
    store(config)
    assert bnoise("check", config, "--batch-size", "105")[0] == 0
    code, out, _ = bnoise("check", config, "--batch-size", "105", "--strict")
    assert code == 1
    assert "more by the estimate, though not surely" in " ".join(out.split())


# --- the formats --------------------------------------------------------------------------------------

COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::(.*)")


def annotations(text: str) -> list[tuple[str, dict[str, str], str]]:
    """GitHub's workflow commands, read as its runner does."""

    def plain(value: str) -> str:
        return (
            value.replace("%0D", "\r")
            .replace("%0A", "\n")
            .replace("%3A", ":")
            .replace("%2C", ",")
            .replace("%25", "%")
        )

    found = []
    for line in text.splitlines():
        if line.startswith("::"):
            command = COMMAND.fullmatch(line)
            assert command is not None, line
            pairs = (pair.split("=", 1) for pair in command[2].split(","))
            found.append((command[1], {key: plain(value) for key, value in pairs}, plain(command[3])))
    return found


def test_annotations_stand_on_the_very_line(
    bnoise: Call, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(config)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(Path.cwd().parent))
    line = QUADRATIC_CONFIG.splitlines().index("  batch_size: 32") + 1
    where = {"file": f"{Path.cwd().name}/c.yaml", "line": str(line), "col": "15"}
    code, out, _ = bnoise("check", config, "--batch-size", "3200", "--format", "github")
    assert code == 1
    [(level, place, text)] = annotations(out)
    assert (level, place) == ("error", {**where, "title": "bnoise check: fail"})
    assert text.startswith("a batch of 3,200 examples takes 33.0")
    assert text.endswith("Set training.batch_size to 96 or less.")
    _, out, _ = bnoise("check", config, "--batch-size", "105", "--format", "github")
    assert [(level, place["line"]) for level, place, _ in annotations(out)] == [("warning", str(line))]
    _, out, _ = bnoise("check", config, "--batch-size", "3200", "--format", "github", "--exit-zero")
    assert [level for level, _, _ in annotations(out)] == ["warning"]
    _, out, _ = bnoise("check", config, "--format", "github")
    assert annotations(out) == []
    assert out.startswith("pass: c.yaml: ")


def test_every_mistake_of_a_config_has_its_annotation(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: '50%, a: b'") + "extra: 3\n")
    code, out, _ = bnoise("check", "c.yaml", "--format", "github")
    assert code == 2
    lines = QUADRATIC_CONFIG.splitlines()
    found = {place["line"]: text for _, place, text in annotations(out)}
    assert set(found) == {str(lines.index("  batch_size: 32") + 1), str(len(lines) + 1)}
    assert "50%, a: b" in found[str(lines.index("  batch_size: 32") + 1)]


def test_names_cannot_give_commands(bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's file name and values must not become workflow commands or outputs."""
    name = "a,line=1::warning\n::set-output name=verdict::pass\nb.yaml"
    write(name, QUADRATIC_CONFIG.replace("batch_size: 32", 'batch_size: "\\n::error::x"'))
    monkeypatch.setenv("GITHUB_OUTPUT", "out.txt")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    code, out, _ = bnoise("check", name, "--format", "github")
    assert code == 2
    [(_, place, _)] = annotations(out)
    assert place["file"] == name.replace("\n", "\\n")
    assert outputs(Path("out.txt").read_text())["verdict"] == "invalid"
    for form in ("text", "markdown"):
        _, out, _ = bnoise("check", name, "--format", form)
        assert not any(line.startswith("::") for line in out.splitlines())


@pytest.mark.parametrize("form", ["text", "markdown", "junit", "github"])
def test_nothing_in_a_log_steers_it(bnoise: Call, write: Write, form: str) -> None:
    """Keys, targets, names of files and of doubts with escapes, line breaks and workflow commands."""
    evil = "\x1b[31m\n::error::" + "a" * 58 + " ::warning::##[error]x"
    write("key.yaml", QUADRATIC_CONFIG + f"{json.dumps(evil)}: 1\n")
    write(
        "target.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", json.dumps(evil))
    )
    write("doubt.yaml", QUADRATIC_CONFIG)
    store("doubt.yaml", f".bnoise/{evil.replace('/', '')[:60]}.json", doubts=(doubt(evil),))
    write("name\x1b\n::error::.yaml", QUADRATIC_CONFIG.replace("16", "17"))
    _, out, err = bnoise(
        "check", "key.yaml", "target.yaml", "doubt.yaml", "name\x1b\n::error::.yaml", "--format", form
    )
    assert "\x1b" not in out + err
    for line in out.splitlines():
        if not (form == "github" and COMMAND.fullmatch(line)):
            assert "::" not in line
        assert "##[" not in line
    if form == "github":
        assert len(annotations(out)) == 3


def outputs(text: str) -> dict[str, str]:
    """A step's outputs, read as GitHub's runner does."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, fence = line.split("<<")
        value = []
        while (part := next(lines)) != fence:
            value.append(part)
        found[name] = "\n".join(value)
    return found


def test_summary_and_outputs_are_appended(bnoise: Call, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store(config)
    Path("out.txt").write_text("before<<x\n1\nx\n")
    Path("summary.md").write_text("# Before\n")
    monkeypatch.setenv("GITHUB_OUTPUT", "out.txt")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert bnoise("check", config, "--format", "github", "--batch-size", "3200")[0] == 1
    found = outputs(Path("out.txt").read_text())
    assert found["before"] == "1"
    assert (found["verdict"], found["exit-code"], found["config"]) == ("fail", "1", "c.yaml")
    assert (found["batch-size"], found["critical-batch-size"], found["suggested-batch-size"]) == (
        "3200",
        "100",
        "96",
    )
    summary = Path("summary.md").read_text()
    assert summary.startswith("# Before\n# bnoise check\n")
    assert "| fail | c.yaml | 3,200 | 100 (90.0 to 112) | 33.0 | 1.03 |" in summary
    monkeypatch.setenv("GITHUB_OUTPUT", "no/such/folder")
    code, out, err = bnoise("check", config, "--format", "github")
    assert code == 4
    assert "GITHUB_OUTPUT" in err
    assert "c.yaml" in out, "the annotations are printed before the files are written"


#: Of the JUnit schema that Jenkins and GitLab read: attributes (required, allowed) and children of each element.
JUNIT = {
    "testsuites": ({"tests", "failures", "errors"}, {"name", "time"}, ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "timestamp", "hostname", "package", "id"},
        set[str](),
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "properties": (set[str](), set[str](), []),
    "testcase": ({"name", "classname", "time"}, set[str](), ["failure", "error"]),
    "failure": ({"type"}, {"message"}, []),
    "error": ({"type"}, {"message"}, []),
    "system-out": (set[str](), set[str](), []),
    "system-err": (set[str](), set[str](), []),
}


def test_outputs_are_of_the_gravest(bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("large.yaml", QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: 3200"))
    write("open.yaml", QUADRATIC_CONFIG.replace("16", "17"))
    store("large.yaml")
    monkeypatch.setenv("GITHUB_OUTPUT", "out.txt")
    assert bnoise("check", "open.yaml", "large.yaml", "--format", "github")[0] == 1
    found = outputs(Path("out.txt").read_text())
    assert (found["verdict"], found["config"], found["exit-code"]) == ("fail", "large.yaml", "1")


def test_a_strict_warning_is_a_failure_in_junit_too(bnoise: Call, config: str) -> None:
    store(config)
    arguments = ("check", config, "--batch-size", "105", "--format", "junit")
    code, out, _ = bnoise(*arguments)
    assert (code, ET.fromstring(out).attrib["failures"]) == (0, "0")
    code, out, _ = bnoise(*arguments, "--strict")
    assert (code, ET.fromstring(out).attrib["failures"]) == (1, "1")


def test_junit_keeps_to_its_schema(bnoise: Call, write: Write) -> None:
    write("good.yaml", QUADRATIC_CONFIG)
    write('bad<&\x1b".yaml', QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: 3200"))
    write("open.yaml", QUADRATIC_CONFIG.replace("16", "17"))
    write("wrong.yaml", "version: 7\n")
    store("good.yaml")
    code, out, _ = bnoise("check", "*.yaml", "--format", "junit")
    assert code == 2
    root = ET.fromstring(out)
    assert root.tag == "testsuites"
    for element in root.iter():
        required, allowed, children = JUNIT[element.tag]
        assert required <= set(element.attrib) <= required | allowed
        order = [children.index(child.tag) for child in element]
        assert order == sorted(order)
    [suite] = root
    cases = {case.attrib["classname"]: [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {
        "good.yaml": [],
        'bad<&\\x1b".yaml': ["failure"],
        "open.yaml": ["error"],
        "wrong.yaml": ["error"],
    }
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("4", "1", "2")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])


# --- what it must not do ------------------------------------------------------------------------------


def test_it_imports_neither_torch_nor_the_users_code(write: Write) -> None:
    """Also with packages and weights that this machine lacks."""
    write("mine.py", "open('ran', 'w')\nclass Net: pass\nclass Data: pass\n")
    write(
        "c.yaml",
        "version: 1\nmodel: {_target_: mine.py:Net, inner: {_target_: absent_package.Inner}}\n"
        "dataset: {_target_: mine.Data}\nloss: {_target_: torch.nn.MSELoss}\ncheckpoint: absent.pt\n"
        "optimizer: {_target_: torch.optim.SGD, lr: 0.1}\ntraining: {batch_size: 32}\n",
    )
    store("c.yaml")
    script = (
        "import sys\nfrom bnoise_cli.cli import app\nsys.argv = ['bnoise', 'check', 'c.yaml', *sys.argv[1:]]\n"
        "code = app.run()\nassert not {'torch', 'numpy', 'scipy', 'matplotlib', 'mine'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    for arguments in (
        [],
        ["--validate-only"],
        *(["--format", f] for f in ("json", "markdown", "github", "junit")),
    ):
        ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert not Path("ran").exists()


def test_validating_looks_at_the_form_alone(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG)
    code, out, _ = bnoise("check", "c.yaml", "--validate-only")
    assert (code, out) == (0, "pass  c.yaml: the config is well formed\n")
    write("c.yaml", QUADRATIC_CONFIG.replace("batch_size", "batchsize"))
    code, out, _ = bnoise("check", "c.yaml", "--validate-only", "--exit-zero")
    assert code == 2
    assert "unknown key `batchsize`" in out
    assert "did you mean `batch_size`?" in " ".join(out.split())
    write("c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "absent.py:loss"))
    code, out, _ = bnoise("check", "c.yaml", "--validate-only")
    assert code == 2
    assert "absent.py" in out


# --- whatever is in the files -------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=4,
)


def called(*arguments: str) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    with patch.object(sys, "argv", ["bnoise", *arguments]), redirect_stdout(out), redirect_stderr(err):
        code = app.run()
    return code, out.getvalue(), err.getvalue()


def require_sane(code: int, out: str, err: str, known: tuple[ExitCode, ...]) -> None:
    """An exit code of 0 or 1 has a verdict with the figures that it follows from."""
    assert "Traceback" not in err
    assert code in known
    if code not in (0, 1):
        assert out or err
        return
    [checked] = json.loads(out)["checked"]
    least = checked["compute_overhead_limits"]["low"]
    assert checked["batch_size"] >= 1
    if code == 1:
        assert checked["verdict"] == "fail"
        assert least > 1
    else:
        assert checked["verdict"] in ("pass", "warn")
        assert least <= 1


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@pytest.mark.full
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_a_result_ends_in_a_verdict_or_a_message(config: str, data: st.DataObject) -> None:
    path = store(config, "r.json")
    stored = json.loads(path.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(stored)[1:]))
        inner = stored
        for key in place[:-1]:
            inner = inner[key]
        if data.draw(st.booleans()) and isinstance(inner, dict):
            del inner[place[-1]]
        else:
            inner[place[-1]] = data.draw(ANYTHING)
    path.write_text(json.dumps(stored))
    size = data.draw(st.sampled_from(["1", "95", "105", "4096"]))
    code, out, err = called("check", config, "--result", "r.json", "--batch-size", size, "--format", "json")
    require_sane(
        code, out, err, (ExitCode.DONE, ExitCode.CHECK_FAILED, ExitCode.WRONG_CALL, ExitCode.CANNOT_TELL)
    )
    Path(".bnoise").mkdir(exist_ok=True)
    Path(".bnoise/c.probe.json").write_bytes(path.read_bytes())
    code, out, err = called("check", config, "--batch-size", size, "--format", "json")
    require_sane(code, out, err, (ExitCode.DONE, ExitCode.CHECK_FAILED, ExitCode.CANNOT_TELL))


@pytest.mark.full
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.integers(0, 2000))
def test_any_bytes_are_a_verdict_or_a_message(config: str, noise: bytes, at: int) -> None:
    path = store(config, "r.json")
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + noise + whole[at:])
    code, out, err = called("check", config, "--result", "r.json", "--format", "json")
    require_sane(
        code, out, err, (ExitCode.DONE, ExitCode.CHECK_FAILED, ExitCode.WRONG_CALL, ExitCode.CANNOT_TELL)
    )
    text = QUADRATIC_CONFIG.encode()
    Path("d.yaml").write_bytes(text[: at % len(text)] + noise + text[at % len(text) :])
    code, out, err = called("check", "d.yaml", "--format", "json")
    require_sane(
        code, out, err, (ExitCode.DONE, ExitCode.CHECK_FAILED, ExitCode.WRONG_CALL, ExitCode.CANNOT_TELL)
    )


@pytest.mark.full
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["training", "check", "probe", "model", "optimizer", "sweep", "version", "training.batch_size",
                        "check.max_compute_overhead", "check.min_time_efficiency"]), ANYTHING)  # fmt: skip
def test_any_value_in_a_config_is_a_verdict_or_a_message(config: str, key: str, value: Any) -> None:
    store(config)
    code, out, err = called("check", config, "--set", f"{key}={json.dumps(value)}", "--format", "json")
    assert "Traceback" not in err
    assert code in (0, 1, 2, 3)
    if code in (0, 1):
        [checked] = json.loads(out)["checked"]
        assert checked["verdict"] in ("pass", "warn", "fail")


@pytest.mark.parametrize("text", [
    QUADRATIC_CONFIG.replace("batch_size: 32", f"batch_size: {'9' * 400}"),
    QUADRATIC_CONFIG.replace("lr: 0.01", "lr: !!timestamp foo"),
    QUADRATIC_CONFIG.replace("lr: 0.01", "lr: !!bool foo"),
    QUADRATIC_CONFIG.replace("lr: 0.01", "lr: !!binary Zm9v"),
    QUADRATIC_CONFIG + "x: &a0 [1]\n" + "".join(f"x{n}: &a{n} {'[' * 29}*a{n - 1}{']' * 29}\n" for n in range(1, 60)),
    QUADRATIC_CONFIG + "x0: &a0 [1]\n" + "".join(f"x{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 9)),
    QUADRATIC_CONFIG + '"\\ud800x": 1\n',
    QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "a" * 5000 + ".py:foo"),
    QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "/etc/passwd:foo"),
    "- 1\n",
])  # fmt: skip
@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_every_strange_config_is_one_invalid_config(bnoise: Call, write: Write, text: str, form: str) -> None:
    write("good.yaml", QUADRATIC_CONFIG)
    store("good.yaml")
    write("c.yaml", text)
    code, out, err = bnoise("check", "c.yaml", "good.yaml", "--format", form)
    assert code == 2
    assert "Traceback" not in err
    assert "B_crit is 100" in " ".join(out.split()), "the other config has its verdict"


def test_a_target_of_any_length_and_a_device_in_the_folder_do_no_harm(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "a" * 5000 + ".foo"))
    assert bnoise("check", "c.yaml")[0] == 2
    write("c.yaml", QUADRATIC_CONFIG)
    Path(".bnoise").mkdir()
    Path(".bnoise/c.probe.json").symlink_to("/dev/zero")
    os.mkfifo(".bnoise/pipe.json")
    code, out, _ = bnoise("check", "c.yaml")
    assert code == 3
    assert "is not a plain file" in " ".join(out.split())
    assert bnoise("check", "a" * 5000)[0] == 2


def test_a_device_that_there_is_not_is_a_wrong_call(bnoise: Call, config: str) -> None:
    assert bnoise("check", config, "--probe", "--device", "nonsense")[0] == 2
    code, _, err = bnoise("check", config, "--validate-only", "--probe")
    assert code == 2
    assert "--validate-only" in err


# --- end to end ---------------------------------------------------------------------------------------


def test_probe_now_measures_keeps_and_judges(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG)
    code, out, _ = bnoise("check", "c.yaml", "--probe", "--quiet", "--batch-size", "2")
    assert code == 0, out
    assert Path(".bnoise/c.probe.json").exists()
    before = Path(".bnoise/c.probe.json").read_bytes()
    assert bnoise("check", "c.yaml", "--probe", "--quiet", "--batch-size", "2")[0] == 0
    assert Path(".bnoise/c.probe.json").read_bytes() == before, "what is known is not measured again"


def test_a_probe_that_fails_is_not_a_failed_check(bnoise: Call, write: Write) -> None:
    write("mine.py", "def loss(model, batch): raise KeyError('mine')\n")
    write("c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "mine.py:loss"))
    code, out, _ = bnoise("check", "c.yaml", "--probe", "--quiet")
    assert code == 4
    assert "error  c.yaml: " in out
    assert "mine" in out


@pytest.mark.full
def test_the_digits_from_probe_to_check(bnoise: Call, write: Write) -> None:
    text = (ROOT / "configs/digits.yaml").read_text()
    write("digits.yaml", text)
    code, out, err = bnoise("probe", "digits.yaml", "--json", "--set", "probe.horizon=8")
    assert code == 0, err
    found = json.loads(out)
    recommended = found["recommendation"]["batch_size"]
    least_overhead = min(recommended, int(found["critical_batch_size"]["low"]))
    code, out, _ = bnoise("check", "digits.yaml", "--batch-size", str(least_overhead))
    assert code == 0
    assert out.startswith("pass")
    # The recommendation rests on the device as well, and may lie beyond B_crit where steps are dominated by t₀.
    allowed = (
        f"check.max_compute_overhead={max(1.0, 1.01 * recommended / found['critical_batch_size']['low'])}"
    )
    code, out, _ = bnoise("check", "digits.yaml", "--batch-size", str(recommended), "--set", allowed)
    assert code == 0
    assert out.startswith("pass")
    hundredfold = str(round(100 * found["critical_batch_size"]["value"]))
    code, out, _ = bnoise("check", "digits.yaml", "--batch-size", hundredfold)
    assert code == 1
    assert out.startswith("fail")
    write("digits.yaml", text.replace("widths: [64, 128, 10]", "widths: [64, 256, 10]"))
    code, out, _ = bnoise("check", "digits.yaml")
    assert code == 3
    assert "`model.widths` was [64, 128, 10] and is [64, 256, 10]" in " ".join(out.split())
    assert "Measure again with `bnoise probe digits.yaml`" in " ".join(out.split())


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [(24, Verdict.PASS), (26, Verdict.CANNOT_TELL), (400, Verdict.CANNOT_TELL), (450, Verdict.FAIL)],
)
def test_one_step_judges_no_plan_within_a_factor_of_four_of_the_line(
    batch_size: int, expected: Verdict
) -> None:
    by_step = dataclasses.replace(probed(), critical_batch_size=critical(100.0, 90.0, 112.0, basis="probe"))
    found = judge(by_step, batch_size, 1, Check())
    assert found.verdict is expected
    if expected is Verdict.CANNOT_TELL:
        assert "one step" in found.finding
        assert "horizon" in found.remedy


def test_the_check_needs_only_what_ci_installs(write: Write) -> None:
    """With every other package out of reach."""
    write("c.yaml", QUADRATIC_CONFIG)
    store("c.yaml")
    script = (
        "import sys\nfor name in ('torch', 'numpy', 'scipy', 'matplotlib'): sys.modules[name] = None\n"
        "from bnoise_cli.cli import app\nsys.argv = ['bnoise', 'check', 'c.yaml', *sys.argv[1:]]\nsys.exit(app.run())\n"
    )
    for form in ("text", "json", "markdown", "github", "junit"):
        ran = subprocess.run([sys.executable, "-c", script, "--format", form], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
