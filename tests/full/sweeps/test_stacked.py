"""Runs that are trained side by side are the runs one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bnoise_cli.examples.datasets import Digits
from bnoise_cli.examples.models import MLP
from bnoise_cli.examples.quadratic import NoisyQuadratic, mean_loss, unit_noise
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.task import Task, Traits
from bnoise_cli.measurement.training.lanes import Evaluation, SingleLane, StackedLanes
from bnoise_cli.measurement.training.start import Start
from tests.cases import CPU, cross_entropy


def digits_task(dtype: torch.dtype, micro_batch_size: int) -> Task:
    x, y = Digits().tensors
    data = (x.to(dtype), y)
    task = Task(
        MLP([64, 32, 10]).to(dtype),
        cross_entropy,
        Batches(data, None, CPU),
        micro_batch_size=micro_batch_size,
    )
    task.adopt(Traits(stochastic=False))
    return task


def quadratic(dtype: torch.dtype, micro_batch_size: int) -> Task:
    data = unit_noise(16, 512).tensors[0].to(dtype)
    task = Task(
        NoisyQuadratic(dimension=16).to(dtype), mean_loss, Batches(data, None, CPU), micro_batch_size=micro_batch_size
    )  # fmt: skip
    task.adopt(Traits(stochastic=False))
    return task


RATES, SEEDS = [0.02, 0.5, 0.1, 0.5], [0, 0, 1, 7]


MakeTask = Callable[[torch.dtype, int], Task]


Optimizer = Callable[[Sequence[Tensor], float], torch.optim.Optimizer]


def sgd(parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, rate)


def momentum(parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=1e-3)


def adam(parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 0.1 * rate)


@pytest.mark.parametrize("make_task", [digits_task, quadratic])
@pytest.mark.parametrize(
    ("make_optimizer", "micro_batch_size", "max_grad_norm"),
    [(sgd, 64, None), (momentum, 5, 0.3), (adam, 64, None)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_runs_side_by_side_are_the_runs_one_by_one(
    make_task: MakeTask,
    make_optimizer: Optimizer,
    micro_batch_size: int,
    max_grad_norm: float | None,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """Weights and losses at every one of 20 steps, with a run that leaves the stack after 8.

    They differ by the order of sums. In double precision that is 1e-16 a step and 1e-10 leaves room for growth along
    training; in single precision, 1e-7, a unit of the MLP near zero may switch in one and not in the other.
    """
    task = make_task(dtype, micro_batch_size)
    evaluation = Evaluation(task, np.arange(task.batches.length))
    start = Start(task)
    common: dict[str, Any] = {"batch_size": 12, "evaluation": evaluation, "max_grad_norm": max_grad_norm}

    def one(rate: float, seed: int) -> list[tuple[list[Tensor], float]]:
        lane = SingleLane(
            task,
            start,
            make_optimizer(task.parameters, rate),
            draws=Draws(seed, Stream.TRAINING_RUN),
            **common,
        )
        path = []
        for _ in range(20):
            lane.step((0,))
            path.append(([p.detach().clone() for p in task.parameters], lane.losses((0,))[0]))
        return path

    alone = [one(rate, seed) for rate, seed in zip(RATES, SEEDS, strict=True)]
    of_seed = {seed: Draws(seed, Stream.TRAINING_RUN) for seed in SEEDS}
    streams = [of_seed[seed] for seed in SEEDS]
    stacked = StackedLanes(task, start, make_optimizer, rates=RATES, draws=streams, **common)
    for step in range(20):
        lanes = [0, 1, 2, 3] if step < 8 else [0, 2, 3]
        stacked.step(lanes)
        for lane, loss in zip(lanes, stacked.losses(lanes), strict=True):
            weights, expected = alone[lane][step]
            assert loss == pytest.approx(expected, rel=tolerance)
            for one_by_one, together in zip(weights, stacked.weights(lane), strict=True):
                scale = float(one_by_one.abs().max())
                torch.testing.assert_close(together, one_by_one, rtol=0, atol=tolerance * scale)
    for one_by_one, together in zip(alone[1][7][0], stacked.weights(1), strict=True):
        scale = float(one_by_one.abs().max())
        torch.testing.assert_close(together, one_by_one, rtol=0, atol=tolerance * scale)


def test_a_run_that_diverges_leaves_the_others_alone() -> None:
    """θ ← (1 − εh)θ with ε = 1e30 overflows in two steps; the other run takes the steps it takes by itself."""
    task = quadratic(torch.float32, 64)
    start = Start(task)
    common: dict[str, Any] = {
        "batch_size": 8,
        "evaluation": Evaluation(task, np.arange(512)),
        "max_grad_norm": None,
    }
    lane = SingleLane(task, start, sgd(task.parameters, 0.1), draws=Draws(0, Stream.TRAINING_RUN), **common)
    for _ in range(5):
        lane.step((0,))
    alone, loss = task.parameters[0].detach().clone(), lane.losses((0,))[0]
    stacked = StackedLanes(
        task, start, sgd, rates=[1e30, 0.1], draws=[Draws(0, Stream.TRAINING_RUN)] * 2, **common
    )
    for _ in range(5):
        stacked.step([0, 1])
    broken, whole = stacked.losses([0, 1])
    assert not math.isfinite(broken)
    assert whole == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(stacked.weights(1)[0], alone)
    single = SingleLane(
        task, start, sgd(task.parameters, 1e30), draws=Draws(0, Stream.TRAINING_RUN), **common
    )
    for _ in range(5):
        single.step((0,))
    assert not math.isfinite(single.losses((0,))[0])
