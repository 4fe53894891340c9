"""When a noisy, falling loss reaches a goal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import isotonic_regression

#: A crossing counts once training has gone on so much beyond it: the end of a monotone fit follows its last points.
BEYOND = 1.1


def crossing(steps: Sequence[int], losses: Sequence[float], goal: float) -> float | None:
    """The step at which the smoothed loss reaches `goal`; None: not yet, or not surely.

    Smoothed is the best falling curve through the losses (isotonic regression): it has no window to choose and
    does not lag. Between evaluations the step is interpolated on the logarithms of step and loss.

    Args:
        steps: ascending, from the start on; step 0 is the start.
        losses: the loss at each, positive above a positive goal; any finite values otherwise.
        goal: in the same unit.
    """
    smooth = np.asarray(isotonic_regression(losses, increasing=False).x, dtype=np.float64)
    [below] = np.nonzero(smooth <= goal)
    if not len(below):
        return None
    i = int(below[0])
    if i == 0:
        return 0.0
    at = _between(steps[i - 1], steps[i], float(smooth[i - 1]), float(smooth[i]), goal)
    return at if steps[-1] >= BEYOND * at else None


def smoothed_at(steps: Sequence[int], losses: Sequence[float], step: float) -> float:
    """The loss of the same falling curve at a step."""
    smooth = np.asarray(isotonic_regression(losses, increasing=False).x, dtype=np.float64)
    return float(np.interp(step, steps, smooth))


def _between(before: int, after: int, high: float, low: float, goal: float) -> float:
    part = (high - goal) / (high - low)
    if goal > 0:
        part = math.log(high / goal) / math.log(high / max(low, 1e-3 * goal))
    if before == 0:
        return after * part
    return float(before * (after / before) ** part)
