"""Training: one step, and the warm-up that makes the planned run's own first steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.task.batches import Draws, Indices, Stream
from bnoise_cli.measurement.task.gradients import add_gradient
from bnoise_cli.measurement.task.passes import prefetch, split_over_ranks
from bnoise_cli.measurement.task.sharding import as_part_of
from bnoise_cli.measurement.task.task import Task


def take_step(
    task: Task,
    optimizer: torch.optim.Optimizer,
    indices: Indices,
    max_grad_norm: float | None,
    draws: Draws,
) -> None:
    """One optimizer step on the examples at `indices`, which all ranks share.

    Raises:
        RunError: the loss or a gradient is not finite.
    """
    gradient, before = task.zeros(), task.gradient_examples

    def add(part: Indices) -> tuple[float, float]:
        return math.fsum(block.weight for block in add_gradient(task, gradient, part, draws)), 0.0

    weight, _ = split_over_ranks(task, indices, draws, add)
    task.gradient_examples = before + len(indices)
    if not task.sharded:
        task.ranks.all_reduce_(gradient)
    torch._foreach_div_(gradient, weight)
    for parameter, value in zip(task.trainable, gradient, strict=True):
        parameter.grad = as_part_of(value, parameter)
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(task.trainable, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


class Trainer:
    """Takes optimizer steps at the planned batch size and remembers how many."""

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        *,
        batch_size: int,
        max_grad_norm: float | None,
        seed: int,
    ) -> None:
        self.step = 0
        self._task, self._optimizer = task, optimizer
        self._batch_size, self._max_grad_norm = batch_size, max_grad_norm
        self._draws = Draws(seed, Stream.WARM_UP)
        self._coming = self._draw()

    def train_until(self, step: int, on_step: Callable[[int], None]) -> None:
        """Train until `step` steps have been taken in all.

        Raises:
            RunError: the loss or a gradient is not finite; says at which step.
        """
        task = self._task
        task.model.train()
        while self.step < step:
            indices, self._coming = self._coming, self._draw()
            prefetch(task, indices, self._coming)
            try:
                take_step(task, self._optimizer, indices, self._max_grad_norm, self._draws)
            except RunError as error:
                raise RunError(
                    f"warm-up training, step {self.step}, batch of {self._batch_size}: {error}"
                ) from error
            self.step += 1
            on_step(self.step)

    def _draw(self) -> Indices:
        return self._draws.indices(self._batch_size, self._task.batches.length)
