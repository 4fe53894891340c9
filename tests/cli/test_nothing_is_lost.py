"""What is measured survives failures, full disks, closed pipes and Ctrl-C."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bnoise_cli.measurement.probing import probe, session
from tests.cases import MARKING, QUADRATIC_CONFIG, Call, Write
from tests.cli.calls import USER
from tests.processes import Running, start, wait_for
from tests.samples import plan


def test_a_limit_that_cannot_be_met_is_found_after_measuring_and_loses_nothing(
    bnoise: Call, write: Write
) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    code, out, err = bnoise(
        "probe", config, "--set", "training.steps=1000000000", "--set", "advice.deadline=1s"
    )
    assert code == 2
    assert "Recommended batch" in out
    assert "Allow at least" in err
    assert Path(".bnoise/quad.probe.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_stderr_never_ends_as_a_failed_check(write: Write) -> None:
    write("r.json", json.dumps(plan().to_json()))
    for arguments, expected in ((["report", "r.json"], 0), (["report", "none.json"], 2)):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "bnoise_cli", *arguments],
                stdout=subprocess.DEVNULL,
                stderr=full,
                check=False,
            )
        assert done.returncode == expected


def test_timing_that_fails_or_is_interrupted_keeps_the_noise_scale(
    bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnoise_cli.errors import RunError
    from bnoise_cli.measurement.timing.training_steps import TrainingSteps

    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    for error, code in ((RunError("the optimizer broke."), 4), (KeyboardInterrupt(), 130)):

        def broken(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(TrainingSteps, "step", broken)
        assert bnoise("probe", config)[0] == code
        data = json.loads(Path(".bnoise/quad.probe.json").read_text())
        assert data["critical_batch_size"]["value"] > 0
        assert data["throughput"] is None
        assert data["tradeoff"][0]["step_seconds"] is None
        assert "untimed" in [doubt["code"] for doubt in data["doubts"]]
    code, out, err = bnoise("report", ".bnoise/quad.probe.json", "--emit", "hf")
    assert (code, out) == (3, "")
    assert "no step was timed" in err


def test_a_failure_after_some_replicates_keeps_them(bnoise: Call, user: Write) -> None:
    late = USER.replace("calls > 30", "calls > 1500")
    user("user.py", late)
    code, out, err = bnoise(
        "probe", "c.yaml", "--set", "loss=", "--set", "objective._target_=user.py:late_nan",
        "--set", "probe.max_examples=100000", "--set", "probe.precision=0.001", "--json",
    )  # fmt: skip
    assert code == 4
    assert "not finite" in err or "is nan" in err
    data = json.loads(out)
    assert data["provenance"]["replicates"] >= 2
    assert "failed" in [doubt["code"] for doubt in data["doubts"]]
    assert json.loads(Path(".bnoise/c.probe.json").read_text()) == data


@pytest.mark.parametrize(
    ("owner", "name", "calls", "setting"),
    [(probe._Run, "_replicate", 5, "probe.horizon=off"), (session, "probe", 1, "probe.at_steps=[0,3]")],
    ids=["replicates", "points"],
)
def test_a_mistake_of_bnoise_keeps_what_was_measured_before(
    bnoise: Call,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    calls: int,
    setting: str,
) -> None:
    real, left = getattr(owner, name), iter(range(calls))

    def mistaken(*given: Any, **named: Any) -> Any:
        if next(left, None) is None:
            raise KeyError("nobody foresaw this")
        return real(*given, **named)

    monkeypatch.setattr(owner, name, mistaken)
    code, _, err = bnoise("probe", str(write("quad.yaml", QUADRATIC_CONFIG)), "--set", setting)
    assert code == 4
    assert "this is a mistake in bnoise; please report it: KeyError: 'nobody foresaw" in " ".join(err.split())
    found = json.loads(Path(".bnoise/quad.probe.json").read_text())
    assert found["provenance"]["replicates"] >= 5
    assert "failed" in [doubt["code"] for doubt in found["doubts"]]


@pytest.mark.full
def test_a_reader_who_has_gone_loses_nothing(write: Write, tmp_path: Path) -> None:
    write("q.yaml", QUADRATIC_CONFIG)
    command = f"{shlex.quote(sys.executable)} -m bnoise_cli probe q.yaml | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / ".bnoise/q.probe.json").exists()


def test_a_full_disk_loses_nothing(bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    config = str(write("q.yaml", QUADRATIC_CONFIG))
    monkeypatch.setattr("os.fsync", full)
    code, out, err = bnoise("probe", config)
    assert code == 4
    assert "No space left on device" in err
    assert json.loads(out)["kind"] == "probe"


def test_ctrl_c_after_the_measurement_says_where_the_result_is(
    bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    config = str(write("q.yaml", QUADRATIC_CONFIG))
    monkeypatch.setattr("bnoise_cli.cli.exports.Outputs.write", interrupted)
    code, _, err = bnoise("probe", config)
    assert code == 130
    assert "bnoise: interrupted. The result is in .bnoise/q.probe.json." in err
    assert Path(".bnoise/q.probe.json").exists()


def test_what_nobody_foresaw_is_never_1(bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bnoise_cli.cli.command.load_spec", broken)
    code, _, err = bnoise("probe")
    assert code == 4
    assert "Traceback" in err
    assert "please report" in err


def well_under_way(write: Write, folder: Path, config: str) -> Running:
    """A probe in a process of its own that has called the loss many times."""
    write("q.yaml", config.replace("bnoise_cli.examples.quadratic.mean_loss", "user.py:marking"))
    write("user.py", MARKING)
    running = start(["probe", "q.yaml"], folder, folder / "streams", {})
    wait_for(folder / "well under way")
    return running


@pytest.mark.full
def test_ctrl_c_keeps_what_was_measured(write: Write, tmp_path: Path) -> None:
    config = QUADRATIC_CONFIG.replace("max_examples: 3000", "precision: 0.0001\n  budget: 120s")
    running = well_under_way(write, tmp_path, config)
    for _ in range(2):  # an impatient user
        running.send(signal.SIGINT)
        time.sleep(0.05)
    code, out, err = running.end(60)
    assert code == 130, err
    assert "interrupted after" in out
    assert "Traceback" not in err
    assert json.loads((tmp_path / ".bnoise/q.probe.json").read_text())["provenance"]["replicates"] > 1


@pytest.mark.full
def test_ctrl_c_before_anything_was_measured_says_so(write: Write, tmp_path: Path) -> None:
    config = QUADRATIC_CONFIG.replace("warmup_steps: 3", "warmup_steps: 10000000")
    running = well_under_way(write, tmp_path, config)
    running.send(signal.SIGINT)
    code, out, err = running.end(60)
    assert (code, out) == (130, "")
    assert err.strip() == "bnoise: interrupted before anything was measured."


def test_advice_that_fails_keeps_what_was_measured(
    bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in what is made of a measurement must not cost it, nor the step times that come after it."""
    from bnoise_cli.advice import advise as module

    config, real = str(write("quad.yaml", QUADRATIC_CONFIG)), module.advise
    for timed in (False, True):

        def broken(result: Any, timed: bool = timed) -> Any:
            if timed == (result.throughput is not None):
                raise AssertionError("a mistake")
            return real(result)

        monkeypatch.setattr(module, "advise", broken)
        code, _, err = bnoise("probe", config)
        assert code == 4
        assert "this is a mistake in bnoise" in err
        data = json.loads(Path(".bnoise/quad.probe.json").read_text())
        assert data["critical_batch_size"]["value"] > 0
        assert (data["throughput"] is not None) == timed
