"""From short training runs at several batch sizes to the critical batch size that they show.

From one start, L(s; B, ε) is the expected loss after s steps at batch size B and learning rate ε. With

    S_B(ℓ) = min over ε of the first s at which L(s; B, ε) ≤ ℓ

the steps to a loss ℓ follow S_B(ℓ) = S_min(ℓ)·(1 + (B_crit(ℓ)/B)^p)^(1/p), the law of `records.Law` from this start
to this loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from bnoise_cli.maths.crossing import WINDOW, crossing
from bnoise_cli.maths.steps_fit import StepsFit, fit_steps, misfits
from bnoise_cli.records import HorizonPoint

Array = NDArray[np.float64]

#: Replicates of one batch size are few. Their variance is mixed with the one that all sizes show together, as if that
#: came from this many further replicates; merely chosen.
_SHARED_REPLICATES = 4.0
#: Learning rates within this distance of the best, in powers of two, are fitted by a parabola.
_NEAR = 1.01
#: A learning rate that takes this many times the fewest steps does not belong to the valley around the best one.
OUTSIDE_VALLEY = 1.35
#: Resamples of the replicates of one batch size, from whose best rates the variance of log S follows; merely chosen.
_RESAMPLES = 20
#: A loss was not reached if the run is back above it by this fraction of the way to it soon afterwards, by the median
#: of the readings within this factor of steps: a step that is too large for training can gain much once, and a good
#: rate can throw a single reading up.
_REBOUND, SOON = 0.1, 2.0
#: The law is fitted to batch sizes within this factor of B_crit, if there are enough of them. Further away it is a
#: power law, and says more of its own error than of B_crit.
_FITTED = 20.0
#: The 90% quantile of χ² with one degree of freedom.
_CHI2 = 2.71


@dataclass(frozen=True, slots=True)
class RateRuns:
    """The replicates of one batch size and learning rate.

    Attributes:
        steps: steps at which the loss was read, ascending, from 0 on, shape (M,).
        losses: one row for each replicate, shape (n, M).
        diverged: which replicates diverged, shape (n,).
        tolerated: the part of them that may have; with more the learning rate arrives nowhere.
    """

    steps: Sequence[int]
    losses: Array
    diverged: NDArray[np.bool_]
    tolerated: float


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
class Level:
    """One point of the horizon curve: the law through the steps to one loss."""

    # K, of the largest batch at its best learning rate.
    steps: int
    loss: float
    fit: StepsFit
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
            min_steps=math.exp(self.fit.log_min_steps),
            min_examples=math.exp(self.fit.log_min_steps + self.fit.log_critical),
            sharpness=self.fit.sharpness,
        )


def arrival(runs: RateRuns, loss: float, chosen: NDArray[np.int_] | None = None) -> float | None:
    """The step at which the mean over replicates reaches `loss`; None if it does not.

    Args:
        chosen: the replicates that count, each as often as it is named; None: each once.
    """
    losses, diverged = runs.losses, runs.diverged
    if chosen is not None:
        losses, diverged = losses[chosen], diverged[chosen]
    if diverged.mean() > runs.tolerated:
        return None
    mean = losses.mean(axis=0)
    finite = int(np.argmin(np.isfinite(mean))) if not np.isfinite(mean).all() else len(mean)
    if finite < 2:
        return None
    at = crossing(runs.steps[:finite], list(mean[:finite]), loss)
    if at is None:
        return None
    at = max(at, 1.0)  # no part of a step can be taken, and what the next one loses must be seen
    later = [(step, value) for step, value in zip(runs.steps, mean, strict=True) if step >= WINDOW * at]
    soon = [value for step, value in later if step <= SOON * later[0][0]]
    highest = loss + _REBOUND * (float(mean[0]) - loss)
    return None if soon and not median(soon) <= highest else at


@dataclass(frozen=True, slots=True)
class Best:
    """The fewest steps over learning rates.

    Attributes:
        log_steps: log S.
        log_rate: log2 of the best learning rate.
        inside: whether worse learning rates lie on both sides.
    """

    log_steps: float
    log_rate: float
    inside: bool


def fewest_steps(arrivals: Mapping[float, float | None]) -> Best | None:
    """The fewest steps over learning rates: a parabola in the logarithms around the best rate; None if none arrived.

    The minimum of noisy values comes out too low, more so at small batch sizes. A parabola through the neighbours
    of the best rate averages their noise. Beside a cliff (a rate that diverges or takes far more steps) there is no
    parabola, and the best rate itself counts.

    Args:
        arrivals: log2 of the learning rate → steps, or None if that rate did not arrive.
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
            return Best(float(level + slope * shift + bend * shift**2), best + shift, inside)
    return Best(arrived[best], best, inside)


