"""When a noisy loss reaches a goal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: The smoothed loss at a step averages the evaluations within this factor of the step, before and after it.
WINDOW = 1.3
#: A window with fewer evaluations is not smoothed.
_FEWEST = 3
#: A run cannot stall before this many steps, because a loss may rise before it falls.
_TOO_EARLY = 64

#: A run has diverged if its loss stays above the start by this fraction of it, until the step has doubled and for this
#: many steps at least; both merely chosen.
_DIVERGED, _STAYS = 1.0, 4


def is_above(loss: float, start_loss: float) -> bool:
    """Whether a loss is so far above that of the start that a run which stays there has diverged."""
    return loss > start_loss + _DIVERGED * abs(start_loss)


def has_diverged(steps: Sequence[int], losses: Sequence[float], start_loss: float) -> bool:
    """Whether a loss is not finite, or stays above twice that of the start.

    A rate that trains well can throw the loss up for one to four of its first steps. On the digits 17 of 128 runs with
    SGD at a good rate were once up to 3.4 times above the start, and took as many steps as the others.
    """
    since: int | None = None
    for step, loss in zip(steps, losses, strict=True):
        if not math.isfinite(loss):
            return True
        if not is_above(loss, start_loss):
            since = None
        elif since is None:
            since = step
        elif step >= max(2 * since, since + _STAYS):
            return True
    return False


def crossing(steps: Sequence[int], losses: Sequence[float], goal: float) -> float | None:
    """The step at which the smoothed loss first reaches `goal`; None: not yet.

    The result is provisional until the run is `WINDOW` times as long: before, the window lacks its later half.
    Between evaluations the step is interpolated on the logarithms of step and loss.

    Args:
        steps: ascending, from the start on; step 0 is the start.
        losses: the loss at each, positive above a positive goal; any finite values otherwise.
        goal: in the same unit.
    """
    curve = _smoothed(steps, losses)
    [below] = np.nonzero(curve <= goal)
    if not len(below):
        return None
    i = int(below[0])
    return _between(steps[i - 1], steps[i], curve[i - 1], curve[i], goal) if i else float(steps[0])


def smoothed_at(steps: Sequence[int], losses: Sequence[float], step: float) -> float:
    """The smoothed loss at a step."""
    return float(np.interp(step, steps, _smoothed(steps, losses)))


def has_stalled(steps: Sequence[int], losses: Sequence[float]) -> bool:
    """Whether the median loss of the last factor of two in steps is at least the median loss a factor of four earlier.

    A run at too high a learning rate hovers above its goal forever. The loss of a run that makes progress falls by
    much more than its noise in this time. It may be thrown up for a few steps: with BatchNorm and momentum a single
    reading was 20 times above the others, and the mean with it.
    """
    last = steps[-1]
    if last < _TOO_EARLY:
        return False
    late = [loss for step, loss in zip(steps, losses, strict=True) if step > last / 2]
    early = [loss for step, loss in zip(steps, losses, strict=True) if last / 8 < step <= last / 4]
    return median(late) >= median(early)


def _smoothed(steps: Sequence[int], losses: Sequence[float]) -> Array:
    """The mean loss of each window without the trend inside it, an estimate of E[L]; single losses dip below it.

    The trend is a power law, L ∝ s^(−p), or L = a − b·log s if not all losses are positive. Curves of either form stay
    unchanged.
    """
    s, L = np.asarray(steps, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    curve = L.copy()
    kept = s > 0
    s, L = s[kept], L[kept]
    x = np.log(s / s[:, None])  # row: window, column: evaluation
    near = np.abs(x) <= math.log(WINDOW) + 1e-9
    count = near.sum(1)
    positive = bool(np.all(L > 0))
    y = np.log(L) if positive else L
    centred = np.where(near, x - (np.where(near, x, 0.0).sum(1) / count)[:, None], 0.0)
    slope = (centred * y).sum(1) / np.maximum((centred**2).sum(1), 1e-300)
    trend = slope[:, None] * np.where(near, x, 0.0)
    level = np.where(near, L * np.exp(-trend) if positive else L - trend, 0.0).sum(1) / count
    curve[kept] = np.where(count >= _FEWEST, level, L)
    return curve


def _between(before: int, after: int, high: float, low: float, goal: float) -> float:
    part = (high - goal) / (high - low)
    if goal > 0:
        whole = math.log(high / max(low, 1e-3 * goal))
        part = math.log(high / goal) / whole if whole > 0 else 1.0  # 0 if they differ by rounding alone
    if before == 0:
        return after * part
    return float(before * (after / before) ** part)
