"""The loss along an update, by forward passes only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnoise_cli.errors import RunError
from bnoise_cli.maths import line
from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.losses import mean_values, require_finite
from bnoise_cli.measurement.task.task import Spent, Task
from bnoise_cli.numbers import counted


class DivergedError(RunError):
    """The loss is not finite somewhere along the line."""


def evaluate_line(
    task: Task,
    origin: list[Tensor],
    total: list[Tensor],
    count: int,
    scale: float,
    indices: Indices,
    draws: Draws,
) -> NDArray[np.float64]:
    """Polynomial of ΔL(x) = L(θ) − L(θ − x·scale·P·g) with g = total/count (M18 eq. 2.5).

    The arguments are those of `loss_changes`, with `scale` the step size of x = 1.

    Returns:
        p₁ … p₄ of `maths.line.coefficients`, shape (4,).

    Raises:
        DivergedError: a loss along the line is not finite.
    """
    steps = [node * scale for node in line.NODES]
    return line.coefficients(loss_changes(task, origin, total, count, steps, indices, draws))


def loss_changes(
    task: Task,
    origin: list[Tensor],
    total: list[Tensor],
    count: int,
    steps: Sequence[float],
    indices: Indices,
    draws: Draws,
) -> NDArray[np.float64]:
    """ΔL(ε) = L(θ) − L(θ − ε·P·g) with g = total/count, at each step size ε of `steps`.

    Every step size gets the same examples with the same dropout masks. Means over micro-batches are taken in
    float64, and autocast is off if `task.full_lines`. Parameters are changed in place and copied back from
    `origin`, bit for bit.

    Args:
        task: at the weights `origin`.
        total: sum of `count` example gradients.
        indices: evaluation examples, drawn independently of the examples in `total`.

    Returns:
        Shape (len(steps),), in the loss's unit.

    Raises:
        DivergedError: a loss along the line is not finite.
    """
    changes = np.zeros(len(steps))

    def along(batch: Any, part: Indices) -> list[float]:
        masks = draws.seed()
        what = f"a batch of {counted(len(part) * task.batches.group, 'evaluation example')}"
        losses = [task.loss_value(batch, masks, what)]
        try:
            for number, step in enumerate(steps):
                if number:  # the first step starts from `origin` anyway
                    _go_back(task, origin)
                _move(task, total, step / count)
                losses.append(task.loss_value(batch, masks, what))
        finally:
            _go_back(task, origin)
        base, *moved = torch.stack(losses).tolist()
        require_finite(task, base, what, part)
        return [base - loss for loss in moved]

    with task.full_precision() if task.full_lines else nullcontext():
        for weight, values in mean_values(task, indices, along):
            changes += weight / len(indices) * np.array(values)
    task.spend(Spent(evaluation=len(indices) * (1 + len(steps))))
    if not np.all(np.isfinite(changes)):
        raise DivergedError(
            f"the loss is not finite {max(steps, key=abs):.3g} along an update of "
            f"{counted(count * task.batches.group)}. "
            "The loss surface is too steep here to measure; warm up longer or start from a checkpoint."
        )
    return changes


def _go_back(task: Task, origin: list[Tensor]) -> None:
    with torch.no_grad():
        torch._foreach_copy_(task.parameters, origin)


def _move(task: Task, total: list[Tensor], step: float) -> None:
    with torch.no_grad():
        if task.preconditioner is None:
            torch._foreach_add_(task.parameters, total, alpha=-step)
        else:
            torch._foreach_addcmul_(task.parameters, total, task.preconditioner, value=-step)
