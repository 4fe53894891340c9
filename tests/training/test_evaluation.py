"""The evaluation examples are as many as know the loss, and the same for all runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.task import Task, Traits
from bnoise_cli.measurement.training.evaluation import evaluation_examples
from bnoise_cli.measurement.training.runner import Runner
from bnoise_cli.measurement.training.start import Start
from tests.cases import CPU


def chosen(losses: Tensor, *, least: int = 64, whole: int = 256) -> list[int]:
    """The evaluation examples of a dataset with these losses."""
    model = nn.Linear(1, 1)
    task = Task(
        model, lambda _, batch: batch.mean() + 0 * model.bias.sum(), Batches(losses, None, CPU), micro_batch_size=64
    )  # fmt: skip
    task.adopt(Traits(stochastic=False))
    draws = Draws(0, Stream.HORIZON_EVALUATION, 0)
    return list(evaluation_examples(task, draws, least=least, whole=whole))


@pytest.mark.parametrize(
    ("scatter", "low", "high"), [(0.0, 64, 64), (0.1, 64, 64), (0.6, 250, 600), (5.0, 2048, 2048)]
)
def test_the_loss_is_known_to_three_percent(scatter: float, low: int, high: int) -> None:
    """(σ/µ)²/0.03² examples know a mean to 3%: 400 for a scatter of 0.6."""
    noise = torch.randn(50_000, generator=torch.Generator().manual_seed(1))
    found = chosen(1 + scatter * noise)
    assert low <= len(found) <= high
    assert found == chosen(1 + scatter * noise)


def test_a_small_dataset_is_evaluated_whole() -> None:
    """If it is as small as the caller says, or if more than a sixteenth of it is needed."""
    noise = torch.randn(2000, generator=torch.Generator().manual_seed(1))
    assert chosen(1 + 5 * noise) == list(range(2000))
    assert chosen(1 + 0.6 * noise) == list(range(2000))
    assert len(chosen(1 + 0.1 * noise)) == 64
    assert chosen(1 + 0.1 * noise, least=256) == list(range(2000))
    assert len(chosen(1 + 0.6 * torch.cat([noise, noise]))) < 1000
    assert chosen(1 + 0.1 * noise, whole=2048) == list(range(2000))


def test_a_loss_of_zero_needs_the_most_and_one_that_is_not_finite_some() -> None:
    assert len(chosen(torch.zeros(50_000))) == 2048
    assert len(chosen(torch.full((50_000,), np.inf))) == 256


class Moved(Dataset[Tensor]):
    """Examples that are moved at random, by the global stream of torch or by a generator of the dataset's own."""

    def __init__(self, draws: torch.Generator | None) -> None:
        self._draws = draws

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> Tensor:
        return index / 300 + torch.randn(4, generator=self._draws)


def masked(examples: list[Tensor]) -> Tensor:
    """A collate function that draws, as those of masked language models do."""
    batch: Tensor = default_collate(examples)
    return batch * torch.randint(2, batch.shape)


def mean_square(model: nn.Module, batch: Any) -> Tensor:
    batch.mul_(1.0)  # a loss that changes what it gets changes nothing for the next reading
    loss = (model(batch) ** 2).mean()
    batch.zero_()
    return loss


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("collate", [None, masked])
def test_a_dataset_that_augments_is_evaluated_on_the_same_examples(own: bool, collate: Any) -> None:
    """Runs alone and side by side read the same loss at the start, every time; what they train on still varies."""
    draws = torch.Generator().manual_seed(0) if own else None
    task = Task(nn.Linear(4, 1), mean_square, Batches(Moved(draws), collate, CPU), micro_batch_size=32)
    task.adopt(Traits(stochastic=False, random_data=True))

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    runner = Runner(
        task,
        Start(task, optimizer(task.trainable)),
        optimizer,
        base_rate=0.1,
        evaluation=lambda _: np.arange(100),
        max_grad_norm=None,
    )
    drawn = Draws(0, Stream.HORIZON_RUN)
    again = [runner.evaluation.loss() for _ in range(2)]
    side_by_side = runner.stack(8, [0.1, 0.2], [drawn, drawn]).losses((0, 1))
    assert again == [runner.start_loss] * 2
    assert side_by_side == pytest.approx([runner.start_loss] * 2, rel=1e-6)
    [one, other] = (task.batches.fetch(np.arange(8)) for _ in range(2))
    assert not torch.equal(one, other)


def test_batches_beyond_the_memory_that_is_allowed_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnoise_cli.measurement.task.batches._KEPT", 4 * 4 * 8)
    task = Task(nn.Linear(4, 1), mean_square, Batches(Moved(None), None, CPU), micro_batch_size=8)
    once = task.read_once().batches
    first, second = np.arange(8), np.arange(8, 16)
    kept = [once.fetch(first) for _ in range(2)]
    beyond = [once.fetch(second) for _ in range(2)]
    assert torch.equal(*kept)
    assert not torch.equal(*beyond)
