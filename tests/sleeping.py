"""A model that is slow without work: its passes sleep."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Task, Traits
from tests.cases import CPU, cross_entropy

#: The seconds of every pass so far. They say what was asked for, however busy the machine is.
slept: list[float] = []
#: A backward pass sleeps this many times as long as a forward pass.
_BACKWARD = 2


def _sleep(seconds: float) -> None:
    slept.append(seconds)
    time.sleep(seconds)


class _Sleep(torch.autograd.Function):
    """The identity, which takes a given time in either direction."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        _sleep(seconds)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        _sleep(_BACKWARD * ctx.seconds)
        return gradient, None


class Sleeping(nn.Module):
    """A linear classifier of 8 features and 4 classes.

    Args:
        per_example: seconds of a forward pass for each example.
        per_pass: seconds of a forward pass besides.
        dropout: the part of the features that is dropped.
    """

    def __init__(self, per_example: float = 0.0, per_pass: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.per_example, self.per_pass = per_example, per_pass
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(8, 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.linear.weight.normal_(generator=generator).mul_(0.1)
            self.linear.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        slow: Tensor = _Sleep.apply(features @ torch.eye(8), self.per_pass + self.per_example * len(features))
        return self.linear(self.dropout(slow + 0 * self.linear.weight.sum()))


#: A probe of it without a warm-up.
CONFIG = """\
version: 1
model:
  _target_: tests.sleeping.Sleeping
dataset:
  _target_: tests.sleeping.classes
objective:
  _target_: tests.cases.cross_entropy
optimizer:
  _target_: torch.optim.SGD
  lr: 0.1
training:
  batch_size: 32
probe:
  warmup_steps: 0
"""


def classes(examples: int = 4096) -> TensorDataset:
    """Features of four classes that overlap."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (examples,), generator=generator)
    features = torch.randn(examples, 8, generator=generator) + torch.nn.functional.one_hot(labels, 8)
    return TensorDataset(features, labels)


def slow_task(*, micro_batch_size: int = 8, **speed: float) -> Task:
    """Such a model as the probe sees it.

    Args:
        speed: goes to the model.
    """
    task = Task(
        Sleeping(**speed), cross_entropy, Batches(classes(), None, CPU), micro_batch_size=micro_batch_size
    )
    task.adopt(Traits(stochastic=False))
    return task
