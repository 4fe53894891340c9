"""From short training runs at several batch sizes to the critical batch size that they show.

From one start, L(s; B, ε) is the expected loss after s steps at batch size B and learning rate ε. With

    S_B(ℓ) = min over ε of the first s at which L(s; B, ε) ≤ ℓ

the steps to a loss ℓ follow S_B(ℓ) = S_min(ℓ)·(1 + B_crit(ℓ)/B): arXiv:1812.06162 eq. 2.11 from this start to this
loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bnoise_cli.maths.crossing import WINDOW, crossing
from bnoise_cli.records import Estimate, HorizonPoint

Array = NDArray[np.float64]

#: The law holds, and the best learning rate is found, within about this much of log S (relative error of the steps).
#: Counted on noisy quadratics: see tests/statistics/test_horizon_coverage.py.
_MODEL_ERROR = 0.06
#: Replicates of one batch size are few. Their variance is mixed with the one that all sizes show together, as if that
#: came from this many further replicates; merely chosen.
_SHARED_REPLICATES = 4.0
#: Learning rates within this distance of the best, in powers of two, are fitted by a parabola.
_NEAR = 1.01
#: A learning rate that takes this many times the fewest steps does not belong to the valley around the best one.
OUTSIDE_VALLEY = 1.35
#: A loss was not reached if the run is back above it by this fraction of the way to it soon afterwards: a step that is
#: too large for training can gain much once.
_REBOUND = 0.1
#: The law is fitted to batch sizes within this factor of B_crit, if there are enough of them. Further away it is a
#: power law, and says more of its own error than of B_crit.
_FITTED = 20.0
#: The 90% quantile of χ² with one degree of freedom.
_CHI2 = 2.71
#: An interval of B_crit wider than this factor has no limits worth naming.
_OPEN = 1e3


@dataclass(frozen=True, slots=True)
class RateRuns:
    """The replicates of one batch size and learning rate.

    Attributes:
        steps: steps at which the loss was read, ascending, from 0 on, shape (M,).
        losses: one row for each replicate, shape (n, M).
    """

    steps: Sequence[int]
    losses: Array


@dataclass(frozen=True, slots=True)
class StepsTo:
    """The fewest steps to a loss at one batch size, over learning rates.

    Attributes:
        log_steps: log S_B(ℓ).
        log_rate: log2 of the best learning rate.
        inside: whether worse learning rates were tried on both sides.
        variance: of log_steps, from the replicates; NaN if there is one replicate.
        replicates: how many.
    """

    batch_size: int
    log_steps: float
    log_rate: float
    inside: bool
    variance: float
    replicates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LawFit:
    """S_B = S_min·(1 + B_crit/B) through the steps of several batch sizes."""

    critical: Estimate
    log_critical: float
    # Half width of the 95% interval of log_critical.
    log_error: float
    # S_min and E_min = B_crit·S_min.
    min_steps: float
    min_examples: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One point of the horizon curve: the law through the steps to one loss."""

    # K, of the largest batch at its best learning rate.
    steps: int
    loss: float
    fit: LawFit
    # Of ascending batch sizes.
    arrivals: tuple[StepsTo, ...]

    @property
    def sizes(self) -> list[int]:
        return [point.batch_size for point in self.arrivals]

    def point(self) -> HorizonPoint:
        """As it is stored."""
        return HorizonPoint(
            steps=self.steps,
            loss=self.loss,
            critical_batch_size=self.fit.critical,
            min_steps=self.fit.min_steps,
            min_examples=self.fit.min_examples,
        )


def arrival(runs: RateRuns, loss: float, without: int | None = None) -> float | None:
    """The step at which the mean over replicates reaches `loss`; None if it does not.

    Args:
        without: a replicate to leave out.
    """
    losses = runs.losses if without is None else np.delete(runs.losses, without, axis=0)
    mean = losses.mean(axis=0)
    finite = int(np.argmin(np.isfinite(mean))) if not np.isfinite(mean).all() else len(mean)
    if finite < 2:
        return None
    at = crossing(runs.steps[:finite], list(mean[:finite]), loss)
    if at is None:
        return None
    at = max(at, 1.0)  # no part of a step can be taken, and what the next one loses must be seen
    later = [value for step, value in zip(runs.steps, mean, strict=True) if step >= WINDOW * at]
    highest = loss + _REBOUND * (float(mean[0]) - loss)
    return None if later and not later[0] <= highest else at


def fewest_steps(arrivals: Mapping[float, float | None]) -> tuple[float, float, bool] | None:
    """The fewest steps over learning rates: a parabola in the logarithms around the best rate.

    The minimum of noisy values comes out too low, more so at small batch sizes. A parabola through the neighbours
    of the best rate averages their noise. Beside a cliff (a rate that diverges or takes far more steps) there is no
    parabola, and the best rate itself counts.

    Args:
        arrivals: log2 of the learning rate → steps, or None if that rate did not arrive.

    Returns:
        (log S, log2 of the best rate, whether worse rates lie on both sides); None if no rate arrived.
    """
    arrived = {x: math.log(max(s, 1e-9)) for x, s in arrivals.items() if s is not None}
    if not arrived:
        return None
    best = min(arrived, key=lambda x: (arrived[x], x))
    inside = min(arrivals) < best < max(arrivals)
    valley = {
        x: y
        for x, y in arrived.items()
        if abs(x - best) <= _NEAR and y - arrived[best] <= math.log(OUTSIDE_VALLEY)
    }
    if len(valley) >= 3 and min(valley) < best < max(valley):
        x, y = np.array(list(valley)), np.array(list(valley.values()))
        bend, slope, level = np.polyfit(x - best, y, 2)
        if bend > 0:
            shift = float(np.clip(-slope / (2 * bend), min(valley) - best, max(valley) - best))
            return float(level + slope * shift + bend * shift**2), best + shift, inside
    return arrived[best], best, inside


