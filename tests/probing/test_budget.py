"""No phase of a probe goes beyond its share of the budget by more than a pass, however slow the model is."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import pytest

from bnoise_cli.errors import ExitCode, OutOfTimeError
from bnoise_cli.measurement.outcome import StopReason
from bnoise_cli.measurement.probing import pace
from bnoise_cli.measurement.probing.pace import Pace, find_pace
from bnoise_cli.measurement.probing.session import Session
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.gradients import add_gradient
from bnoise_cli.measurement.task.losses import mean_loss
from bnoise_cli.results.probe import probe_result
from bnoise_cli.spec.load import load_spec
from tests.cases import CPU, Call, Write, quadratic_task
from tests.sleeping import CONFIG, slept, slow_task


@pytest.fixture(autouse=True)
def nothing_slept() -> None:
    slept.clear()


def session(folder: Path, *changes: str) -> Session:
    (folder / "c.yaml").write_text(CONFIG, encoding="utf-8")
    return Session(load_spec(folder / "c.yaml", changes), CPU)


def test_no_pass_begins_after_the_end() -> None:
    task = slow_task(per_pass=0.03, micro_batch_size=1)
    draws = Draws(0, Stream.BENCHMARK)
    with pytest.raises(OutOfTimeError), task.within(0.1):
        mean_loss(task, draws.indices(100, 60), draws)
    assert task.spent.evaluation == 0
    with pytest.raises(OutOfTimeError), task.within(0.1):
        add_gradient(task, task.zeros(), draws.indices(100, 60), draws)
    assert sum(slept) < 2 * (0.1 + 0.09 + 0.01), "two times, each with one more pass; all take twelve seconds"
    mean_loss(task, draws.indices(1, 60), draws)  # outside there is no end


def test_a_block_ends_no_later_than_the_one_around_it() -> None:
    task = quadratic_task()
    with task.within(-1.0), task.within(100.0), pytest.raises(OutOfTimeError):
        task.require_time()
    task.require_time()


@pytest.mark.parametrize("per_pass", [0.0, 0.02])
def test_the_pace_of_a_model_is_found(per_pass: float) -> None:
    """Sleeping takes at least as long as asked for, and on a busy machine longer."""
    found = find_pace(slow_task(per_example=0.01, per_pass=per_pass), 0)
    assert found is not None
    assert found.seconds(1, 1) >= 0.01 + per_pass
    assert found.seconds(1, 2) >= 0.02 + per_pass


def test_a_pass_fits_its_time_unless_it_costs_much_by_itself() -> None:
    assert Pace(per_pass=0.0, per_example=0.01).largest_pass(0.3) == 8
    assert Pace(per_pass=0.16, per_example=0.01).largest_pass(0.3) == 16
    assert Pace(per_pass=0.0, per_example=1.0).largest_pass(0.3) == 1
    assert Pace(per_pass=0.1, per_example=0.0).largest_pass(0.3) >= 1 << 30


def test_a_model_that_is_far_too_slow_is_refused_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(OutOfTimeError, match=r"budget of 1 s cannot tell .* Raise --budget") as refused:
        session(tmp_path, "model.per_example=0.05", "probe.budget=1s")
    assert sum(slept) <= 6 * 0.05 + 1e-9, "two passes of one example and two of two"
    assert refused.value.exit_code == ExitCode.CANNOT_TELL


def test_a_group_that_is_too_long_for_the_budget_names_a_smaller_one() -> None:
    found = Pace(per_pass=0.0, per_example=1e-3)
    found.require(30.0, group=64)
    with pytest.raises(OutOfTimeError, match=r"64 examples takes 0\.064 s.*about 31 s.*batch_size.* to 15,"):
        found.require(5.0, group=64)


def test_a_budget_that_ends_in_the_pilot_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is kept; nothing else is claimed."""
    monkeypatch.setattr(pace, "_ROUGH", 1e9)  # so that it begins all the same
    monkeypatch.setattr(pace, "_MOST_CHECKS", 1e9)
    slow = session(tmp_path, "model.per_example=0.004", "probe.budget=1s", "probe.horizon=off")
    slept.clear()
    run = slow.run(lambda _: None)
    [point] = run.points
    assert sum(slept) < 1.0
    assert (point.stop, point.failure) == (StopReason.BUDGET, None)
    assert (point.analysis, point.replicates) == (None, 0)
    assert point.enough_seconds is not None
    assert point.enough_seconds >= 700 * 0.004
    assert point.loss is None or math.isfinite(point.loss)
    result = probe_result(run, slow.spec)
    assert not result.resolved
    [doubt] = [doubt for doubt in result.doubts if doubt.code == "unresolved"]
    assert "raise --budget" in doubt.remedy


@pytest.mark.full
@pytest.mark.parametrize(
    "changes",
    [
        "model.per_example=0.001",
        "model.per_example=0.01",
        "model.per_pass=0.02",
        "model.per_example=0.005 model.dropout=0.1",
        "model.per_example=0.002 probe.horizon=off training.batch_size=4",
    ],
)
def test_a_slow_model_keeps_its_budget(tmp_path: Path, changes: str) -> None:
    """On a busy machine, on which it seems slower, it may be refused."""
    with suppress(OutOfTimeError):
        slow = session(tmp_path, "probe.budget=4s", *changes.split())
        run = slow.run(lambda _: None)
        slow.time_steps(run, None)
        assert run.failure is None
    assert sum(slept) < 1.25 * 4


def test_a_budget_in_examples_asks_no_clock(tmp_path: Path) -> None:
    """A budget in time that is long over changes nothing before the replicates."""
    found = [
        session(tmp_path, "probe.max_examples=256", "probe.horizon=off", f"model.per_pass={seconds}")
        .run(lambda _: None)
        .points[0]
        for seconds in (0.0, 0.0005)
    ]
    assert found[0].analysis is not None
    assert found[1].analysis is not None
    assert found[0].analysis.noise_scale == found[1].analysis.noise_scale
    assert found[0].gradient_examples == found[1].gradient_examples


def test_a_probe_that_cannot_tell_ends_with_its_exit_code(write: Write, bnoise: Call) -> None:
    write("c.yaml", CONFIG)
    code, _, said = bnoise("probe", "c.yaml", "--budget", "1s", "--set", "model.per_example=0.05")
    assert code == ExitCode.CANNOT_TELL
    assert "Raise --budget" in said
