"""A sweep that was killed, interrupted or damaged goes on and ends as one that was not."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bnoise_cli.examples.quadratic import NoisyQuadratic
from bnoise_cli.ledger import Ledger
from bnoise_cli.measurement.outcome import HorizonFound, SweepProgress
from bnoise_cli.measurement.sweeping.dry_run import plan_sweep
from bnoise_cli.measurement.sweeping.sweep import SweepSession
from bnoise_cli.spec.identity import ledger_hash
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.user_files import user_module
from tests.cases import CPU, MARKING, TINY_SWEEP, Call, Write
from tests.processes import start, wait_for
from tests.samples import HORIZON
from tests.sweeps import KILLED, decide_stacks, entries, finished, stop_at, swept, without_times


def test_a_sweep_killed_ten_times_ends_as_one_that_was_not(write: Write, bnoise: Call) -> None:
    """SIGKILL at a random moment after at least one more entry; the same command goes on."""
    config = str(write("q.yaml", KILLED))
    spec = load_spec(Path(config))
    whole, torn = Path("whole.runs.jsonl"), Path("torn.runs.jsonl")
    for ledger in (whole, torn):
        decide_stacks(ledger, spec, [2, 4, 8, 16, 32])
    code, _, err = bnoise("sweep", config, "--out", "whole.json", "--quiet")
    assert code in (0, 3), err
    moments = random.Random(0)
    for _ in range(10):
        before = torn.stat().st_size
        running = start(["sweep", config, "--out", "torn.json", "--quiet"], Path.cwd(), Path("streams"), {})
        while torn.stat().st_size == before and running.is_alive():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        assert running.end(0)[0] == -signal.SIGKILL, "it must not end by itself"
        known = finished(torn)
        assert known == finished(whole)[: len(known)], "nothing is measured twice or in another order"
        assert len(known) < len(finished(whole))
    assert bnoise("sweep", config, "--out", "torn.json", "--quiet")[0] == code
    assert finished(torn) == finished(whole)
    assert without_times(Path("torn.json").read_text()) == without_times(Path("whole.json").read_text())


@pytest.mark.parametrize("cut", [1, 2])
def test_rivals_are_remembered_where_a_sweep_goes_on(write: Write, cut: int) -> None:
    """One by one, a run of the first look stops once another was faster, also where that one is known from before.

    The first look at 64 examples is at a half, one and twice the config's learning rate, of which the last is beaten.
    """
    near = {"lr: 0.5": "lr: 1.2", "noise_scale: 1.0": "noise_scale: 2.0", "batch_size: 128": "batch_size: 64",
            "[2, 8, 32]": "[16, 32, 64]", "seeds: 2": "seeds: 1"}  # fmt: skip
    text = TINY_SWEEP
    for old, new in near.items():
        text = text.replace(old, new)
    spec = load_spec(write("q.yaml", text))
    for name in ("whole.jsonl", "cut.jsonl"):
        ledger = Ledger(Path(name), ledger_hash(spec))
        for size in (16, 32, 64):
            ledger.append({"kind": "stacks", "batch_size": size, "value": False})
    swept(spec, Path("whole.jsonl"))
    lines = [entry for entry in entries(Path("whole.jsonl")) if entry["kind"] == "runs"]
    assert "beaten" in [run["outcome"] for line in lines[cut:3] for run in line["runs"]]
    for line in lines[:cut]:
        ledger.append(line)
    swept(spec, Path("cut.jsonl"))
    again = [entry for entry in entries(Path("cut.jsonl")) if entry["kind"] == "runs"]
    plain = [[{**run, "seconds": 0} for line in kind for run in line["runs"]] for kind in (lines, again)]
    assert plain[0] == plain[1]


def test_a_torn_last_line_is_made_again_and_nothing_else(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    assert bnoise("sweep", config, "--quiet")[0] in (0, 3)
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    first, whole = Path(".bnoise/q.sweep.json").read_text(), ledger.read_bytes()
    for torn in (whole[:-1], whole[:-20], whole + b'{"kind": "ru', whole + "é".encode()[:1]):
        ledger.write_bytes(torn)
        code, _, err = bnoise("sweep", config)
        assert code in (0, 3), err
        assert "Going on with" in err
        assert without_times(Path(".bnoise/q.sweep.json").read_text()) == without_times(first)
        assert len(finished(ledger)) == len(set(finished(ledger)))
        assert ledger.read_bytes().startswith(whole.rpartition(b'{"kind": "probed"')[0])


@pytest.mark.parametrize("damage", [b"\x00\x01garbage\n", b"3\n", b'{"kind": "runs"}\n', b"[]\n"])
def test_a_line_damaged_in_the_middle_loses_nothing_else(write: Write, bnoise: Call, damage: bytes) -> None:
    """Every other finished run is still there, in the ledger or put aside, and the sweep ends as before."""
    config = str(write("q.yaml", TINY_SWEEP))
    bnoise("sweep", config, "--quiet")
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    result = Path(".bnoise/q.sweep.json").read_text()
    lines = ledger.read_bytes().splitlines(keepends=True)
    place = len(lines) // 2
    ledger.write_bytes(b"".join([*lines[:place], damage, *lines[place + 1 :]]))
    code, _, err = bnoise("sweep", config)
    assert code in (0, 3), err
    assert "Traceback" not in err
    kept = b"".join(path.read_bytes() for path in Path(".bnoise").rglob("*.jsonl"))
    assert all(line in kept for i, line in enumerate(lines) if i != place)
    assert (
        without_times(Path(".bnoise/q.sweep.json").read_text())["batches"] == without_times(result)["batches"]
    )


def test_a_config_changed_twice_loses_no_runs(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    bnoise("sweep", config, "--quiet")
    before = Path(".bnoise/q.sweep.runs.jsonl").read_bytes()
    bnoise("sweep", config, "--quiet", "--set", "sweep.goal=0.8")
    bnoise("sweep", config, "--quiet", "--set", "sweep.goal=0.6")
    assert before in [path.read_bytes() for path in Path(".bnoise").rglob("*.jsonl")]


def test_runs_of_other_code_are_not_gone_on_with(write: Write, bnoise: Call) -> None:
    """The config names a file of the user's, whose model is another one now: it starts with half the loss."""
    config = str(
        write("q.yaml", TINY_SWEEP.replace("bnoise_cli.examples.quadratic.mean_loss", "user.py:loss"))
    )
    text = "from bnoise_cli.examples.quadratic import mean_loss\ndef loss(model, batch): return mean_loss(model, batch)"
    write("user.py", text)
    module = user_module(Path("user.py"))
    sys.modules.pop(module, None)
    code, _, err = bnoise("sweep", config, "--quiet")
    assert code in (0, 3), err
    before = Path(".bnoise/q.sweep.runs.jsonl").read_bytes()
    write("user.py", f"{text} / 2")
    sys.modules.pop(module, None)
    code, _, err = bnoise("sweep", config)
    assert "Going on with" not in err
    assert "starting anew" in err or code == 2
    assert before in [path.read_bytes() for path in Path(".bnoise").rglob("*.jsonl")]


