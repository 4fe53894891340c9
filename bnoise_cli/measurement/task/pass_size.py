"""How many examples go through the model in one pass, by the time that they take."""

from __future__ import annotations

from collections.abc import Callable

from bnoise_cli.measurement.task.task import Task

#: The largest size that is tried: fewer passes tell less about the scatter of gradients.
MOST = 64
#: The size is doubled as long as this saves this fraction of the time per example; chosen.
_SAVED = 0.1
#: A trial of three passes may take about three times this fraction of the budget.
_PART = 0.01


def choose_pass_size(task: Task, most: int, seconds: Callable[[], float], budget_seconds: float) -> None:
    """Double the micro-batch as long as this clearly lowers the time per example and fits the memory.

    A small micro-batch leaves most of a device idle, and the sum of gradients does not depend on it. Times decide, so
    two probes may choose different sizes and then differ by rounding.

    Args:
        most: examples that fit the memory.
        seconds: gives the time of a gradient example at the present size, equal on all ranks; it makes a size smaller
            that does not fit.
    """
    size, best = task.micro_batch_size, seconds()
    while 2 * size <= min(most, MOST, task.batches.length) and 2 * size * best <= _PART * budget_seconds:
        task.take_micro_batch(2 * size)
        found = seconds()
        if task.micro_batch_size < 2 * size or found > (1 - _SAVED) * best:
            break
        size, best = 2 * size, found
    task.plan_micro_batch(size)
