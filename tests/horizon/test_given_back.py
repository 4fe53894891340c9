"""Whatever ends the training runs, the model, the optimizer and the random streams are as before."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.horizon.search import Search
from bnoise_cli.measurement.outcome import Measurement, StopReason
from bnoise_cli.measurement.probing.ahead import Budget, look_ahead
from bnoise_cli.measurement.task.task import Task, Traits
from bnoise_cli.measurement.training.steps import Trainer
from bnoise_cli.spec.load import Spec, load_spec
from tests.cases import Write, mlp_task
from tests.samples import HORIZON, POINT

CONFIG = """\
version: 1
model: {_target_: bnoise_cli.examples.models.MLP, widths: [5, 3]}
dataset: {_target_: bnoise_cli.examples.datasets.Digits}
optimizer: {_target_: torch.optim.SGD, lr: 0.05, momentum: 0.9}
training: {batch_size: 16}
probe: {horizon: 8}
"""
MEASURED = replace(POINT, horizon=None, no_horizon=None, seconds=0.0)


class Failing:
    """An objective that raises after a number of calls."""

    def __init__(self, objective: Any, error: BaseException | None, after: int = 100) -> None:
        self._objective, self._error, self._left = objective, error, after

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        self._left -= 1
        if self._error is not None and self._left < 0:
            raise self._error
        loss: Tensor = self._objective(model, batch)
        return loss


def horizon(spec: Spec, task: Task, optimizer: torch.optim.Optimizer, budget: Budget) -> Measurement:
    return look_ahead(task, optimizer, spec, MEASURED, budget, lambda _: None)


def state(task: Task, optimizer: torch.optim.Optimizer) -> tuple[list[Tensor], list[object]]:
    """All that is to be given back: tensors, and modes, learning rates and random streams."""
    kept = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, Tensor)]
    gradients = [p.grad for p in task.parameters if p.grad is not None]
    tensors = [*task.model.state_dict().values(), *kept, *gradients, torch.get_rng_state()]
    modes = [module.training for module in task.model.modules()]
    numbers = [random.getstate(), np.random.get_state(legacy=True)[1].tobytes()]
    return [value.detach().clone() for value in tensors], [modes, optimizer.param_groups[0]["lr"], *numbers]


@pytest.mark.parametrize(
    ("error", "budget", "stop"),
    [
        (KeyboardInterrupt(), 1e6, StopReason.INTERRUPTED),
        (ValueError("of the user"), 1e6, StopReason.FAILED),
        (torch.OutOfMemoryError("no room"), 1e6, StopReason.FAILED),
        (None, 8000, StopReason.PRECISION),
    ],
)
@pytest.mark.parametrize("layer", [nn.Identity, nn.Dropout, lambda: nn.BatchNorm1d(7)])
def test_all_is_given_back(
    write: Write, layer: Callable[[], nn.Module], error: BaseException | None, budget: float, stop: StopReason
) -> None:
    spec, task = load_spec(write("c.yaml", CONFIG)), mlp_task(layer(), micro_batch_size=16)
    normalised = any(isinstance(module, nn.BatchNorm1d) for module in task.model.modules())
    task.adopt(Traits(stochastic=layer is nn.Dropout, group=4 if normalised else 1))
    optimizer = torch.optim.SGD(task.trainable, lr=0.05, momentum=0.9)
    Trainer(task, optimizer, batch_size=16, max_grad_norm=None, seed=0).train_until(3, lambda _: None)
    task.parameters[0].grad = torch.ones_like(task.parameters[0])
    task.model.eval()
    task.objective = Failing(task.objective, error)
    tensors, others = state(task, optimizer)
    found = horizon(spec, task, optimizer, Budget(seconds=20.0, examples=budget))
    after, same = state(task, optimizer)
    assert all(map(torch.equal, tensors, after))
    assert same == others
    assert found.stop is stop or error is None
    assert (found.failure is None) is (stop is not StopReason.FAILED)


@pytest.mark.parametrize(
    ("error", "stop"),
    [
        (KeyboardInterrupt(), StopReason.INTERRUPTED),
        (RunError("of the user"), StopReason.FAILED),
        (torch.OutOfMemoryError("no room"), StopReason.FAILED),
        (ZeroDivisionError("of bnoise"), StopReason.FAILED),
    ],
)
def test_levels_that_were_reached_are_kept(
    write: Write, monkeypatch: pytest.MonkeyPatch, error: BaseException, stop: StopReason
) -> None:
    def run(search: Search) -> None:
        search._curve._on_level(HORIZON.levels)
        raise error

    monkeypatch.setattr(Search, "run", run)
    spec, task = load_spec(write("c.yaml", CONFIG)), mlp_task(micro_batch_size=16)
    optimizer = torch.optim.SGD(task.trainable, lr=0.05)
    found = horizon(spec, task, optimizer, Budget(seconds=9.0, examples=1e9))
    assert found.stop is stop
    assert found.horizon is not None
    assert found.horizon.levels == tuple(HORIZON.levels)


@pytest.mark.parametrize("rate", [0.0, None])
def test_without_a_learning_rate_the_reason_is_told(write: Write, rate: float | None) -> None:
    spec, task = load_spec(write("c.yaml", CONFIG)), mlp_task(micro_batch_size=16)
    optimizer = torch.optim.SGD(task.trainable, lr=0.05)
    optimizer.param_groups[0]["lr"] = rate
    found = horizon(spec, task, optimizer, Budget(seconds=9.0, examples=1e9))
    assert found.no_horizon == "short runs need a positive learning rate to start from, and optimizer.lr is 0"
