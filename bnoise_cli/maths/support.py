"""Whether what is concluded about a line agrees with the losses that were measured on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bnoise_cli.maths import line

Array = NDArray[np.float64]

#: The slope at the nodes supports the slope of the gradient if they differ by at most this part of it.
_SLOPE_TOLERANCE = 1 / 3
#: A believed top is at most this many times as high as the highest node: a parabola's is at most 1.125 times as high.
_HIGHEST_TOP = 1.3
#: A slope differs from zero or from another one beyond chance if it does so by this many standard errors of few lines.
_STANDARD_ERRORS = 5.0
#: Beyond chance in many replicates: chance alone shows it once in a thousand times.
_P_VALUE = 1e-3


def lines_are_supported(curves: Array, starts: Array, slope: float, slope_error: float) -> bool:
    """Whether a few lines, evaluated at one scale, support a curve that is given the slope of the gradient.

    Two slopes are held against each other on the same examples, so that hardly any noise is left: the slope of the
    polynomial through the nodes, and the slope close to the start. They differ if the loss turns before the first
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


def is_contradicted(gap: float | None) -> bool:
    """Whether a `slope_gap` is too large for anything to be concluded from the lines."""
    return gap is not None and abs(gap) > _SLOPE_TOLERANCE
