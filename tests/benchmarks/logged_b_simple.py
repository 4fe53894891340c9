"""B_simple as training frameworks log it, at fixed weights; used by cost.py, run by it.

Every training step gives two squared norms (arXiv:1812.06162, appendix A.1): |m|² of one device's gradient of b
examples, here the mean over the devices, and |g|² of the whole batch of B. By eq. A.2

    |G|² ≈ (B·|g|² − b·|m|²)/(B − b)        tr Σ ≈ (|m|² − |g|²)/(1/b − 1/B)

are unbiased; each is averaged over the steps, and B_simple is their ratio.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter
from torch import Tensor

from bnoise_cli.measurement.task.draws import Draws
from bnoise_cli.measurement.task.gradients import loss_and_gradient
from bnoise_cli.measurement.task.task import Task

Array = NDArray[np.float64]


def signals_and_noises(
    task: Task, micro_batch: int, devices: int, steps: int, draws: Draws
) -> tuple[Array, Array]:
    """Estimates of |G|² and of tr Σ from each of so many steps, shapes (steps,).

    Args:
        micro_batch: b, examples of one device; the whole batch is B = b·devices.
        devices: two or more.
    """
    b, B = micro_batch, micro_batch * devices
    small, large = np.zeros(steps), np.zeros(steps)
    for step in range(steps):
        total = task.zeros()
        for _ in range(devices):
            batch = task.batches.fetch(draws.indices(b, task.batches.length))
            _, of_batch = loss_and_gradient(task, batch, b, draws)
            small[step] += _squared_norm(of_batch) / devices
            torch._foreach_add_(total, of_batch, alpha=1 / devices)
        large[step] = _squared_norm(total)
    return (B * large - b * small) / (B - b), (small - large) / (1 / b - 1 / B)


def exponential_average(values: Array, decay: float) -> Array:
    """Σ decay^(t−s)·v_s / Σ decay^(t−s) at every step t, along the last axis; with `decay` 1 the plain mean."""
    weights = lfilter([1.0], [1.0, -decay], np.ones_like(values))
    average: Array = lfilter([1.0], [1.0, -decay], values) / weights
    return average


def steps_until_it_stays(within: NDArray[np.bool_]) -> int | None:
    """Steps after which a run stays within its tolerance.

    Args:
        within: whether it is at each step, shape (steps,).

    Returns:
        None where it does not stay for the whole second half: that much is asked as proof.
    """
    outside = np.flatnonzero(~within)
    last = int(outside[-1]) + 1 if len(outside) else 0  # counted from one
    return last + 1 if last <= len(within) // 2 else None


def _squared_norm(vector: list[Tensor]) -> float:
    return float(sum(part.double().square().sum() for part in vector))
