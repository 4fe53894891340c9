"""A finished sweep to the result that is printed and stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnoise_cli.maths.hyperbola import Hyperbola, fit_hyperbola
from bnoise_cli.maths.tradeoff import steps_ratio
from bnoise_cli.maths.trajectory import trajectory_critical_batch_size
from bnoise_cli.measurement.outcome import SweepRun
from bnoise_cli.records import (
    BatchOutcome,
    Cost,
    CriticalBatchSize,
    Estimate,
    Limits,
    Prediction,
    SweepResult,
    TrainingRun,
    TrajectoryPoint,
)
from bnoise_cli.results.branch import branch_critical, branch_outcomes
from bnoise_cli.results.probe import UNKNOWN, provenance
from bnoise_cli.results.sweep_doubts import branch_doubts, sweep_doubts
from bnoise_cli.spec.identity import measured_hash
from bnoise_cli.spec.load import Spec
from bnoise_cli.spec.schema import Branch


def sweep_result(run: SweepRun, spec: Spec) -> SweepResult:
    """Put together everything one sweep found, before any advice."""
    if (branch := spec.config.sweep.branch) is not None:
        return _branch_result(run, branch, spec)
    best = {size: _best_runs(run, size) for size in run.chosen}
    arrived = [size for size, runs in best.items() if runs]
    fit = fit_hyperbola(arrived, [[r.steps for r in best[size] if r.steps is not None] for size in arrived])
    critical = _critical(fit)
    predicted = _prediction(run.trajectory, critical)
    fitted = dict(zip(arrived, fit.fitted, strict=True)) if fit is not None else {}
    batches = tuple(_batch(size, best[size], fitted.get(size), predicted, best) for size in run.chosen)
    return SweepResult(
        config=spec.resolved(),
        config_hash=measured_hash(spec, "sweep"),
        provenance=provenance(run, spec, micro_batch_size=run.micro_batch_size, replicates=len(run.runs)),
        goal=run.goal,
        start_loss=run.start_loss,
        critical_batch_size=critical,
        min_steps=fit.min_steps if fit is not None else UNKNOWN,
        min_examples=fit.min_examples if fit is not None else UNKNOWN,
        batches=batches,
        scatter=fit.scatter if fit is not None else None,
        predicted=predicted,
        runs=run.runs,
        tradeoff=(),
        doubts=sweep_doubts(run, critical, fit, batches, predicted, spec.config),
        cost=Cost(
            seconds=round(math.fsum(r.seconds for r in run.runs), 3),
            gradient_examples=sum(r.examples for r in run.runs)
            + sum(point["gradient_examples"] for point in run.trajectory),
            evaluation_examples=run.evaluation_examples * sum(r.evaluations for r in run.runs)
            + sum(point["evaluation_examples"] for point in run.trajectory),
        ),
    )


def _branch_result(run: SweepRun, branch: Branch, spec: Spec) -> SweepResult:
    batches = branch_outcomes(run.branches)
    critical = branch_critical(run.branches, branch.tolerance)
    base = batches[0].loss
    return SweepResult(
        config=spec.resolved(),
        config_hash=measured_hash(spec, "sweep"),
        provenance=provenance(run, spec, micro_batch_size=run.micro_batch_size, replicates=len(run.branches)),
        goal=base + branch.tolerance if base is not None else run.start_loss,
        start_loss=run.start_loss,
        critical_batch_size=critical,
        min_steps=UNKNOWN,
        min_examples=UNKNOWN,
        batches=batches,
        scatter=None,
        predicted=None,
        runs=tuple(
            TrainingRun(
                batch_size=end.batch_size,
                learning_rate=end.learning_rate,
                seed=end.seed,
                steps=float(end.taken),
                examples=end.taken * end.batch_size,
                evaluations=end.evaluations,
                seconds=end.seconds,
                reached=end.loss is not None,
                outcome="diverged" if end.loss is None else "branch",
                lowest_loss=end.loss,
            )
            for end in run.branches
        ),
        tradeoff=(),
        doubts=branch_doubts(run, critical, batches, spec.config),
        cost=Cost(
            seconds=round(math.fsum(end.seconds for end in run.branches), 3),
            gradient_examples=sum(end.taken * end.batch_size for end in run.branches),
            evaluation_examples=run.evaluation_examples * sum(end.evaluations for end in run.branches),
        ),
    )


def _best_runs(run: SweepRun, size: int) -> list[TrainingRun]:
    """The runs of every seed at the best learning rate of a batch size; none where nothing arrived."""
    rate = run.chosen[size]
    found = [r for r in run.runs if r.batch_size == size and r.learning_rate == rate and r.reached]
    return list({r.seed: r for r in found}.values())


def _critical(fit: Hyperbola | None) -> CriticalBatchSize:
    if fit is None:
        return CriticalBatchSize(value=None, low=0.0, high=None, basis="sweep")
    found = fit.critical
    return CriticalBatchSize(value=found.value, low=found.low, high=found.high, basis="sweep")


def _batch(
    size: int,
    runs: Sequence[TrainingRun],
    fitted: float | None,
    predicted: Prediction | None,
    best: dict[int, list[TrainingRun]],
) -> BatchOutcome:
    steps = [r.steps for r in runs if r.steps is not None]
    mean = _mean(steps) if steps else None
    return BatchOutcome(
        batch_size=size,
        learning_rate=runs[0].learning_rate if runs else None,
        steps=mean,
        steps_limits=Limits(low=min(steps), high=max(steps)) if steps else None,
        examples=size * mean if mean is not None else None,
        fitted=fitted,
        predicted=_predicted_steps(size, predicted, best),
    )


def _predicted_steps(
    size: int, predicted: Prediction | None, best: dict[int, list[TrainingRun]]
) -> float | None:
    """S(B) of the prediction, which knows ratios only: right by definition at the batch size of its run."""
    if predicted is None or predicted.critical_batch_size.value is None:
        return None
    critical, along = predicted.critical_batch_size.value, predicted.batch_size
    steps = [r.steps for r in best.get(along, []) if r.steps is not None]
    if not steps:
        return None
    return _mean(steps) * steps_ratio(size, critical) / steps_ratio(along, critical)


def _prediction(trajectory: Sequence[dict[str, Any]], measured: Estimate) -> Prediction | None:
    """The progress-weighted noise scale of the points that could tell one."""
    if not trajectory:
        return None
    batch_size = trajectory[0]["batch_size"]
    told = [
        point for point in trajectory if point["noise_scale"] and point["noise_scale"]["value"] is not None
    ]
    critical = CriticalBatchSize(value=None, low=0.0, high=None, basis="trajectory")
    if len(told) >= 2:
        steps = [point["step"] for point in told]

        def weighted(which: str) -> float:
            scales = [point["noise_scale"][which] for point in told]
            return trajectory_critical_batch_size(scales, steps, batch_size)

        critical = CriticalBatchSize(
            value=weighted("value"), low=weighted("low"), high=weighted("high"), basis="trajectory"
        )
    known = measured.value is not None and critical.value is not None
    return Prediction(
        critical_batch_size=critical,
        batch_size=batch_size,
        learning_rate=trajectory[0]["learning_rate"],
        trajectory=tuple(
            TrajectoryPoint(
                step=point["step"],
                loss=point["loss"],
                noise_scale=_estimate(point["noise_scale"]),
                simple_noise_scale=_estimate(point["simple_noise_scale"]),
            )
            for point in trajectory
        ),
        ratio=measured.value / critical.value if known and measured.value and critical.value else None,
    )


def _estimate(data: dict[str, Any] | None) -> Estimate:
    return UNKNOWN if data is None else Estimate(**data)


def _mean(steps: Sequence[float]) -> float:
    """Geometric, as the fit takes it."""
    return math.exp(math.fsum(map(math.log, steps)) / len(steps))
