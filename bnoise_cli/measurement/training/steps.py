"""Training: one step, and the warm-up that makes the planned run's own first steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.task.draws import Draws, Indices, Stream
from bnoise_cli.measurement.task.gradients import add_gradient
from bnoise_cli.measurement.task.passes import prefetch, split_over_ranks
from bnoise_cli.measurement.task.sharding import as_part_of
from bnoise_cli.measurement.task.task import Spent, Task
from bnoise_cli.measurement.task.user_code import user_code


@contextmanager
def evaluating(*optimizers: torch.optim.Optimizer) -> Iterator[None]:
    """Let optimizers that evaluate other weights than they train put them into the model meanwhile.

    Schedule-free optimizers (arXiv:2405.15682) evaluate an average of the weights, which their `eval()` puts into the
    parameters and their `train()` takes out.
    """
    averaging = [one for one in optimizers if _has_modes(one)]
    with user_code("the optimizer's eval()"):
        for one in averaging:
            one.eval()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        set_training_mode(*averaging)


def set_training_mode(*optimizers: torch.optim.Optimizer) -> None:
    """Call `train()` of the optimizers that evaluate other weights than they train."""
    with user_code("the optimizer's train()"):
        for one in optimizers:
            if _has_modes(one):
                one.train()  # type: ignore[attr-defined]


def _has_modes(optimizer: torch.optim.Optimizer) -> bool:
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


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
    gradient, before = task.zeros(), task.spent.gradient

    def add(part: Indices) -> tuple[float, float]:
        return math.fsum(block.weight for block in add_gradient(task, gradient, part, draws)), 0.0

    weight, _ = split_over_ranks(task, indices, draws, add)
    task.spend(Spent(gradient=before + len(indices) - task.spent.gradient))  # and what other ranks have done
    if not task.sharded:
        task.ranks.all_reduce_(gradient)
    torch._foreach_div_(gradient, weight)
    for parameter, value in zip(task.trainable, gradient, strict=True):
        parameter.grad = as_part_of(value, parameter)
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(task.trainable, max_grad_norm)
    with user_code("the optimizer's step"):
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
        set_training_mode(self._optimizer)
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
