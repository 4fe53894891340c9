"""A loader's sampler decides whose noise scale is measured: 100 probes each, against the exact answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from bnoise_cli.measurement.building.population import population_of
from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Task, Traits
from tests.cases import CPU

EXAMPLES, INPUTS, SUBSET = 2000, 6, 250
PROBES = 100


def data() -> TensorDataset:
    """A regression in which one in ten examples, and all of the subset, follow other coefficients."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, INPUTS, generator=draws)
    coefficients = torch.ones(EXAMPLES, INPUTS)
    coefficients[::10, :4] *= -1
    coefficients[:SUBSET] /= 2
    y = (x * coefficients).sum(1, keepdim=True) + 2 * torch.randn(EXAMPLES, 1, generator=draws)
    return TensorDataset(x, y)


def squared_error(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def exact_noise_scale(chances: Tensor) -> float:
    """tr(HΣ)/(GᵀHG) (M18 eq. 2.8) at θ = 0, where the loss is quadratic, if example i is drawn with `chances[i]`."""
    x, y = (t.double() for t in data().tensors)
    p = chances.double() / chances.sum()
    gradients = -2 * x * y
    mean, hessian = p @ gradients, 2 * x.T @ (p[:, None] * x)
    each = torch.einsum("ni,ij,nj->n", gradients, hessian, gradients)
    of_mean = float(mean @ hessian @ mean)
    return (float(p @ each) - of_mean) / of_mean


def weighted() -> tuple[DataLoader[Any], Tensor]:
    weights = torch.ones(EXAMPLES)
    weights[::10] = 9
    return DataLoader(data(), sampler=WeightedRandomSampler(weights.tolist(), EXAMPLES)), weights


def subset() -> tuple[DataLoader[Any], Tensor]:
    chances = torch.zeros(EXAMPLES)
    chances[:SUBSET] = 1
    return DataLoader(data(), sampler=SubsetRandomSampler(range(SUBSET))), chances


@pytest.mark.parametrize("make", [weighted, subset])
def test_the_interval_holds_the_noise_scale_of_what_the_sampler_draws(make: Any) -> None:
    """95% of 100, standard error 2.2%: 88 or fewer come by chance once in 200 times.

    Counted on 2026-11-26: 97 and 94.
    """
    loader, chances = make()
    model = nn.Linear(INPUTS, 1, bias=False)
    nn.init.zeros_(model.weight)
    batches = Batches(loader.dataset, None, CPU, population=population_of(loader))
    task = Task(model, squared_error, batches, micro_batch_size=64)
    task.adopt(Traits(stochastic=False))
    exact, of_all = exact_noise_scale(chances), exact_noise_scale(torch.ones(EXAMPLES))
    held, mistaken = 0, 0
    for seed in range(PROBES):
        found = probe(task, ProbeSettings(seed=seed, max_examples=2000, budget_seconds=600)).analysis
        assert found is not None
        interval = found.noise_scale
        held += interval.low <= exact <= (interval.high or float("inf"))
        mistaken += interval.low <= of_all <= (interval.high or float("inf"))
    print(
        f"{make.__name__}: {held} of {PROBES} hold {exact:.1f}, {mistaken} hold {of_all:.1f} of all examples alike"
    )
    assert held >= 89
    assert mistaken < held / 2
