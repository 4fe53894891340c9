"""The law of the steps, S(B) = S_min·(1 + (B_crit/B)^p)^(1/p), fitted to the steps at several batch sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import least_squares

from bnoise_cli.maths.intervals import t_quantile
from bnoise_cli.records import Estimate, Law

Array = NDArray[np.float64]

#: Steps at the best learning rate lie within about this relative error of the law, because the law and the search for
#: that rate have errors of their own. Counted on noisy quadratics: see tests/statistics/test_horizon_coverage.py.
_MODEL_ERROR = 0.03
#: The sharpness p that is expected before anything is known, and the standard deviation of its logarithm. Exact
#: quadratics have 0.8 to 2.5, and training of ten tasks 0.8 to 2.4.
_EXPECTED, _SPREAD = 1.4, 0.4
_SHARPNESSES = np.geomspace(0.5, 4.0, 13)
#: log B_crit is looked for as far as this beyond the batch sizes. Further outside the steps are a power law of the
#: batch size, and say nothing of it.
_BEYOND = 5.0
#: Chance makes χ² at most as large as in this part of all cases. With the mean instead, which noise alone exceeds every
#: other time, intervals of quadratics were up to a sixth wider and held the truth in all of 140 cases.
_BY_CHANCE = 0.8
#: An interval of B_crit wider than this factor has no limits worth naming.
_OPEN = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsFit:
    """The law through the steps at several batch sizes."""

    critical: Estimate
    min_steps: Estimate
    min_examples: Estimate
    #: log B_crit, however uncertain, and the half width of its 95% interval.
    log_critical: float
    log_error: float
    #: log S_min.
    log_min_steps: float
    sharpness: float
    #: Root mean square of the residuals of log S.
    scatter: float

    def log_steps(self, batch_size: float) -> float:
        """log S by the law."""
        return self.log_min_steps + math.log(
            Law(math.exp(self.log_critical), self.sharpness).steps(batch_size)
        )


def fit_steps(
    batch_sizes: Sequence[float], log_steps: Sequence[float], variances: Sequence[float], free: int
) -> StepsFit | None:
    """B_crit, S_min and the sharpness by weighted least squares on log S; None with fewer than three batch sizes.

    E = B·S, so a residual of log S is a residual of log E as well. Its variance is that of the runs plus a model error.
    If the residuals are larger than chance makes them, the limits grow in proportion. The limits are linearised.

    Args:
        batch_sizes: B.
        log_steps: log S at each.
        variances: of log_steps, from the runs.
        free: degrees of freedom of these variances.
    """
    if len(batch_sizes) < 3:
        return None
    B, y, weight = _data(batch_sizes, log_steps, variances)
    bounds = (
        [-np.inf, np.log(B.min()) - _BEYOND, math.log(0.3)],
        [np.inf, np.log(B.max()) + _BEYOND, math.log(6)],
    )
    grid = np.linspace(bounds[0][1], bounds[1][1], 100)
    chi2, levels = _profile(grid, B, y, weight)
    i, j = np.unravel_index(int(np.argmin(chi2)), chi2.shape)
    at = np.array([levels[i, j], grid[i], math.log(_SHARPNESSES[j])])

    def residuals(p: Array) -> Array:
        found: Array = np.append(np.sqrt(weight) * (_law(p[0], p[1], p[2], B) - y), _surprise(p[2]))
        return found

    for _ in range(2):  # with the variance that was assumed, and with the one that the residuals show
        fit = least_squares(residuals, at, bounds=bounds, x_scale=1.0)
        at, J = fit.x, np.asarray(fit.jac, dtype=np.float64)
        try:
            covariance = np.linalg.inv(J.T @ J)
        except np.linalg.LinAlgError:
            return None
        # Three parameters, less the part of the sharpness that rests on what is expected of it.
        dof = len(B) - 3 + float(covariance[2, 2]) / _SPREAD**2
        # Without replicates the residuals are all that is known of the noise.
        by_chance = 2 * special.gammaincinv(dof / 2, _BY_CHANCE) if free else dof
        weight = weight / max(1.0, float(np.sum(fit.fun[:-1] ** 2)) / by_chance)
    level, log_critical, log_sharpness = map(float, at)
    quantile = t_quantile(max(free, round(dof), 2) + 1)

    def half_width(of: Sequence[float]) -> float:
        return quantile * math.sqrt(max(float(np.array(of) @ covariance @ np.array(of)), 0.0))

    fitted = _law(level, log_critical, log_sharpness, B)
    error = half_width([0, 1, 0])
    return StepsFit(
        critical=_estimate(log_critical, error),
        min_steps=_estimate(level, half_width([1, 0, 0])),
        min_examples=_estimate(level + log_critical, half_width([1, 1, 0])),
        log_critical=log_critical,
        log_error=error,
        log_min_steps=level,
        sharpness=math.exp(log_sharpness),
        scatter=float(np.sqrt(np.mean((fitted - y) ** 2))),
    )


def fit_seeds(batch_sizes: Sequence[int], steps: Sequence[Sequence[float]]) -> StepsFit | None:
    """The law through the mean log S of several seeds at each batch size, whose variance they know together.

    Args:
        batch_sizes: B.
        steps: S of every seed at each batch size; at least one each.
    """
    logs = [np.log(np.asarray(seeds, dtype=np.float64)) for seeds in steps]
    free = sum(len(values) - 1 for values in logs)
    pooled = sum(float(np.sum((values - values.mean()) ** 2)) for values in logs) / max(free, 1)
    means, variances = [float(values.mean()) for values in logs], [pooled / len(values) for values in logs]
    return fit_steps(batch_sizes, means, variances, free)


def misfits(
    log_criticals: Sequence[float],
    batch_sizes: Sequence[float],
    log_steps: Sequence[float],
    variances: Sequence[float],
) -> list[float]:
    """χ² of the law at its best S_min and sharpness, for each log B_crit; arguments as `fit_steps`."""
    chi2, _ = _profile(np.array(log_criticals), *_data(batch_sizes, log_steps, variances))
    found: list[float] = chi2.min(axis=1).tolist()
    return found


def _data(
    batch_sizes: Sequence[float], log_steps: Sequence[float], variances: Sequence[float]
) -> tuple[Array, Array, Array]:
    weight = 1 / (np.array(variances, dtype=np.float64) + _MODEL_ERROR**2)
    return np.array(batch_sizes, dtype=np.float64), np.array(log_steps), weight


def _profile(log_criticals: Array, B: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    """χ² and log S_min at its best, for each log B_crit and each sharpness of a grid."""
    log_sharpness = np.log(_SHARPNESSES)
    shape = _law(0.0, log_criticals[:, None, None], log_sharpness[None, :, None], B)
    levels = np.sum(weight * (y - shape), axis=-1) / np.sum(weight)
    chi2 = np.sum(weight * (y - shape - levels[..., None]) ** 2, axis=-1) + _surprise(log_sharpness) ** 2
    return chi2, levels


def _law(level: float, log_critical: float | Array, log_sharpness: float | Array, B: Array) -> Array:
    """log S at batch sizes B."""
    p = np.exp(log_sharpness)
    found: Array = level + np.logaddexp(0.0, p * (log_critical - np.log(B))) / p
    return found


def _surprise(log_sharpness: float | Array) -> float | Array:
    """How far the sharpness lies from the expected one, in standard deviations."""
    return (log_sharpness - math.log(_EXPECTED)) / _SPREAD


def _estimate(log: float, half_width: float) -> Estimate:
    if half_width > math.log(_OPEN):
        return Estimate(value=None, low=math.exp(log - min(half_width, 50.0)), high=None)
    return Estimate(value=math.exp(log), low=math.exp(log - half_width), high=math.exp(log + half_width))
