"""The textbook procedure, as a naive twin of the probe at equal cost; used by accuracy.py, run by it.

At each batch size independent updates, each tried at a grid of step sizes on evaluation examples of its
own; the plain average of the change of the loss; its maximum over the grid; least squares of the law
ΔL_opt(B) = ΔL_max/(1 + B_noise/B) (arXiv:1812.06162, eq. 2.7) in log space. It is told what the probe must
find out: batch sizes on both sides of the exact noise scale and a grid around the exact best step size.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.gradients import add_gradient
from bnoise_cli.measurement.task.task import Task
from tests.benchmarks.tasks import Exact

#: Step sizes over the best one: eight, from a quarter to four times.
_GRID = np.geomspace(0.25, 4.0, 8)
#: Powers of four on each side of the one nearest to the exact noise scale, but not below the first.
_EACH_SIDE, _SMALLEST = 2, 4
#: Costs in forward passes over one example: a gradient; one evaluation example, at the start and all steps.
_GRADIENT_COST, _EVALUATION_COST = 3, 1 + len(_GRID)
#: A line in two parameters through two points would fit any noise.
_FEWEST_POINTS = 3


def naive_noise_scale(task: Task, exact: Exact, budget: float, seed: int) -> float | None:
    """B_noise by the textbook, or None where it gives no number.

    Half of the budget goes to gradients and half to evaluation, in equal shares for each batch size.

    Args:
        exact: places the batch sizes and the grid; the estimate makes no other use of it.
        budget: forward passes over one example.
    """
    batch_sizes = affordable_batch_sizes(exact.noise_scale, budget)
    if len(batch_sizes) < _FEWEST_POINTS:
        return None
    share = budget / (2 * len(batch_sizes))
    draws = Draws(seed, Stream.BENCHMARK)
    gains = []
    for size in batch_sizes:
        updates = max(1, round(share / (_GRADIENT_COST * size)))
        examples = max(1, round(share / (_EVALUATION_COST * updates)))
        steps = _GRID * exact.best_step / (1 + exact.noise_scale / size)
        changes = [_changes(task, size, examples, steps, draws) for _ in range(updates)]
        gains.append(float(np.mean(changes, axis=0).max()))
    return _fit(np.array(batch_sizes, dtype=np.float64), np.array(gains))


def affordable_batch_sizes(noise_scale: float, budget: float) -> list[int]:
    """Powers of four around `noise_scale`, without those whose share does not pay for one update."""
    middle = round(math.log(noise_scale, 4))
    sizes = [4**power for power in range(middle - _EACH_SIDE, middle + _EACH_SIDE + 1)]
    sizes = [size for size in sizes if size >= _SMALLEST]
    while sizes and 2 * len(sizes) * _GRADIENT_COST * sizes[-1] > budget:
        sizes.pop()
    return sizes


def _changes(
    task: Task, batch_size: int, examples: int, steps: NDArray[np.float64], draws: Draws
) -> NDArray[np.float64]:
    """Fall of the loss on fresh examples along one fresh update, at each step size."""
    length = task.batches.length
    origin = [parameter.detach().clone() for parameter in task.parameters]
    total = task.zeros()
    add_gradient(task, total, draws.indices(batch_size, length), draws)
    batch, seed = task.batches.fetch(draws.indices(examples, length)), draws.seed()
    before = task.loss_value(batch, seed, "an evaluation batch")
    after = []
    with torch.no_grad():
        for step in steps:
            torch._foreach_add_(task.parameters, total, alpha=-step / batch_size)
            after.append(task.loss_value(batch, seed, "an evaluation batch"))
            torch._foreach_copy_(task.parameters, origin)
    return before - np.array(after)


def _fit(batch_sizes: NDArray[np.float64], gains: NDArray[np.float64]) -> float | None:
    """Least squares of log ΔL_opt in (log ΔL_max, log B_noise); points without a gain have no logarithm."""
    usable = np.isfinite(gains) & (gains > 0)
    if usable.sum() < _FEWEST_POINTS:
        return None
    sizes, logs = batch_sizes[usable], np.log(gains[usable])

    def residuals(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        log_limit, log_noise_scale = parameters
        return logs - log_limit + np.logaddexp(0.0, log_noise_scale - np.log(sizes))

    found = least_squares(residuals, (logs.max(), np.log(sizes).mean()))
    value = math.exp(min(float(found.x[1]), 700.0))
    return value if found.success and math.isfinite(value) and value > 0 else None
