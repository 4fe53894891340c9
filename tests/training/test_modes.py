"""Losses are computed in the mode in which they train, and their randomness is held by seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.training.lanes import evaluation_loss
from tests.cases import CPU


class Auxiliary(nn.Module):
    """Returns a second output only in training mode, as GoogLeNet and torchvision's detection models do."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.side = nn.Sequential(*layers), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.body(x)
        return {"main": self.head(x), "side": self.side(x)} if self.training else self.head(x)


def both_outputs(model: nn.Module, batch: Any) -> Tensor:
    found = model(batch[0])
    return nn.functional.cross_entropy(found["main"] + 0.3 * found["side"], batch[1])


def auxiliary_task(*layers: nn.Module) -> Task:
    draws = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(64, 4, generator=draws), torch.randint(2, (64,), generator=draws))
    return Task(Auxiliary(*layers), both_outputs, Batches(data, None, CPU), micro_batch_size=8)


@pytest.mark.parametrize("layer", [nn.Identity, nn.Dropout, lambda: nn.BatchNorm1d(4)])
def test_a_sweep_evaluates_in_the_mode_that_trains(layer: Any) -> None:
    """Also with dropout, whose masks repeat, and with BatchNorm, whose statistics stay as they are."""
    task = auxiliary_task(layer())
    buffers = [buffer.clone() for buffer in task.model.buffers()]
    losses = [evaluation_loss(task, np.arange(64)) for _ in range(2)]
    assert losses[0] == losses[1]
    assert all(map(torch.equal, buffers, task.model.buffers()))