def best_rate(rates: Mapping[float, RateRuns], loss: float) -> Best | None:
    """The fewest steps of one batch size to a loss, over learning rates; None if none reaches it."""
    return fewest_steps({x: arrival(runs, loss) for x, runs in rates.items()})


def steps_to(batch_size: int, rates: Mapping[float, RateRuns], loss: float) -> StepsTo | None:
    """S_B(ℓ) of one batch size with the bootstrap variance of its logarithm; None if no rate reaches the loss."""
    best = best_rate(rates, loss)
    if best is None:
        return None
    near = {x: runs for x, runs in rates.items() if abs(x - best.log_rate) <= 2 * _NEAR}
    count = max(len(runs.losses) for runs in near.values())
    generator, parts = np.random.default_rng(batch_size), []
    for _ in range(_RESAMPLES if count > 1 else 0):
        chosen = {n: generator.integers(n, size=n) for n in {len(runs.losses) for runs in near.values()}}
        part = fewest_steps({x: arrival(runs, loss, chosen[len(runs.losses)]) for x, runs in near.items()})
        if part is not None:
            parts.append(part.log_steps)
    variance = math.nan
    # They are all the same if the best rate has one replicate among others that have more.
    if len(parts) > 1 and max(parts) > min(parts):
        variance = count / (count - 1) * float(np.var(parts, ddof=1))
    return StepsTo(batch_size, best.log_steps, best.log_rate, best.inside, variance, count)


def pooled_variances(points: Sequence[StepsTo], critical: float) -> Array:
    """The variance of log S at each batch size, each mixed with what all sizes show together.

    The variance of one run's log S falls about as 1/(B + B_crit). Far above B_crit all batch sizes take the same steps,
    and gradient noise falls as 1/B. Far below it a smaller batch size takes more and smaller steps, and the noise of
    the whole run is the same. Few replicates at each size know it badly; together they know its scale.

    Args:
        critical: B_crit, about.
    """
    B = np.array([float(point.batch_size) for point in points])
    n = np.array([float(point.replicates) for point in points])
    own = np.array([point.variance for point in points]) * n  # of a single run
    free = np.where(np.isfinite(own), n - 1, 0.0)
    own = np.where(np.isfinite(own), own, 0.0)
    shape = 1 / (B + critical)
    scale = float(np.sum(free * own / shape) / np.sum(free)) if free.sum() > 0 else 0.0
    mixed = (free * own + _SHARED_REPLICATES * scale * shape) / (free + _SHARED_REPLICATES)
    variances: Array = mixed / n
    return variances


def fit_law(points: Sequence[StepsTo]) -> StepsFit | None:
    """The law through the steps of several batch sizes; None with fewer than three."""
    found = _fit(points)
    near = [
        point
        for point in points
        if found is not None and abs(math.log(point.batch_size) - found.log_critical) <= math.log(_FITTED)
    ]
    return _fit(near) if 3 <= len(near) < len(points) else found


def excludes(points: Sequence[StepsTo], fit: StepsFit, log_critical: float) -> bool:
    """Whether the steps contradict another log B_crit than the fitted one, by a likelihood ratio at 90%.

    Unlike the limits this also holds where all batch sizes lie on one side of B_crit.
    """
    best, other = misfits([fit.log_critical, log_critical], *_data(points, math.exp(fit.log_critical)))
    return other - best > _CHI2 * max(1.0, best / max(len(points) - 2, 1))


def _fit(points: Sequence[StepsTo]) -> StepsFit | None:
    if len(points) < 3:
        return None
    free = sum(max(point.replicates - 1, 0) for point in points)
    found, log_critical = None, float(np.mean(np.log([point.batch_size for point in points])))
    for _ in range(2):  # the variances depend on B_crit, a little
        found = fit_steps(*_data(points, math.exp(log_critical)), free)
        log_critical = found.log_critical if found is not None else log_critical
    return found


def _data(points: Sequence[StepsTo], critical: float) -> tuple[list[int], list[float], list[float]]:
    sizes = [point.batch_size for point in points]
    return sizes, [point.log_steps for point in points], pooled_variances(points, critical).tolist()
