"""Runs of the horizon are kept where they ended, also if the budget ends in the middle of a stretch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bnoise_cli.examples.quadratic import NoisyQuadratic, mean_loss, unit_noise
from bnoise_cli.measurement.horizon.runs import HorizonRuns
from bnoise_cli.measurement.horizon.trained import BudgetSpent
from bnoise_cli.measurement.ranks import Ranks
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.task import Task, Traits
from bnoise_cli.measurement.training import stacking
from bnoise_cli.measurement.training.runner import Runner
from bnoise_cli.measurement.training.start import Start
from tests.cases import CPU


def runs(stacks: bool, on_step: Callable[[int, int], None] = lambda *_: None) -> HorizonRuns:
    data = unit_noise(8, 256).tensors[0].double()
    task = Task(
        NoisyQuadratic(dimension=8).double(), mean_loss, Batches(data, None, CPU), micro_batch_size=64
    )
    task.adopt(Traits(stochastic=False))
    optimizer = torch.optim.SGD(task.trainable, 0.1, momentum=0.9)
    runner = Runner(
        task,
        Start(task, optimizer),
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
        base_rate=0.1,
        evaluation=lambda _: np.arange(256),
        max_grad_norm=None,
    )
    made = HorizonRuns(
        runner,
        lambda size, replicate: Draws(0, Stream.HORIZON_RUN, 0, size, replicate),
        budget_seconds=1e9,
        budget_examples=1e9,
        on_step=on_step,
    )
    made._pays = dict.fromkeys((4, 16), stacks)
    return made


@pytest.mark.parametrize("stacks", [False, True])
def test_runs_go_on_where_they_ended(stacks: bool) -> None:
    in_pieces, at_once = runs(stacks), runs(stacks)
    for step in (1, 3, 9):
        found = in_pieces.extend(4, [0, 8], range(3), step)
    np.testing.assert_allclose(found, at_once.extend(4, [0, 8], range(3), 9), rtol=1e-12)
    assert in_pieces.gradient_examples == at_once.gradient_examples == 4 * 6 * 9


@pytest.mark.parametrize("stacks", [False, True])
def test_a_loss_at_a_step_that_a_run_has_passed_is_that_of_a_run_from_the_start(stacks: bool) -> None:
    """Replicates that are added twice, because the budget ended the first time, read their losses from the start."""
    passed = runs(stacks)
    passed.extend(4, [0], range(2), 9)
    for step in (1, 4, 9):
        found = passed.extend(4, [0], range(2), step)
        np.testing.assert_allclose(found, runs(stacks).extend(4, [0], range(2), step), rtol=1e-12)


def test_side_by_side_they_are_the_runs_one_by_one() -> None:
    together, alone = runs(True).extend(4, [0, 8], range(3), 9), runs(False).extend(4, [0, 8], range(3), 9)
    np.testing.assert_allclose(together, alone, rtol=1e-10)


def test_runs_that_fall_out_of_step_draw_what_they_would_draw_alone() -> None:
    parted = runs(True)
    parted.extend(4, [0, 8], range(2), 3)
    parted.extend(4, [0], range(2), 7)
    np.testing.assert_allclose(
        parted.extend(4, [8], range(2), 5), runs(False).extend(4, [8], range(2), 5), rtol=1e-10
    )


@pytest.mark.parametrize(("budget", "stacks"), [(math.inf, False), (1e9, True)])
def test_a_budget_in_examples_asks_no_clock(
    budget: float, stacks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side is never faster by this clock; which way runs go changes their last digits."""

    def slow(step: Callable[[], None]) -> float:
        step()
        return 1.0

    monkeypatch.setattr(stacking, "_seconds", slow)
    made = runs(True)
    made._pays.clear()
    made._budget = (1e9, budget)
    assert made._stacked(4, 1) is stacks


def test_several_ranks_never_go_side_by_side() -> None:
    """Also if a process by itself did so, whose sweep the ranks go on with."""
    made = runs(True)
    made._ranks = Ranks(rank=0, size=2)
    assert not made._stacked(4, 8)


@pytest.mark.parametrize(("budget", "by_time"), [((-1.0, 1e9), True), ((1e9, 4.0), False)])
def test_they_tell_a_budget_in_time_from_one_in_examples(budget: tuple[float, float], by_time: bool) -> None:
    made = runs(False)
    made._budget = budget
    with pytest.raises(BudgetSpent):
        made.extend(4, [0], range(1), 2)
    assert made.out_of_time is by_time


@pytest.mark.parametrize("stacks", [False, True])
def test_after_a_budget_that_ended_in_the_middle_they_still_go_on(stacks: bool) -> None:
    """What is left of the budget afterwards is spent on the planned batch and on more replicates."""
    ticks = itertools.count()

    def end_once(size: int, step: int) -> None:
        if next(ticks) == 5:
            raise BudgetSpent

    ended = runs(stacks, end_once)
    with pytest.raises(BudgetSpent):
        ended.extend(4, [0], range(2), 9)
    found = ended.extend(4, [0], range(2), 9)
    np.testing.assert_allclose(found, runs(stacks).extend(4, [0], range(2), 9), rtol=1e-12)
    assert ended.gradient_examples == 4 * 2 * 9
