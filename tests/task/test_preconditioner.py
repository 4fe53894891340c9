"""P of every known optimizer, against its own update and against exact answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from bnoise_cli.errors import CallError
from bnoise_cli.examples.quadratic import mean_loss
from bnoise_cli.maths.optimizers import OPTIMIZERS
from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.preconditioner import momentum_of, preconditioner, require_known, rule_of
from bnoise_cli.measurement.task.task import Task, Traits
from tests.cases import CPU, quadratic_task


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {"betas": (0.0, 0.9)}),
        (torch.optim.Adam, {"betas": (0.0, 0.9), "amsgrad": True}),
        (torch.optim.AdamW, {"betas": (0.0, 0.99), "weight_decay": 0.0}),
        (torch.optim.RMSprop, {"alpha": 0.9}),
        (torch.optim.Adagrad, {}),
    ],
)
def test_an_update_is_the_rate_times_p_times_the_gradient(kind: Any, options: dict[str, Any]) -> None:
    """Without momentum the last update of an optimizer is ε·P·g with the P of its state after it."""
    weight = torch.nn.Parameter(torch.linspace(1, 2, 6, dtype=torch.float64))
    optimizer = kind([weight], lr=0.01, **options)
    gradient = torch.zeros(6)
    for step in range(1, 5):
        gradient = torch.linspace(-1, 2, 6, dtype=torch.float64) * step
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
    found = preconditioner(optimizer, [weight])
    assert found is not None
    assert torch.allclose(before - weight.detach(), 0.01 * found[0] * gradient, rtol=1e-6)


def test_learning_rates_of_groups_are_part_of_p() -> None:
    slow, fast = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    groups: list[dict[str, Any]] = [{"params": [slow], "lr": 0.01}, {"params": [fast]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    found = preconditioner(optimizer, [slow, fast])
    assert found is not None
    assert torch.allclose(found[0], torch.full((2,), 0.1))
    assert torch.equal(found[1], torch.ones(3))


def test_sgd_has_none_and_others_are_refused() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    assert preconditioner(torch.optim.SGD([weight], lr=0.1), [weight]) is None
    with pytest.raises(CallError, match="found Adamax"):
        require_known(torch.optim.Adamax([weight], lr=0.1))
    with pytest.raises(CallError, match="not centered"):
        require_known(torch.optim.RMSprop([weight], lr=0.1, centered=True))
    with pytest.raises(CallError, match="there is none yet"):
        preconditioner(torch.optim.AdamW([weight], lr=0.1), [weight])


def test_a_preconditioner_is_sgd_in_rescaled_coordinates() -> None:
    """With θ = √P·φ plain descent in φ takes the steps P·g in θ: the same draws give the same numbers."""
    task = quadratic_task(50.0)
    model: Any = task.model.double()
    scale = torch.linspace(0.1, 3.0, len(model.theta), dtype=torch.float64)
    task.preconditioner = [scale**2]
    twin: Any = quadratic_task(50.0).model.double()
    start = model.theta.detach().clone()

    class Rescaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.phi = torch.nn.Parameter(start / scale)

        def forward(self, batch: Any) -> Any:
            return torch.func.functional_call(twin, {"theta": scale * self.phi}, (batch,))

    data = TensorDataset(task.batches.dataset.tensors[0].double())
    task.batches = Batches(data, None, CPU)
    other = Task(Rescaled(), mean_loss, task.batches, micro_batch_size=256)
    other.adopt(Traits(stochastic=False))
    settings = ProbeSettings(max_examples=40_000, budget_seconds=600)
    one, two = probe(task, settings).analysis, probe(other, settings).analysis
    assert one is not None
    assert two is not None
    for left, right in zip(
        (one.noise_scale, one.max_improvement), (two.noise_scale, two.max_improvement), strict=True
    ):
        assert left.value == pytest.approx(right.value, rel=1e-6)
        assert left.low == pytest.approx(right.low, rel=1e-6)
        assert left.high == pytest.approx(right.high, rel=1e-6)


def test_momentum_is_read_by_the_name_that_each_optimizer_gives_it() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    settings: dict[str, tuple[dict[str, Any], float]] = {
        "SGD": ({"momentum": 0.7}, 0.7),
        "Adam": ({"betas": (0.6, 0.9)}, 0.6),
        "AdamW": ({"betas": (0.0, 0.9)}, 0.0),
        "RMSprop": ({"momentum": 0.3}, 0.3),
        "Adagrad": ({}, 0.0),
    }
    assert settings.keys() == OPTIMIZERS.keys()
    for name, (options, momentum) in settings.items():
        assert momentum_of(getattr(torch.optim, name)([weight], lr=0.1, **options)) == momentum


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_each_optimizer_keeps_what_the_table_says(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = getattr(torch.optim, name)([weight], lr=0.1)
    weight.grad = torch.ones(3)
    optimizer.step()
    rule = OPTIMIZERS[name]
    kept = {key for key, value in optimizer.state[weight].items() if value is not None}
    assert kept == set(rule.kept)
    assert rule.second_moment is None or rule.second_moment in rule.kept


def test_a_rule_holds_for_what_is_derived_from_its_optimizer() -> None:
    class Own(torch.optim.SGD):
        pass

    found = rule_of(Own)
    assert found is not None
    assert (found.name, found.rate_power) == ("SGD", 1.0)
    adamw = rule_of(torch.optim.AdamW)  # which is derived from Adam in newer versions of torch
    assert adamw is not None
    assert adamw.name == "AdamW"
    assert rule_of(torch.optim.Adamax) is None
