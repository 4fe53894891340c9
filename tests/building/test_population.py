"""What loaders draw, and what functions return besides one dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.building.population import population_of, require_one_dataset, unbatched
from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Task, Traits
from tests.cases import CPU, Call, Write

WEIGHTS = torch.tensor([1.0] * 90 + [9.0] * 8 + [0.0] * 2)


def data() -> TensorDataset:
    draws = torch.Generator().manual_seed(0)
    y = (torch.arange(100) >= 90).long()
    return TensorDataset(torch.randn(100, 3, generator=draws) + y[:, None], y)


class Repeating(Sampler[int]):
    """Not known to torch: example 5 twice as often as 6."""

    def __iter__(self) -> Iterator[int]:
        return iter([5, 6, 5])


class Pairs(Sampler[list[int]]):
    """Batches of one example of each class."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[i, 90 + i] for i in range(10)])


@pytest.mark.parametrize(
    ("options", "expected", "structured"),
    [
        ({"sampler": WeightedRandomSampler(WEIGHTS.tolist(), 100)}, WEIGHTS / WEIGHTS.sum(), False),
        ({"sampler": SubsetRandomSampler(range(20))}, torch.tensor([1.0] * 20 + [0.0] * 80) / 20, False),
        ({"sampler": Repeating()}, torch.eye(100)[[5, 6, 5]].mean(0), False),
        ({"batch_sampler": BatchSampler(Repeating(), 2, False)}, torch.eye(100)[[5, 6, 5]].mean(0), False),
        (
            {"batch_sampler": Pairs()},
            torch.tensor([1.0] * 10 + [0.0] * 80 + [1.0] * 10) / 20,
            True,
        ),
    ],
)
def test_examples_are_drawn_as_often_as_the_sampler_draws_them(
    options: dict[str, Any], expected: Tensor, structured: bool
) -> None:
    """Frequencies of 40,000 draws lie within five standard errors."""
    population = population_of(DataLoader(data(), **options))
    assert population is not None
    assert (population.of, population.structured) == (100, structured)
    assert population.size == int((expected > 0).sum())
    drawn = population.examples(np.random.default_rng(0).integers(population.length, size=40_000))
    found = np.bincount(drawn, minlength=100) / len(drawn)
    chances = expected.numpy()
    assert np.all(np.abs(found - chances) <= 5 * np.sqrt(chances / len(drawn)))


@pytest.mark.parametrize("sampler", [SequentialSampler, RandomSampler])
def test_samplers_that_draw_all_alike_change_nothing(sampler: Any) -> None:
    assert population_of(DataLoader(data(), batch_size=8, sampler=sampler(data()))) is None
    batched = BatchSampler(sampler(data()), 8, False)
    assert population_of(DataLoader(data(), batch_sampler=batched)) is None


def test_a_weighted_sampler_gives_the_noise_scale_of_the_data_as_it_draws_them() -> None:
    """B_simple = tr Σ / |G|² with each example's gradient by its weight, written out."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)

    def objective(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    gradients = []
    for x, y in zip(*data().tensors, strict=True):
        parts = torch.autograd.grad(objective(model, (x[None], y[None])), list(model.parameters()))
        gradients.append(torch.cat([g.flatten() for g in parts]).double())
    of_examples, chances = torch.stack(gradients), (WEIGHTS / WEIGHTS.sum()).double()
    mean = chances @ of_examples
    exact = float(chances @ (of_examples - mean).square().sum(1) / mean.square().sum())
    loader = DataLoader(data(), sampler=WeightedRandomSampler(WEIGHTS.tolist(), 100))
    batches = Batches(loader.dataset, None, CPU, population=population_of(loader))
    task = Task(model, objective, batches, micro_batch_size=16)
    task.adopt(Traits(stochastic=False))
    found = probe(task, ProbeSettings(batch_sizes=(2, 8, 32), max_examples=3000)).analysis
    assert found is not None
    interval = found.simple_noise_scale
    assert interval.high is not None
    assert interval.low <= exact <= interval.high
    uniform = float(
        (of_examples - of_examples.mean(0)).square().sum(1).mean() / of_examples.mean(0).square().sum()
    )
    assert not interval.low <= uniform <= interval.high


def test_ready_batches_are_taken_apart() -> None:
    x, y = data().tensors
    items = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 100, 8)]
    examples, more = unbatched(DataLoader(items, batch_size=None), 1000)  # type: ignore[arg-type]
    assert not more
    assert torch.equal(torch.stack([example[0] for example in examples]), x)
    assert unbatched(items, 20)[1]
    with pytest.raises(RunError, match=r"share a first dimension; one has \(8, 3\), \(7,\)"):
        unbatched([(x[:8], y[:7])], 1000)


@pytest.mark.parametrize(
    ("built", "words"),
    [
        ((DataLoader(data()), DataLoader(data())), "a tuple of 2 DataLoaders. Return the first"),
        (torch.utils.data.random_split(data(), [60, 40]), "a list of 2 datasets"),
        ((np.zeros((6, 2)), np.zeros(6), np.zeros((4, 2)), np.zeros(4)), "6, 6, 4, 4 rows"),
    ],
)
def test_several_things_are_named(built: Any, words: str) -> None:
    with pytest.raises(RunError, match=words):
        require_one_dataset(built)


USER = """
import numpy as np, torch
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

def arrays():
    draws = np.random.default_rng(0)
    x = draws.standard_normal((400, 3)).astype("f4")
    return x, (x[:, 0] > 0).astype("i8")

def subset():
    x, y = map(torch.from_numpy, arrays())
    return DataLoader(TensorDataset(x, y), 8, sampler=SubsetRandomSampler(range(200)))

def ready():
    x, y = map(torch.from_numpy, arrays())
    return DataLoader([(x[i:i + 8], y[i:i + 8]) for i in range(0, 400, 8)], batch_size=None)
"""


@pytest.mark.parametrize(
    ("function", "length", "codes"),
    [("arrays", 400, set()), ("subset", 200, {"sampler", "loader_batch_size"}), ("ready", 400, set())],
)
def test_what_functions_return_is_probed_as_they_mean_it(
    write: Write, bnoise: Call, function: str, length: int, codes: set[str]
) -> None:
    write("train.py", USER)
    config = {
        "version": 1,
        "model": {"_target_": "torch.nn.Linear", "_args_": [3, 2]},
        "dataset": {"_target_": f"train.py:{function}"},
        "loss": {"_target_": "torch.nn.CrossEntropyLoss"},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
        "training": {"batch_size": 16},
        "probe": {"warmup_steps": 5, "max_examples": 1500},
    }
    write("bnoise.yaml", json.dumps(config))
    code, out, said = bnoise("probe", "bnoise.yaml", "--json", "--quiet")
    assert code in (0, 3), said
    result = json.loads(out)
    assert result["provenance"]["dataset_length"] == length
    found = {doubt["code"] for doubt in result["doubts"]}
    assert found & {"sampler", "batch_sampler", "loader_batch_size", "not_a_mean", "stream"} == codes
