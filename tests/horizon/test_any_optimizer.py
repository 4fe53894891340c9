"""Training runs with any optimizer, from its state at the start, alone and side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnoise_cli.errors import CallError
from bnoise_cli.measurement.outcome import StopReason
from bnoise_cli.measurement.probing.session import Session
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.training.runner import Runner
from bnoise_cli.measurement.training.start import Start
from bnoise_cli.measurement.training.steps import Trainer
from bnoise_cli.results.probe import probe_result
from bnoise_cli.spec.load import load_spec
from tests.cases import CPU, Call, Write, mlp_task
from tests.horizon.optimizers import Averaging, Lion

Make = Callable[[Sequence[Tensor]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "AdamW": partial(torch.optim.AdamW, lr=0.01),
    "Adafactor": partial(torch.optim.Adafactor, lr=0.01),
    "Muon": partial(torch.optim.Muon, lr=0.01),
    "Lion": partial(Lion, lr=0.01),
    "Averaging": partial(Averaging, lr=0.3),
}
CONFIG = """\
version: 1
model: {_target_: bnoise_cli.examples.models.MLP, widths: [64, 32, 10]}
dataset: {_target_: bnoise_cli.examples.datasets.Digits}
loss: {_target_: torch.nn.CrossEntropyLoss}
optimizer: {_target_: torch.optim.Adafactor, lr: 0.01}
training: {batch_size: 64}
probe: {warmup_steps: 20, horizon: 8, budget: 300, max_examples: 200000}
"""


def task_for(name: str) -> Task:
    """Muon takes matrices alone."""
    task = mlp_task(micro_batch_size=16)
    if name != "Muon":
        return task
    for parameter in task.model.parameters():
        parameter.requires_grad_(parameter.ndim == 2)
    return Task(task.model, task.objective, task.batches, micro_batch_size=16)


def warm(task: Task, make: Make) -> torch.optim.Optimizer:
    """An optimizer after five steps, as the probe's warm-up leaves it."""
    optimizer = make(task.trainable)
    Trainer(task, optimizer, batch_size=16, max_grad_norm=None, seed=0).train_until(5, lambda _: None)
    return optimizer


def runner_of(task: Task, optimizer: torch.optim.Optimizer | None, make: Make) -> Runner:
    start = Start(task, optimizer)
    return Runner(task, start, make, base_rate=0.1, evaluation=lambda _: np.arange(60), max_grad_norm=1.0)


def drawn() -> Draws:
    return Draws(0, Stream.HORIZON_RUN)


def alone(runner: Runner, rate: float, steps: int = 4) -> list[float]:
    lane, losses = runner.lane(32, rate, drawn()), []
    for _ in range(steps):
        lane.step((0,))
        losses += lane.losses((0,))
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_runs_alone_and_side_by_side_have_the_same_losses(name: str) -> None:
    """With clipping, at two learning rates, from the optimizer's state after five steps."""
    make, task = OPTIMIZERS[name], task_for(name)
    runner = runner_of(task, warm(task, make), make)
    stack, together = runner.stack(32, [0.1, 0.05], [drawn(), drawn()]), []
    for _ in range(4):
        stack.step((0, 1))
        together.append(stack.losses((0, 1)))
    expected = [alone(runner, 0.1), alone(runner, 0.05)]
    np.testing.assert_allclose(np.array(together).T, expected, rtol=2e-3)
    assert not np.allclose(expected[0], expected[1], rtol=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_run_begins_with_the_state_of_the_start(name: str) -> None:
    make, task = OPTIMIZERS[name], task_for(name)
    optimizer = warm(task, make)
    before = flat(optimizer.state_dict())
    runner = runner_of(task, optimizer, make)
    once, again = alone(runner, 0.1), alone(runner, 0.1)
    assert once == again
    assert all(map(torch.equal, before, flat(optimizer.state_dict())))
    runner.start.restore()
    fresh = alone(runner_of(task, None, make), 0.1)
    assert abs(fresh[0] - once[0]) > 1e-6


def test_an_optimizer_that_averages_is_evaluated_at_the_average() -> None:
    make, task = OPTIMIZERS["Averaging"], mlp_task(micro_batch_size=16)
    optimizer = warm(task, make)
    runner = runner_of(task, optimizer, make)
    runner.start.restore()
    at_y = float(nn.functional.cross_entropy(*_scores(task)))
    optimizer.eval()  # type: ignore[attr-defined]
    at_x = float(nn.functional.cross_entropy(*_scores(task)))
    assert runner.start_loss == pytest.approx(at_x, rel=1e-9)
    assert abs(at_x - at_y) > 1e-4


def test_without_a_horizon_an_unknown_optimizer_is_refused(bnoise: Call, write: Write) -> None:
    write("c.yaml", CONFIG)
    code, _, err = bnoise("probe", "c.yaml", "--set", "probe.horizon=off")
    assert code == CallError.exit_code
    assert "found Adafactor. Set probe.horizon to auto" in " ".join(err.split())


@pytest.mark.full
def test_an_unknown_optimizer_has_a_horizon_alone(write: Write) -> None:
    spec = load_spec(write("c.yaml", CONFIG))
    run = Session(spec, CPU).run(lambda _: None)
    [point] = run.points
    assert (point.analysis, point.stop) == (None, StopReason.PRECISION)
    result = probe_result(run, spec)
    assert result.critical_batch_size.basis == "horizon"
    assert result.critical_batch_size.value is not None
    codes = {doubt.code for doubt in result.doubts}
    assert "no_one_step" in codes
    assert not codes & {"one_step", "unresolved", "failed"}


def flat(state: Any) -> list[Tensor]:
    """Copies of the tensors of an optimizer's state."""
    return [
        value.clone()
        for one in state["state"].values()
        for value in one.values()
        if isinstance(value, Tensor)
    ]


def _scores(task: Task) -> tuple[Tensor, Tensor]:
    x, y = task.batches.fetch(np.arange(60))
    with torch.no_grad():
        scores: Tensor = task.model(x)
    return scores, y
