"""The evaluation examples are as many as know the loss, and the same for all runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.task import Task, Traits
from bnoise_cli.measurement.training.evaluation import evaluation_examples
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