def test_other_batch_sizes_and_budgets_use_what_is_known(write: Write, bnoise: Call) -> None:
    """A run depends neither on the other batch sizes nor on the time that is allowed."""
    config = str(write("q.yaml", TINY_SWEEP))
    bnoise("sweep", config, "--quiet")
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    before = finished(ledger)
    code, _, err = bnoise("sweep", config, "--set", "sweep.batch_sizes=[2,8,16,32]", "--budget", "5m",
                          "--set", "advice.max_compute_overhead=3")  # fmt: skip
    assert code in (0, 2, 3), err
    assert "Going on with" in err
    after = finished(ledger)
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)
    assert 16 in {run[0] for run in after[len(before) :]}


def test_ctrl_c_keeps_what_is_known_and_the_same_command_goes_on(write: Write) -> None:
    write("q.yaml", KILLED)
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    running = start(["sweep", "q.yaml"], Path.cwd(), Path("streams"), {})
    # At the third batch size, so that two are known.
    while running.is_alive() and len({run[0] for run in finished(ledger)} if ledger.exists() else ()) < 3:
        time.sleep(0.005)
    for _ in range(2):  # an impatient user
        running.send(signal.SIGINT)
        time.sleep(0.02)
    code, out, err = running.end(300)
    assert code == 130, err
    assert "Traceback" not in err
    assert "interrupted: the sweep was interrupted." in out
    assert "The same command goes on where it stopped." in out
    data = json.loads(Path(".bnoise/q.sweep.json").read_text())
    assert len(data["batches"]) >= 2
    before = finished(ledger)
    code, _, err = start(["sweep", "q.yaml"], Path.cwd(), Path("streams"), {}).end(300)
    assert code in (0, 3), err
    assert "Going on with" in err
    assert finished(ledger)[: len(before)] == before


def test_ctrl_c_before_a_run_was_finished_says_so(write: Write) -> None:
    config = TINY_SWEEP.replace("seeds: 2", "seeds: 2\n  warmup_steps: 10000000")
    write("q.yaml", config.replace("bnoise_cli.examples.quadratic.mean_loss", "user.py:marking"))
    write("user.py", MARKING)
    running = start(["sweep", "q.yaml"], Path.cwd(), Path("streams"), {})
    wait_for(Path("well under way"))
    running.send(signal.SIGINT)
    code, out, err = running.end(300)
    assert (code, out) == (130, "")
    assert err.strip() == "bnoise: interrupted before a run was finished."


def test_ctrl_c_while_probing_ends_the_sweep(write: Write) -> None:
    """A probe keeps what it has when it is interrupted; the sweep must not take that for a whole one and go on."""
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"))
    run = swept(spec, Path("runs.jsonl"), stop_at("probe", KeyboardInterrupt(), after=8))
    assert run.interrupted
    assert not run.complete
    assert len(run.chosen) == 3
    assert not run.trajectory
    again = swept(spec, Path("runs.jsonl"))
    assert again.complete
    assert again.trajectory


