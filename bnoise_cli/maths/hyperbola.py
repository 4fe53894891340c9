"""Steps and examples to a goal: the hyperbola (S/S_min − 1)(E/E_min − 1) = 1, fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bnoise_cli.maths.intervals import t_quantile
from bnoise_cli.records import Estimate

Array = NDArray[np.float64]
#: An interval of B_crit wider than this in its logarithm has no limit worth naming.
_OPEN = float(np.log(1e3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperbola:
    """S(B) = S_min·(1 + B_crit/B)."""

    min_steps: Estimate
    min_examples: Estimate
    critical: Estimate
    log_critical: float  # of the fit, however uncertain
    fitted: tuple[float, ...]  # S at each batch size
    scatter: float  # root mean square of the residuals of log S


def fit_hyperbola(batch_sizes: Sequence[int], steps: Sequence[Sequence[float]]) -> Hyperbola | None:
    """Fit M18 eq. 2.11 in log space to the mean log S at each batch size; None if it cannot be fitted.

    E = B·S, so a residual of log S is a residual of log E as well. The variance of a residual is the larger of two
    estimates: from the seeds of all batch sizes together, and from the misfit. The limits are linearised, with a t
    quantile at the degrees of freedom of the larger estimate.

    Args:
        batch_sizes: B, at least three, ascending.
        steps: S of every seed at each batch size; at least one each.
    """
    B = np.array(batch_sizes, dtype=np.float64)
    if len(B) < 3:
        return None
    logs = [np.log(np.asarray(seeds, dtype=np.float64)) for seeds in steps]
    y = np.array([float(values.mean()) for values in logs])

    def residuals(p: Array) -> Array:
        r: Array = p[0] + np.logaddexp(0.0, p[1] - np.log(B)) - y
        return r

    start = np.array([y.min(), float(np.log(B).mean())])
    # Far outside the measured batch sizes the curve is a power law and says nothing of B_crit.
    bounds = ([-np.inf, np.log(B[0]) - 7], [np.inf, np.log(B[-1]) + 7])
    found = least_squares(residuals, start, bounds=bounds, x_scale=1.0)
    J = np.asarray(found.jac, dtype=np.float64)
    try:
        inverse = np.linalg.inv(J.T @ J)
    except np.linalg.LinAlgError:
        return None
    misfit, dof = float(np.sum(found.fun**2)) / (len(B) - 2), len(B) - 2
    pooled = sum(float(np.sum((values - values.mean()) ** 2)) for values in logs)
    free = sum(len(values) - 1 for values in logs)
    if free > 0:
        of_means = pooled / free * float(np.mean([1 / len(values) for values in logs]))
        if of_means > misfit:
            misfit, dof = of_means, free
    half = t_quantile(dof + 1) * np.sqrt(np.maximum(misfit * np.diag(inverse), 0.0))
    both = t_quantile(dof + 1) * float(np.sqrt(max(misfit * float(inverse.sum()), 0.0)))
    low_steps, critical = float(found.x[0]), float(found.x[1])
    return Hyperbola(
        min_steps=_estimate(low_steps, float(half[0])),
        min_examples=_estimate(low_steps + critical, both),
        critical=_estimate(critical, float(half[1])),
        log_critical=critical,
        fitted=tuple(float(value) for value in np.exp(y + found.fun)),
        scatter=float(np.sqrt(np.mean(found.fun**2))),
    )


def _estimate(log: float, half: float) -> Estimate:
    if half > _OPEN:
        return Estimate(value=None, low=float(np.exp(log - half)), high=None)
    return Estimate(value=float(np.exp(log)), low=float(np.exp(log - half)), high=float(np.exp(log + half)))