def steps_to(batch_size: int, rates: Mapping[float, RateRuns], loss: float) -> StepsTo | None:
    """S_B(ℓ) of one batch size with the jackknife variance of its logarithm; None if no rate reaches the loss."""
    whole = {x: arrival(runs, loss) for x, runs in rates.items()}
    found = fewest_steps(whole)
    if found is None:
        return None
    log_steps, log_rate, inside = found
    near = {x: runs for x, runs in rates.items() if abs(x - log_rate) <= 2 * _NEAR}
    count = max(len(runs.losses) for runs in near.values())
    parts = []
    for replicate in range(count if count > 1 else 0):
        left = {
            x: arrival(runs, loss, replicate) if replicate < len(runs.losses) > 1 else whole[x]
            for x, runs in near.items()
        }
        part = fewest_steps(left)
        if part is not None:
            parts.append(part[0])
    variance = math.nan
    # They are all the same if the best rate has one replicate among others that have more.
    if len(parts) > 1 and max(parts) > min(parts):
        variance = (count - 1) * float(np.var(parts))
    return StepsTo(batch_size, log_steps, log_rate, inside, variance, count)


def pooled_variances(points: Sequence[StepsTo]) -> Array:
    """The variance of log S at each batch size, each mixed with what all sizes show together.

    The variance of one run's log S falls about as 1/B, because gradient noise does. Few replicates at each size know
    it badly; together they know its scale.
    """
    B = np.array([float(point.batch_size) for point in points])
    n = np.array([float(point.replicates) for point in points])
    own = np.array([point.variance for point in points]) * n  # of a single run
    free = np.where(np.isfinite(own), n - 1, 0.0)
    own = np.where(np.isfinite(own), own, 0.0)
    shape = 1 / B
    scale = float(np.sum(free * own / shape) / np.sum(free)) if free.sum() > 0 else 0.0
    mixed = (free * own + _SHARED_REPLICATES * scale * shape) / (free + _SHARED_REPLICATES)
    variances: Array = mixed / n
    return variances


def fit_law(points: Sequence[StepsTo]) -> LawFit | None:
    """B_crit and S_min by weighted least squares on log S, with 95% limits; None with fewer than three batch sizes.

    The variance of a residual is that of the replicates plus a model error. If the residuals are larger than both,
    the limits grow in proportion.
    """
    if len(points) < 3:
        return None
    found = _fit(points)
    near = [
        point
        for point in points
        if found is not None and abs(math.log(point.batch_size) - found.log_critical) <= math.log(_FITTED)
    ]
    return _fit(near) if 3 <= len(near) < len(points) else found


def excludes(points: Sequence[StepsTo], fit: LawFit, log_critical: float) -> bool:
    """Whether the steps contradict another log B_crit than the fitted one, by a likelihood ratio at 90%.

    Unlike the limits this also holds where all batch sizes lie on one side of B_crit.
    """
    misfit = _misfit(points)
    best = misfit(fit.log_critical)[0]
    return misfit(log_critical)[0] - best > _CHI2 * max(1.0, best / (2 * max(len(points) - 2, 1)))


def _misfit(points: Sequence[StepsTo]) -> Callable[[float], tuple[float, float]]:
    """log B_crit → (χ² of the law at its best S_min, log S_min)."""
    B = np.array([float(point.batch_size) for point in points])
    y = np.array([point.log_steps for point in points])
    weight = _weights(points)

    def misfit(log_critical: float) -> tuple[float, float]:
        shape = np.logaddexp(0.0, log_critical - np.log(B))
        level = float(np.sum(weight * (y - shape)) / np.sum(weight))
        return float(np.sum(weight * (y - shape - level) ** 2)), level

    return misfit


def _weights(points: Sequence[StepsTo]) -> Array:
    weights: Array = 1 / (pooled_variances(points) + _MODEL_ERROR**2)
    return weights


def _fit(points: Sequence[StepsTo]) -> LawFit | None:
    B = np.array([float(point.batch_size) for point in points])
    weight, misfit = _weights(points), _misfit(points)
    low, high = math.log(B.min()) - 5, math.log(B.max()) + 5
    grid = np.linspace(low, high, 200)
    values = [misfit(float(x))[0] for x in grid]
    x = float(grid[int(np.argmin(values))])
    width = float(grid[1] - grid[0])
    for _ in range(40):  # golden section would save nothing worth its lines
        width *= 0.7
        x = min((x - width, x, x + width), key=lambda at: misfit(at)[0])
    chi2, level = misfit(x)
    part = special.expit(x - np.log(B))  # ∂ log S / ∂ log B_crit
    J = np.stack([np.ones_like(B), part], axis=1)
    information = (J * weight[:, None]).T @ J
    try:
        covariance = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        return None
    dof = len(points) - 2
    free = sum(max(point.replicates - 1, 0) for point in points)
    covariance = covariance * max(1.0, chi2 / (2 * dof))
    quantile = float(special.stdtrit(max(free, 2), 0.975))
    error = quantile * math.sqrt(max(float(covariance[1, 1]), 0.0))
    return LawFit(
        critical=_estimate(x, error),
        log_critical=x,
        log_error=error,
        min_steps=math.exp(level),
        min_examples=math.exp(level + x),
    )


def _estimate(log: float, half_width: float) -> Estimate:
    if half_width > math.log(_OPEN):
        return Estimate(value=None, low=math.exp(log - min(half_width, 50.0)), high=None)
    return Estimate(value=math.exp(log), low=math.exp(log - half_width), high=math.exp(log + half_width))
