"""From the replicates of a probe to the noise scale and everything reported beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnoise_cli.maths import intervals, law, line, misfit, support
from bnoise_cli.records import Estimate, Fit, Point, Quadratic

Array = NDArray[np.float64]

#: The mean gradient counts as seen when chance alone would show it once in a thousand probes. Without
#: this a task with no gradient at all would be given a number in one probe of forty.
_SIGNAL_CONFIDENCE = 0.998
#: The law is given up when its misfit is both beyond chance and this large (relative, root mean square).
_LAW_P_VALUE, _LAW_MISFIT = 0.01, 0.25
#: An interval is closed if both limits lie within this factor of the value. A wider one holds the truth as often, but
#: its value is easily wrong by a factor of two.
_WIDEST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The line along the exact gradient of the whole dataset: B → ∞, known without error."""

    # a = GᵀPG
    slope: float
    # |G|²
    signal: float
    # the highest loss change that was evaluated along P·G, and the step size there
    improvement: float
    step_size: float
    # how far the claim of the fitted line was from the evaluated loss
    error: float
    # b = GᵀPHPG, from the line
    curvature: float
    # the step size of a second descent along this line, if there is one
    lower_at: float | None = None

    @property
    def effective_curvature(self) -> float:
        """a²/(2ΔL_max)."""
        return self.slope**2 / (2 * self.improvement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What every replicate measures."""

    batch_sizes: Array  # B, shape (K,), ascending
    scales: Array  # step size of x = 1 at each, shape (K,)
    blocks: Array  # updates of fresh examples at each; 0: one update of all drawn so far, shape (K,)
    limit: Limit | None = None
    # the step size of a second descent along the pilot's largest update or the limit, if there is one
    lower_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicates:
    """Independent replicates of one design; R of them at K batch sizes."""

    curves: Array  # p₁ … p₄ averaged over a batch size's updates, shape (R, K, 4)
    slopes: Array  # GᵀPG from gradients, shape (R,)
    signals: Array  # |G|² from gradients, shape (R,)
    noises: Array  # tr Σ from gradients, shape (R,)

    def __len__(self) -> int:
        return len(self.curves)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What the replicates say."""

    noise_scale: Estimate
    # relative half width of the noise scale's interval by chance alone, which more replicates make narrower; infinite
    # if that alone leaves it open
    half_width_by_chance: float
    max_improvement: Estimate
    simple_noise_scale: Estimate
    quadratic: Quadratic
    points: tuple[Point, ...]
    fit: Fit
    law_holds: bool
    slope: float  # a, loss per unit of step size
    slope_error: float
    # relative difference of line slopes and gradient norms, if it is beyond chance
    slope_gap: float | None
    # batch sizes at which the best step lies far beyond the steps that were evaluated
    beyond_at: tuple[int, ...]
    # batch sizes at which one step gains more than the gradient of the whole dataset
    outgrown_at: tuple[int, ...]
    fitted_curvatures: Array  # shape (K,)
    rough_noise_scale: float  # β/α however uncertain; infinite where α is not positive


def analyse(design: Design, replicates: Replicates) -> Analysis:
    """Fit the law to the replicates and give every quantity its jackknife interval.

    Args:
        design: what was measured; with a `limit`, a and α are exact and only the noise is estimated.
        replicates: at least two.
    """
    limit, B = design.limit, design.batch_sizes
    curves = replicates.curves.mean(axis=0)
    curves_out = intervals.leave_one_out_means(replicates.curves)
    if limit is None:
        slope = np.asarray(replicates.slopes.mean())
        slope_out = intervals.leave_one_out_means(replicates.slopes)
    else:
        slope, slope_out = np.asarray(limit.slope), np.full(len(replicates), limit.slope)

    kappa, steps = line.effective_curvature(curves, slope, design.scales)
    kappa_out, _ = line.effective_curvature(curves_out, slope_out, design.scales)
    weight = _weight(design, *_fit(design, kappa, None))
    alpha, beta = _fit(design, kappa, weight)
    alpha_out, beta_out = _fit(design, kappa_out, weight)
    fitted = alpha + beta / B

    seen = _slope_is_seen(limit, slope, slope_out) or _curvature_is_seen(alpha / beta, alpha_out / beta_out)
    residuals = (kappa - fitted) / law.positive(fitted)
    residuals_out = (kappa_out - (alpha_out[:, None] + beta_out[:, None] / B)) / law.positive(fitted)
    test = intervals.residual_test(residuals, residuals_out)
    size_of_misfit = float(np.sqrt(np.mean(residuals**2)))
    b, c = _second_order(design, curves, weight)
    discrepancy = math.hypot(
        _misfit(design, kappa, weight, residuals, residuals_out),
        misfit.distance_of_witness(float(alpha), float(beta), b, c),
    )
    noise_scale, by_chance = (
        _noise_scale(design, alpha, beta, alpha_out, beta_out, seen, beside) for beside in (discrepancy, 0.0)
    )
    simple = _simple_noise_scale(design, replicates)
    slopes = replicates.slopes if limit is None else np.full(len(replicates), limit.slope)
    gap = support.slope_gap(replicates.curves, design.scales, slopes)
    beyond = support.best_step_is_beyond(replicates.curves, design.scales, float(slope))
    outgrown = _outgrown(design, kappa, kappa_out)
    contradicted = support.is_contradicted(gap) or design.lower_at is not None
    supported = not contradicted and not beyond.any() and not outgrown.any()
    if not supported:
        noise_scale = by_chance = Estimate(value=None, low=0.0, high=None)
    return Analysis(
        noise_scale=noise_scale,
        half_width_by_chance=by_chance.relative_half_width,
        max_improvement=_max_improvement(by_chance, slope, alpha, slope_out, alpha_out),
        simple_noise_scale=simple,
        quadratic=_quadratic(b, c, by_chance.value),
        points=_points(design, len(replicates), slope, kappa, slope_out, kappa_out, steps, fitted, simple),
        fit=_fit_quality(kappa, residuals, test, slope),
        beyond_at=_batch_sizes(design, beyond),
        outgrown_at=_batch_sizes(design, outgrown),
        law_holds=supported
        and not (test is not None and test[2] < _LAW_P_VALUE and size_of_misfit > _LAW_MISFIT),
        slope=float(slope),
        slope_error=intervals.jackknife_error(slope_out),
        slope_gap=gap,
        fitted_curvatures=fitted,
        rough_noise_scale=float(beta / alpha) if alpha > 0 else np.inf,
    )


def _fit(design: Design, kappa: Array, weight: Array | None) -> tuple[Array, Array]:
    if design.limit is None:
        return law.fit_curvature(design.batch_sizes, kappa, weight)
    alpha = design.limit.effective_curvature
    beta = law.fit_noise(design.batch_sizes, kappa, alpha, weight)
    return np.full_like(beta, alpha), beta


def _misfit(design: Design, kappa: Array, weight: Array, residuals: Array, residuals_out: Array) -> float:
    """What the misfit of the law adds to the interval of log B_noise; the limit may deviate as the points do."""

    def fit(points: Array) -> tuple[Array, Array]:
        measured = points[..., : len(kappa)]
        if design.limit is None:
            alpha, beta = law.fit_curvature(design.batch_sizes, measured, weight)
        else:
            alpha = points[..., -1]
            beta = law.fit_noise(design.batch_sizes, measured, alpha, weight)
        fitted = alpha[..., None] + beta[..., None] / design.batch_sizes
        with np.errstate(invalid="ignore", divide="ignore"):  # of no use where α or β is not positive
            return np.log(beta / alpha), (measured - fitted) / law.positive(fitted)

    limit = [] if design.limit is None else [design.limit.effective_curvature]
    return misfit.misfit_of_points(fit, np.append(kappa, limit), residuals, residuals_out)


def _weight(design: Design, alpha: Array, beta: Array) -> Array:
    scatter = law.relative_scatter(design.batch_sizes, design.blocks, float(alpha), float(beta))
    weight: Array = np.linalg.inv(scatter).astype(np.float64)
    return weight


def _slope_is_seen(limit: Limit | None, slope: Array, slope_out: Array) -> bool:
    if limit is not None:
        return True
    quantile = intervals.t_quantile(len(slope_out), _SIGNAL_CONFIDENCE)
    return float(slope) > quantile * intervals.jackknife_error(slope_out)


def _curvature_is_seen(inverse: Array, inverse_out: Array) -> bool:
    quantile = intervals.t_quantile(len(inverse_out), _SIGNAL_CONFIDENCE)
    return float(inverse) > quantile * intervals.jackknife_error(inverse_out)


def _noise_scale(
    design: Design,
    alpha: Array,
    beta: Array,
    alpha_out: Array,
    beta_out: Array,
    seen: bool,
    discrepancy: float,
) -> Estimate:
    if beta <= 0 or bool(np.any(beta_out <= 0)):
        return Estimate(value=None, low=0.0, high=None)
    if design.limit is not None:
        if alpha <= 0:
            return Estimate(value=None, low=0.0, high=None)
        estimate = intervals.scale_interval(float(beta / alpha), beta_out / alpha_out, discrepancy)
    else:
        inverse_out = alpha_out / beta_out
        inverse = float(alpha / beta)
        chance = intervals.t_quantile(len(alpha_out)) * intervals.jackknife_error(inverse_out)
        half_width = math.hypot(chance, discrepancy * inverse)
        estimate = intervals.inverse_interval(inverse, half_width, design.batch_sizes[-1])
    return estimate if seen and _is_narrow(estimate) else Estimate(value=None, low=estimate.low, high=None)


def _is_narrow(estimate: Estimate) -> bool:
    if estimate.value is None or estimate.high is None:
        return False
    return estimate.high <= _WIDEST * estimate.value <= _WIDEST**2 * estimate.low


def _outgrown(design: Design, kappa: Array, kappa_out: Array) -> NDArray[np.bool_]:
    if design.limit is None:
        return np.zeros(len(kappa), dtype=bool)
    return support.outgrows(kappa, kappa_out, design.limit.effective_curvature)


def _batch_sizes(design: Design, where: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(size) for size in design.batch_sizes[where])


def _simple_noise_scale(design: Design, replicates: Replicates) -> Estimate:
    noise_out = intervals.leave_one_out_means(replicates.noises)
    if design.limit is not None:
        signal = design.limit.signal
        if signal <= 0:
            return Estimate(value=None, low=0.0, high=None)
        return intervals.scale_interval(float(replicates.noises.mean() / signal), noise_out / signal)
    noise = replicates.noises.mean()
    if noise <= 0 or bool(np.any(noise_out <= 0)):
        return Estimate(value=None, low=0.0, high=None)
    inverse_out = intervals.leave_one_out_means(replicates.signals) / noise_out
    half_width = intervals.t_quantile(len(replicates)) * intervals.jackknife_error(inverse_out)
    inverse = float(replicates.signals.mean() / noise)
    return intervals.inverse_interval(inverse, half_width, design.batch_sizes[-1])


def _max_improvement(
    noise_scale: Estimate, slope: Array, alpha: Array, slope_out: Array, alpha_out: Array
) -> Estimate:
    if slope <= 0 or bool(np.any(slope_out <= 0)):
        return Estimate(value=None, low=0.0, high=None)
    estimate = intervals.ratio_interval(float(2 * alpha / slope**2), 2 * alpha_out / slope_out**2)
    if noise_scale.value is None:
        return Estimate(value=None, low=estimate.low, high=None)
    return estimate


def _second_order(design: Design, curves: Array, weight: Array) -> tuple[float, float]:
    """b = GᵀPHPG and c = tr(PHPΣ), from the curvatures at the start of the lines."""
    kappa = line.curvature(curves, design.scales)
    if design.limit is None:
        flat, noise = law.fit_curvature(design.batch_sizes, kappa, weight)
        return float(flat), float(noise)
    b = design.limit.curvature
    return b, float(law.fit_noise(design.batch_sizes, kappa, b, weight))


def _quadratic(b: float, c: float, noise_scale: float | None) -> Quadratic:
    value = c / b if b > 0 and c > 0 else None
    ratio = value / noise_scale if value is not None and noise_scale is not None else None
    return Quadratic(curvature=b, noise=c, noise_scale=value, ratio=ratio)


def _points(
    design: Design,
    count: int,
    slope: Array,
    kappa: Array,
    slope_out: Array,
    kappa_out: Array,
    steps: Array,
    fitted: Array,
    simple: Estimate,
) -> tuple[Point, ...]:
    gains = _improvement(slope, kappa)
    gains_out = _improvement(slope_out[:, None], kappa_out)
    law_gains = _improvement(slope, fitted)
    points = [
        Point(
            batch_size=int(B),
            improvement=float(gains[k]),
            std_error=intervals.jackknife_error(gains_out[:, k]),
            step_size=float(steps[k]),
            fitted=float(law_gains[k]) if fitted[k] > 0 else None,
            gradient_error=float(np.sqrt(simple.value / B)) if simple.value is not None else None,
            draws=count * max(int(design.blocks[k]), 1),
        )
        for k, B in enumerate(design.batch_sizes)
    ]
    if design.limit is not None:
        limit = design.limit
        points.append(
            Point(
                batch_size=None,
                improvement=limit.improvement,
                std_error=limit.error,
                step_size=limit.step_size,
                fitted=limit.improvement,
                gradient_error=0.0,
                draws=1,
            )
        )
    return tuple(points)


def _improvement(slope: Array, kappa: Array) -> Array:
    usable = (slope > 0) & (kappa > 0)
    return np.where(usable, slope**2 / (2 * np.where(usable, kappa, 1.0)), 0.0)


def _fit_quality(kappa: Array, residuals: Array, test: tuple[float, int, float] | None, slope: Array) -> Fit:
    if slope <= 0 or bool(np.any(kappa <= 0)):
        r_squared = None
    else:
        logs = np.log(kappa)
        spread = float(np.sum((logs - logs.mean()) ** 2))
        r_squared = 1 - float(np.sum(residuals**2)) / spread if spread > 0 else None
    chi2, dof, p_value = test if test is not None else (None, 0, None)
    return Fit(chi2=chi2, dof=dof, r_squared=r_squared, p_value=p_value)
