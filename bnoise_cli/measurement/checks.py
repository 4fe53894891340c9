"""Does this task fit the theory? Found out on a few examples, before anything is believed."""

from __future__ import annotations

import math

import torch

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.batches import Draws
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
    count = _EXAMPLES
    with preserved(task.model, seed) as origin:
        indices = draws.indices(count, task.batches.length)
        task.stochastic = True
        first, other = draws.seed() // 2, draws.seed() // 2
        batches = task.evaluation_batches(indices, draws)
        values = [
            math.fsum(
                task.loss_value(b.batch, mask + i, f"a batch of {b.count} examples")
                for i, b in enumerate(batches)
            )
            for mask in (first, first, other)
        ]
        if not all(math.isfinite(value) for value in values):
            shown = ", ".join(f"{value / len(batches):.6g}" for value in values)
            raise RunError(
                f"the loss must be finite; {count} examples gave {shown}. "
                "Look for a division or a logarithm at zero, or start from a checkpoint."
            )
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
        gap = _mean_gap(task, count, draws, without_masks=stochastic)
    task.stochastic = stochastic
    return TaskFindings(
        loss=values[0] / len(batches),
        stochastic=stochastic,
        batch_norms_held=held,
        mean_gap=gap,
        is_mean=gap <= _ROUNDING,
    )


def _mean_gap(task: Task, count: int, draws: Draws, *, without_masks: bool) -> float:
    if without_masks:
        task.model.eval()
    indices = draws.indices(2 * (count // 2), task.batches.length)
    size = task.micro_batch_size
    task.micro_batch_size = len(indices)
    try:
        whole, halves = task.zeros(), task.zeros()
        task.add_gradient(whole, indices, draws)
        for half in (indices[: len(indices) // 2], indices[len(indices) // 2 :]):
            task.add_gradient(halves, half, draws)
    finally:
        shortened = task.micro_batch_size < len(indices)
        task.micro_batch_size = min(size, task.micro_batch_size) if shortened else size
    norm = task.squared_norms(whole)[0]
    torch._foreach_sub_(halves, whole)
    gap = task.squared_norms(halves)[0]
    return float((gap / norm) ** 0.5) if norm > 0 else 0.0