def test_a_probe_along_the_best_run_is_not_made_twice(write: Write) -> None:
    """The sweep is stopped in its third probe; the call that goes on keeps the first two and ends as one call does."""
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"))
    whole, torn = Path("whole.jsonl"), Path("torn.jsonl")
    for ledger in (whole, torn):
        decide_stacks(ledger, spec, [2, 8, 32])

    def probed(ledger: Path) -> list[dict[str, Any]]:
        return [entry for entry in entries(ledger) if entry["kind"] == "probed"]

    def on_progress(progress: SweepProgress) -> None:
        if len(probed(torn)) == 2:
            raise KeyboardInterrupt

    expected = swept(spec, whole).trajectory
    assert swept(spec, torn, on_progress).interrupted
    assert probed(torn) == probed(whole)[:2]
    assert swept(spec, torn).trajectory == expected
    assert probed(torn) == probed(whole)


def test_a_budget_is_spent_call_by_call(write: Write, bnoise: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that runs so fast that a budget of five minutes ends in the middle of the sweep, several times."""
    config = str(write("q.yaml", TINY_SWEEP))
    spec = load_spec(Path(config))
    for name in ("whole", "part"):
        decide_stacks(Path(f"{name}.runs.jsonl"), spec, [2, 8, 32])
    assert bnoise("sweep", config, "--out", "whole.json", "--quiet")[0] in (0, 3)
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    calls = 0
    ended: list[str] = []
    while not Path("part.json").exists() or "budget" in ended:
        calls += 1
        with monkeypatch.context() as patch:
            patch.setattr("bnoise_cli.measurement.sweeping.sweep.clock", SimpleNamespace(monotonic=clock))
            code, _, err = bnoise("sweep", config, "--out", "part.json", "--quiet", "--budget", "5m")
        assert code in (0, 3), err
        ended = [doubt["code"] for doubt in json.loads(Path("part.json").read_text())["doubts"]]
        assert calls < 50
    assert calls > 2
    whole, part = (without_times(Path(f"{name}.json").read_text()) for name in ("whole", "part"))
    assert part.pop("config")["sweep"].pop("budget") == 300
    del whole["config"]
    assert part == whole


def test_a_horizon_that_the_budget_cuts_is_measured_by_the_next_call(
    write: Write, bnoise: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that had the whole budget of a call is kept as far as it came: the next call would have no more time."""
    config = str(write("q.yaml", TINY_SWEEP))
    decide_stacks(Path("q.runs.jsonl"), load_spec(Path(config)), [2, 8, 32])
    measured: list[HorizonFound] = []

    def call(found: HorizonFound) -> tuple[Any, list[str]]:
        def measure(*_: Any, **__: Any) -> HorizonFound:
            measured.append(found)
            return found

        with monkeypatch.context() as patch:
            name = "bnoise_cli.measurement.sweeping.sweep.measure_horizon"
            patch.setattr(name, measure)
            code, _, err = bnoise("sweep", config, "--out", "q.json", "--quiet", "--budget", "30m")
        assert code in (0, 3), err
        result = json.loads(Path("q.json").read_text())
        return result["predicted_by_horizon"], [doubt["code"] for doubt in result["doubts"]]

    predicted, doubts = call(replace(HORIZON, levels=HORIZON.levels[:1], out_of_time=True))
    assert predicted is None
    assert "budget" in doubts
    for found in (replace(HORIZON, levels=HORIZON.levels[:2], out_of_time=True), HORIZON):
        predicted, doubts = call(found)
        assert predicted["steps"] in (8, 16)
        assert "budget" not in doubts
    assert len(measured) == 2  # the third call found it in the ledger


def test_a_warm_up_is_where_every_run_begins(write: Write) -> None:
    """The start is that of the planned run after so many steps, also where the sweep goes on in a second process."""
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"), ["sweep.warmup_steps=2"])
    ledger = Ledger(Path("runs.jsonl"), ledger_hash(spec))
    session = SweepSession(spec, CPU, ledger)
    with pytest.raises(ZeroDivisionError):
        session.run(stop_at("training", ZeroDivisionError(), after=60))
    assert finished(Path("runs.jsonl"))
    run = swept(spec, Path("runs.jsonl"))
    cold = plan_sweep(SweepSession(load_spec(Path("q.yaml")), CPU, Ledger(Path("cold.jsonl"), "")))
    # Full batches almost: E[L] after two steps of ε = 0.5 is ½Σh(1 − εh)⁴, and noise adds a few percent of the start.
    curvature = NoisyQuadratic(dimension=32, decay=0.5).hessian.double()
    expected = float(0.5 * (curvature * (1 - 0.5 * curvature) ** 4).sum())
    assert run.start_loss == pytest.approx(expected, abs=0.1 * cold.start_loss)
    assert run.start_loss < 0.5 * cold.start_loss
    steps = [r.steps for r in swept(load_spec(Path("q.yaml")), Path("cold.jsonl")).runs if r.steps]
    assert min(r.steps for r in run.runs if r.steps) < min(steps)
