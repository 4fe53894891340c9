"""Does this task fit the theory? Found out on a few examples, before anything is believed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.batches import Draws, Indices
from bnoise_cli.measurement.outcome import TaskFindings
from bnoise_cli.measurement.preserve import held_batch_norms, preserved
from bnoise_cli.measurement.task import Task

_EXAMPLES = 16
#: Losses of the same examples and masks may differ by this part: the order of sums on a GPU.
_REPEATABLE = 1e-5
#: The gradient of a batch may differ from the mean of its halves' by this part of its norm.
_ROUNDING = 1e-3


def check_task(task: Task, seed: int) -> TaskFindings:
    """Try the loss and the gradient on a few examples, and set `task.stochastic`.

    Raises:
        RunError: the loss is no finite scalar, does not repeat, depends on no parameter, or changes the
            parameters when it is computed.
    """
    draws = Draws(seed, 1 << 21)
    held = len(held_batch_norms(task.model))
    with preserved(task.model, seed) as origin:
        indices = draws.indices(_EXAMPLES, task.batches.length)
        task.stochastic = True
        same, other = draws.seed(), draws.seed()

        def thrice(part: Indices) -> NDArray[np.float64]:
            batch, what = task.batches.fetch(part), f"a batch of {len(part)} examples"
            return np.array(
                [task.finite_loss_value(batch, masks, what, part) for masks in (same, same, other)]
            )

        parts = [n / _EXAMPLES * values for n, values in task.in_micro_batches(indices, thrice)]
        values = np.sum(parts, axis=0)
        if not abs(values[0] - values[1]) <= _REPEATABLE * abs(values[0]):
            raise RunError(
                "the loss must repeat on the same examples with the same random masks; it gave "
                f"{values[0]:.9g} and then {values[1]:.9g}. Look for a random generator of its own, a counter or "
                "a cache in the model or the loss; line evaluations would measure that and not the step."
            )
        if any(not torch.equal(p, value) for p, value in zip(task.parameters, origin, strict=True)):
            raise RunError(
                "computing the loss changed the model's parameters in place. The probe holds them fixed: "
                "move the change out of forward()."
            )
        stochastic = not abs(values[0] - values[2]) <= _REPEATABLE * abs(values[0])
        gap = _mean_gap(task, draws, without_masks=stochastic)
    task.stochastic = stochastic
    return TaskFindings(
        loss=float(values[0]),
        stochastic=stochastic,
        batch_norms_held=held,
        mean_gap=gap,
        is_mean=gap <= _ROUNDING,
        streamed=task.batches.length if task.batches.streamed else None,
    )


def _mean_gap(task: Task, draws: Draws, *, without_masks: bool) -> float:
    """|gradient of a batch − mean of its halves'| over its norm, on the largest small batch that fits."""
    if without_masks:
        task.model.eval()
    indices, size = draws.indices(_EXAMPLES, task.batches.length), task.micro_batch_size
    while len(indices) > 1:
        whole, halves, middle = task.zeros(), task.zeros(), len(indices) // 2
        task.micro_batch_size = len(indices)
        task.add_gradient(whole, indices, draws)
        if task.micro_batch_size == len(indices):
            break
        size = min(size, task.micro_batch_size)
        indices = indices[: 2 * (task.micro_batch_size // 2)]
    else:
        task.micro_batch_size = size
        return 0.0
    for half in (indices[:middle], indices[middle:]):
        task.add_gradient(halves, half, draws)
    task.micro_batch_size = size
    norm = task.squared_norms(whole)[0]
    torch._foreach_sub_(halves, whole)
    gap = task.squared_norms(halves)[0]
    return float((gap / norm) ** 0.5) if norm > 0 else 0.0
