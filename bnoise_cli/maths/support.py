"""Tests of conclusions about a line: do the losses that were measured on it support them?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bnoise_cli.maths import intervals, line

Array = NDArray[np.float64]

#: The slope at the nodes supports the slope of the gradient if they differ by at most this fraction of it.
_SLOPE_TOLERANCE = 1 / 3
#: A believed top is at most this many times as high as the highest node: a parabola's is at most 1.125 times as high.
_HIGHEST_TOP = 1.3
#: With few lines: two slopes differ beyond chance if they differ by this many standard errors.
_STANDARD_ERRORS = 5.0
#: With many replicates: two values differ beyond chance if they differ by this many standard errors, which chance
#: alone shows once in a thousand times.
_P_VALUE = 1e-3
#: The last node of a line may be this many times as high as the middle one. A parabola's is if its top lies 2.5 times
#: as far as the middle node, a quarter beyond the last one.
_STEEPEST_END = 1.5
#: A batch may gain this fraction more than the whole dataset's gradient before the law counts as broken.
_OUTGROWN = 0.2
#: The gain that is claimed for a noise-free line may differ from the evaluated gain by this fraction of it.
_CLAIM_TOLERANCE = 0.2
#: A loss that has risen along a line counts as falling again from this fraction of its best gain on.
_SECOND_DESCENT = 0.1


def lines_are_supported(curves: Array, starts: Array, slope: float, slope_error: float) -> bool:
    """Whether a few lines, evaluated at one scale, support a curve whose slope at the start is the gradient's.

    Compares two slopes on the same examples, so that hardly any noise is left: the slope of the polynomial through
    the nodes, and the slope close to the start. They differ if the loss turns before the first
    node. If it turns even closer to the start, both are far from the slope of the gradient, beyond their own scatter.

    Args:
        curves: p₁ … p₄ of each line, shape (n, 4), n ≥ 2.
        starts: slope of each line close to the start, per unit of x, shape (n,).
        slope: GᵀPG times the step size of x = 1.
        slope_error: standard error of `slope`.
    """
    curve = curves.mean(axis=0)
    tolerance = _SLOPE_TOLERANCE * slope
    if abs(curve[0] - starts.mean()) > tolerance:
        return False
    error = np.hypot(starts.std(ddof=1) / np.sqrt(len(starts)), slope_error)
    if abs(starts.mean() - slope) > max(tolerance, _STANDARD_ERRORS * error):
        return False
    return bool(top_is_supported(curve, np.asarray(slope)))


def top_is_supported(curves: Array, slope: Array) -> NDArray[np.bool_]:
    """Whether the top of each curve is about as high as its highest node.

    Args:
        curves: p₁ … p₄, shape (..., 4); p₁ is replaced by `slope`.
        slope: GᵀPG times the step size of x = 1, shape (...,).
    """
    controlled = np.concatenate([slope[..., None], curves[..., 1:]], axis=-1)
    _, top = line.best_step(controlled)
    nodes = line.height(controlled[..., None, :], np.array(line.NODES))
    supported: NDArray[np.bool_] = top <= _HIGHEST_TOP * np.maximum(nodes.max(axis=-1), 0.0)
    return supported


def slope_gap(curves: Array, scales: Array, slopes: Array) -> float | None:
    """How much faster or slower the losses along the updates fall at the start than the gradients say.

    Args:
        curves: p₁ … p₄ of each replicate at each batch size, shape (R, K, 4).
        scales: step size of x = 1, shape (K,).
        slopes: GᵀPG of each replicate, shape (R,).

    Returns:
        The relative difference that is largest in size, of the batch sizes at which it is beyond chance; None if it is
        beyond chance at no batch size.
    """
    gaps = curves[..., 0] / scales - slopes[:, None]
    count, slope = len(gaps), abs(slopes.mean())
    errors = gaps.std(axis=0, ddof=1) / np.sqrt(count)
    means = gaps.mean(axis=0)
    quantile = special.stdtrit(count - 1, 1 - _P_VALUE / 2)
    beyond = means[np.abs(means) > quantile * errors]
    if not len(beyond) or slope == 0:
        return None
    return float(beyond[np.argmax(np.abs(beyond))] / slope)


def claim_holds(claimed: float, evaluated: float, best: float) -> bool:
    """Whether the gain that a noise-free line claims for its best step is about the gain that was evaluated there.

    Args:
        best: the highest gain that was evaluated.
    """
    return abs(claimed - evaluated) <= _CLAIM_TOLERANCE * best


def is_contradicted(gap: float | None) -> bool:
    """Whether a `slope_gap` is too large for anything to be concluded from the lines."""
    return gap is not None and abs(gap) > _SLOPE_TOLERANCE


def second_descent(steps: Array, changes: Array, believed: int | None = None) -> float | None:
    """Where along a line the loss falls a second time, after it fell and rose.

    Args:
        steps: ascending step sizes, shape (S,).
        changes: ΔL at each on several sets of examples, shape (n, S), n ≥ 1; their scatter is the noise.
        believed: which of `steps` is believed to be the best; a much higher gain elsewhere also shows that the loss
            falls again.

    Returns:
        The step size of the largest gain in a second descent; None if there is none beyond chance, or only one that is
        small beside the best gain.
    """
    means = changes.mean(axis=0)
    highest = int(np.argmax(means))
    if means[highest] <= 0:
        return None
    if believed is not None and _is_beyond(
        changes[:, highest] - (1 + _CLAIM_TOLERANCE) * changes[:, believed], 0.0
    ):
        return float(steps[highest])
    least, found = _SECOND_DESCENT * float(means[highest]), None
    for dip in range(1, len(steps) - 1):
        top, later = int(np.argmax(means[:dip])), dip + 1 + int(np.argmax(means[dip + 1 :]))
        fall, rise = changes[:, top] - changes[:, dip], changes[:, later] - changes[:, dip]
        if _is_beyond(fall, 0.0) and _is_beyond(rise, least):
            least, found = float(rise.mean()), float(steps[later])
    return found


def best_step_is_beyond(curves: Array, scales: Array, slope: float) -> NDArray[np.bool_]:
    """Whether the best step at a batch size lies so far beyond the last node that nothing measured supports it.

    Args:
        curves: p₁ … p₄ of each replicate at each batch size, shape (R, K, 4); p₁ is replaced by the slope.
        scales: step size of x = 1, shape (K,).
        slope: GᵀPG.

    Returns:
        For each batch size, shape (K,).
    """
    controlled = curves.copy()
    controlled[..., 0] = slope * scales
    middle, last = (line.height(controlled, np.array(x)) for x in (1.0, line.LAST_NODE))
    return _is_positive(last - _STEEPEST_END * middle)


def outgrows(curvatures: Array, curvatures_out: Array, limit: float) -> NDArray[np.bool_]:
    """Whether one step at a batch size gains more than the whole dataset's gradient, which no law allows.

    Args:
        curvatures: a²/(2ΔL_opt) at each batch size, shape (K,).
        curvatures_out: the same without each replicate in turn, shape (R, K).
        limit: a²/(2ΔL_max) of the whole dataset's gradient.
    """
    count = len(curvatures_out)
    errors = np.array([intervals.jackknife_error(column) for column in curvatures_out.T])
    quantile = special.stdtrit(count - 1, 1 - _P_VALUE / 2)
    outgrown: NDArray[np.bool_] = curvatures + quantile * errors < limit / (1 + _OUTGROWN)
    return outgrown


def _is_beyond(values: Array, least: float) -> bool:
    """Whether the mean of a few values is more than `least`, and positive beyond their scatter if there are several."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return float(values.mean()) > max(least, _STANDARD_ERRORS * error)


def _is_positive(values: Array) -> NDArray[np.bool_]:
    """Whether the mean over replicates, the first axis, is positive beyond chance."""
    count = len(values)
    quantile = special.stdtrit(count - 1, 1 - _P_VALUE / 2)
    positive: NDArray[np.bool_] = values.mean(axis=0) > quantile * values.std(axis=0, ddof=1) / np.sqrt(count)
    return positive
