"""How far the points are from the law, beyond chance, and what that is worth in the noise scale.

The law is exact on a quadratic loss only. On any other one the points deviate from it by more than their errors, and
fits to different batch sizes find different noise scales. That discrepancy does not fall with more replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from bnoise_cli.maths import intervals

Array = NDArray[np.float64]

#: A misfit counts if chance alone shows one as large in this fraction of all probes. On losses that obey the law
#: intervals are then 4% wider in the mean; with 1/20 they are 12% wider, and hardly hold the truth more often on other
#: losses.
_CHANCE = 1 / 50
#: The relative change of a point by which derivatives are taken.
_CHANGE = 1e-4
#: The misfit of a point is looked for up to this fraction of it; a larger one is no fit at all.
_LARGEST = 10.0
#: A half width of log B_noise, a factor of 150, with which nothing is known.
_NOTHING_KNOWN = 5.0
#: The interval reaches this fraction of the way from the fit to its quadratic witness; chosen on losses with walls,
#: where fits to batch sizes from 4 to 256 differ by a third of that way to twice as much.
_WITNESS = 0.5
#: It reaches no further than a factor of 1.5. On a graph network the witness was 14 times the fit, which was right.
_FARTHEST = math.log(1.5)


def distance_of_witness(alpha: float, beta: float, b: float, c: float) -> float:
    """Half width of the interval of log B_noise that the quadratic witness c/b adds to the fitted β/α.

    Both are the same on a quadratic loss. Elsewhere they are two noise scales of the same lines, of short steps and of
    the best ones. A witness that is far off, or has no meaning because b or c is not positive, says that the loss is
    no quadratic, and not where the noise scale lies.
    """
    if min(alpha, beta) <= 0:
        return 0.0
    if min(b, c) <= 0:
        return _FARTHEST
    return min(_WITNESS * abs(math.log(c / b) - math.log(beta / alpha)), _FARTHEST)


def misfit_of_points(
    fit: Callable[[Array], tuple[Array, Array]], points: Array, residuals: Array, residuals_out: Array
) -> float:
    """Half width of the 95% interval of log B_noise that the misfit of the law alone gives; 0 if chance explains it.

    Every point is taken to deviate from the law by a relative error of its own, of mean zero and variance τ². With
    the estimated τ² the residuals are as large as expected, beside their statistical covariance (R. C. Paule and
    J. Mandel, 1982). The deviations reach log B_noise through the derivatives of the fit. Few residuals estimate τ,
    so the quantile is Student's with as many degrees of freedom.

    Args:
        fit: from points, shape (..., n), to log B_noise, shape (...,), and residuals, shape (..., K).
        points: the points that deviate, shape (n,), those without statistical error among them.
        residuals: relative residuals of the fit, shape (K,).
        residuals_out: the same without each replicate, shape (R, K).
    """
    space, test = intervals.residual_space(residuals_out), intervals.residual_test(residuals, residuals_out)
    if space is None or test is None or test[2] >= _CHANCE:
        return 0.0
    variances, directions = space
    rank, count = len(variances), len(residuals_out)
    base, at = fit(points)
    logs, moved = fit(points * (1 + _CHANGE * np.eye(len(points))))
    answer = (logs - base) / _CHANGE  # ∂log B_noise/∂δ, shape (n,)
    spread = (moved - at) @ directions / _CHANGE  # ∂residuals/∂δ, shape (n, rank)
    seen = residuals @ directions
    expected = rank * (count - 1) / (count - rank)

    def excess(log_tau: float) -> float:
        covariance = np.diag(variances) + np.exp(2 * log_tau) * spread.T @ spread
        return float(seen @ np.linalg.solve(covariance, seen)) - expected

    low, high = np.log(1e-6), np.log(_LARGEST)
    if not np.all(np.isfinite(answer)) or excess(high) > 0:
        return _NOTHING_KNOWN
    tau = np.exp(optimize.brentq(excess, low, high)) if excess(low) > 0 else 0.0
    quantile = special.stdtrit(rank, 0.5 + intervals.CONFIDENCE / 2)
    return min(float(quantile * tau * np.linalg.norm(answer)), _NOTHING_KNOWN)
