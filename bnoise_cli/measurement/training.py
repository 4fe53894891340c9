"""Training: one step, and the warm-up that makes the planned run's own first steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.batches import Draws, Indices
from bnoise_cli.measurement.passes import even_parts
from bnoise_cli.measurement.sharding import as_part_of
from bnoise_cli.measurement.task import Task


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
    gradient, weight = _gradient(task, indices, draws)
    torch._foreach_div_(gradient, weight)
    for parameter, value in zip(task.trainable, gradient, strict=True):
        parameter.grad = as_part_of(value, parameter)
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(task.trainable, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _gradient(task: Task, indices: Indices, draws: Draws) -> tuple[list[Tensor], float]:
    """The sum of the examples' gradients, and their weight: each rank takes whole micro-batches in turn."""
    gradient = task.zeros()
    if task.sharded or task.ranks.size == 1:
        return gradient, math.fsum(block.weight for block in task.add_gradient(gradient, indices, draws))
    weight, failure = 0.0, None
    before = task.gradient_examples
    with task.apart() as ranks:
        for number, part in enumerate(even_parts(indices, task.micro_batch_size)):
            if number % ranks.size != ranks.rank:
                draws.seed()  # of the masks that another rank uses
                continue
            try:
                weight += math.fsum(block.weight for block in task.add_gradient(gradient, part, draws))
            except RunError as error:
                failure = error
    task.settle(failure)
    task.gradient_examples = before + len(indices)
    ranks.add(gradient)
    return gradient, ranks.total([weight])[0]


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
        self._draws = Draws(seed, 1 << 20)
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
            task.expect(indices, self._coming)
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
