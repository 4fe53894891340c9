"""The result of a probe, and how it is made from what the probe measured."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from bnoise_cli import __version__
from bnoise_cli.maths.trajectory import trajectory_critical_batch_size
from bnoise_cli.records import (
    Basis,
    Cost,
    CriticalBatchSize,
    Estimate,
    Fit,
    Horizon,
    NoiseScale,
    Point,
    Provenance,
    Quadratic,
    Schedule,
    TrajectoryPoint,
)
from bnoise_cli.results.horizon import horizon_estimate, horizon_record
from bnoise_cli.results.probe_doubts import below_a_group, probe_doubts
from bnoise_cli.results.result import Kind, Result
from bnoise_cli.results.schedule import scheduled
from bnoise_cli.spec.code_files import code_hashes
from bnoise_cli.spec.data_files import data_hashes
from bnoise_cli.spec.identity import weights_hash
from bnoise_cli.spec.load import Spec

if TYPE_CHECKING:
    from bnoise_cli.measurement.outcome import Measurement, ProbeRun, SweepRun

UNKNOWN = Estimate(value=None, low=0.0, high=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult(Result):
    """Everything one probe found."""

    kind: Literal["probe"] = "probe"
    noise_scale: NoiseScale
    max_improvement: Estimate
    simple_noise_scale: Estimate
    quadratic: Quadratic | None
    points: tuple[Point, ...]
    fit: Fit
    trajectory: tuple[TrajectoryPoint, ...]
    #: Of the point that was probed last; None if it was switched off or did not fit the budget.
    horizon: Horizon | None = None
    #: Training steps before the point that was probed last; None in files that do not say.
    step: int | None = None
    #: None unless several points were probed and every one is resolved.
    schedule: Schedule | None = None

    @property
    def best_rates(self) -> dict[int, float]:
        batches = self.horizon.batches if self.horizon is not None else ()
        return {batch.batch_size: batch.learning_rate for batch in batches}

    @property
    def trained_steps(self) -> dict[int, float]:
        if self.horizon is None:
            return {}
        fewest = self.horizon.curve[-1].min_steps
        return {batch.batch_size: batch.steps / fewest for batch in self.horizon.batches}

    @property
    def departures(self) -> dict[int, float]:
        if self.horizon is None:
            return {}
        last = self.horizon.curve[-1]
        return {
            batch.batch_size: batch.steps / last.steps_at(batch.batch_size) for batch in self.horizon.batches
        }

    @property
    def planned_steps_ratio(self) -> float | None:
        if self.horizon is None:
            return None
        run = self.horizon.run_as_planned(self.plan.training.batch_size)
        if run is None or run.arrived is None:
            return None
        return run.arrived / self.horizon.curve[-1].min_steps


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"at_steps": settings.get("at_steps") or [settings.get("warmup_steps")]}


PROBE = Kind(name="probe", command="probe", result=ProbeResult, identity=_identity)


def probe_result(run: ProbeRun, spec: Spec) -> ProbeResult:
    """Put together everything one probe found, before any advice."""
    config, last = spec.config, run.points[-1]
    analysis = last.analysis
    noise_scale = _noise_scale(run, last)
    batch_size = config.training.batch_size
    critical = _critical(run, batch_size)
    along = _trajectory(run) if len(run.points) > 1 else ()
    trajectory, schedule = scheduled(along, batch_size)
    return ProbeResult(
        config=spec.resolved(),
        config_hash=PROBE.hash(spec),
        provenance=provenance(
            run,
            spec,
            micro_batch_size=last.micro_batch_size,
            replicates=sum(point.replicates for point in run.points),
        ),
        noise_scale=NoiseScale(
            value=noise_scale.value,
            low=noise_scale.low,
            high=noise_scale.high,
            exact=last.exact_noise_scale,
        ),
        max_improvement=analysis.max_improvement if analysis else UNKNOWN,
        simple_noise_scale=analysis.simple_noise_scale if analysis else UNKNOWN,
        quadratic=analysis.quadratic if analysis else None,
        critical_batch_size=critical,
        points=analysis.points if analysis else (),
        fit=analysis.fit if analysis else Fit(chi2=None, dof=0, r_squared=None, p_value=None),
        trajectory=trajectory,
        doubts=probe_doubts(run, config),
        cost=Cost(
            seconds=round(sum(point.seconds for point in run.points), 3),
            gradient_examples=sum(point.gradient_examples for point in run.points),
            evaluation_examples=sum(point.evaluation_examples for point in run.points),
            warmup_seconds=round(run.warmup_seconds, 3),
        ),
        step=last.step,
        schedule=schedule,
        horizon=horizon_record(last.horizon),
    )


def _noise_scale(run: ProbeRun, point: Measurement) -> Estimate:
    """The estimate of one point; without a value if the law does not hold there, or if it is below a group."""
    if point.analysis is None:
        return UNKNOWN
    estimate = point.analysis.noise_scale
    if below_a_group(run, point):
        return UNKNOWN
    return estimate if point.analysis.law_holds else Estimate(value=None, low=estimate.low, high=None)


def _by_one_step(run: ProbeRun, point: Measurement) -> Estimate:
    """B_crit by the noise scale; without a value if that exceeds the dataset, because no batch is worth more."""
    estimate, most = _noise_scale(run, point), float(run.dataset_length)
    if estimate.value is None or estimate.value <= most:
        return estimate
    return Estimate(value=None, low=min(estimate.low, most), high=None)


def _critical(run: ProbeRun, batch_size: int) -> CriticalBatchSize:
    """B_crit of one point is its horizon's, or else its noise scale; of several their mean, weighted by progress.

    The limits of the mean take the limits of all points at once, which makes the interval wider than 95%.
    """
    points = run.points
    ahead = [horizon_estimate(point.horizon) for point in points if point.horizon is not None]
    shown = len(ahead) == len(points)
    scales = ahead if shown else [_by_one_step(run, point) for point in points]
    steps = [point.step for point in points]

    def weighted(values: list[float]) -> float:
        return trajectory_critical_batch_size(values, steps, batch_size)

    low = weighted([scale.low for scale in scales])
    values = [scale.value for scale in scales if scale.value is not None]
    highs = [scale.high for scale in scales if scale.high is not None]
    basis: Basis = "horizon" if shown else "probe" if len(points) == 1 else "trajectory"
    if len(values) < len(scales) or len(highs) < len(scales):
        return CriticalBatchSize(value=None, low=low, high=None, basis=basis)
    value, high = weighted(values), weighted(highs)
    # For steps that turn at several places the mean is a guess.
    logs = [math.log(point.horizon.levels[-1].fit.sharpness) for point in points if point.horizon and shown]
    sharpness = math.exp(math.fsum(logs) / max(len(logs), 1))
    return CriticalBatchSize(
        value=value, low=min(low, value), high=max(high, value), basis=basis, sharpness=sharpness
    )


def _trajectory(run: ProbeRun) -> tuple[TrajectoryPoint, ...]:
    return tuple(
        TrajectoryPoint(
            step=point.step,
            loss=point.loss,
            noise_scale=_noise_scale(run, point),
            simple_noise_scale=point.analysis.simple_noise_scale if point.analysis else UNKNOWN,
            critical_batch_size=horizon_estimate(point.horizon) if point.horizon is not None else None,
        )
        for point in run.points
    )


def provenance(run: ProbeRun | SweepRun, spec: Spec, *, micro_batch_size: int, replicates: int) -> Provenance:
    """Where, when and with what a run was made."""
    return Provenance(
        bnoise=__version__,
        python=platform.python_version(),
        torch=version("torch"),
        device=run.device,
        dtype=run.dtype,
        seed=spec.config.probe.seed,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset_length=run.dataset_length,
        dataset_hash=run.dataset_hash,
        code=code_hashes(spec),
        data=data_hashes(spec),
        weights=weights_hash(spec),
        micro_batch_size=micro_batch_size,
        replicates=replicates,
        tokens_per_example=spec.config.training.tokens_per_example or run.findings.tokens_per_example,
        group=run.findings.group,
    )
