"""The result of a sweep, and how it is made from the runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from bnoise_cli.maths.trajectory import trajectory_critical_batch_size
from bnoise_cli.records import (
    BatchOutcome,
    Cost,
    CriticalBatchSize,
    Estimate,
    HorizonPoint,
    Limits,
    Prediction,
    TrainingRun,
    TrajectoryPoint,
)
from bnoise_cli.results.probe import UNKNOWN, provenance
from bnoise_cli.results.result import Kind, Result
from bnoise_cli.results.sweep_doubts import sweep_doubts
from bnoise_cli.spec.load import Spec

if TYPE_CHECKING:
    from bnoise_cli.maths.steps_fit import StepsFit
    from bnoise_cli.measurement.outcome import SweepRun


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult(Result):
    """Everything one sweep found."""

    kind: Literal["sweep"] = "sweep"
    #: The loss that the runs were to reach.
    goal: float
    start_loss: float
    min_steps: Estimate
    min_examples: Estimate
    batches: tuple[BatchOutcome, ...]
    #: Root mean square of the residuals of log S.
    scatter: float | None
    predicted: Prediction | None
    runs: tuple[TrainingRun, ...]
    #: What short runs from the same start predict, to the loss that is nearest to the goal.
    predicted_by_horizon: HorizonPoint | None = None

    @property
    def best_rates(self) -> dict[int, float]:
        """Batch size → the learning rate that reached the goal in the fewest steps."""
        return {batch.batch_size: batch.learning_rate for batch in self.batches if batch.learning_rate}

    def planned_runs(self) -> list[TrainingRun]:
        """The runs at the planned batch size and learning rate."""
        size, rate = self.plan.training.batch_size, self.plan.learning_rate
        if rate is None:
            return []
        return [run for run in self.runs if run.batch_size == size and math.isclose(run.learning_rate, rate)]

    @property
    def planned_steps_ratio(self) -> float | None:
        steps = [run.steps for run in self.planned_runs() if run.steps is not None]
        if not steps or not self.min_steps.value:
            return None
        return math.exp(math.fsum(map(math.log, steps)) / len(steps)) / self.min_steps.value


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    names = ("warmup_steps", "goal", "steps") if settings.get("goal") == "auto" else ("warmup_steps", "goal")
    return {**{name: settings.get(name) for name in names}, "branch": None}


# Steps that scatter far around the law, or too few of them, leave no B_crit to judge by.
SWEEP = Kind(
    name="sweep", command="sweep", result=SweepResult, identity=_identity, disqualifying=("law", "goal_near")
)


def sweep_result(run: SweepRun, spec: Spec) -> SweepResult:
    """Put together everything one sweep found, before any advice."""
    from bnoise_cli.maths.steps_fit import fit_seeds

    best = {size: _best_runs(run, size) for size in run.chosen}
    arrived = [size for size, runs in best.items() if runs]
    fit = fit_seeds(arrived, [[r.steps for r in best[size] if r.steps is not None] for size in arrived])
    critical = _critical(fit)
    predicted = _prediction(run.trajectory, critical)
    fitted = {size: math.exp(fit.log_steps(size)) for size in arrived} if fit is not None else {}
    probes = [*run.trajectory, *([run.horizon] if run.horizon is not None else [])]
    batches = tuple(_batch(size, best[size], fitted.get(size), predicted, best) for size in run.chosen)
    return SweepResult(
        config=spec.resolved(),
        config_hash=SWEEP.hash(spec),
        provenance=provenance(run, spec, micro_batch_size=run.micro_batch_size, replicates=len(run.runs)),
        goal=run.goal,
        start_loss=run.start_loss,
        critical_batch_size=critical,
        min_steps=fit.min_steps if fit is not None else UNKNOWN,
        min_examples=fit.min_examples if fit is not None else UNKNOWN,
        batches=batches,
        scatter=fit.scatter if fit is not None else None,
        predicted=predicted,
        predicted_by_horizon=_nearest_to(run.goal, run.horizon),
        runs=run.runs,
        doubts=sweep_doubts(run, critical, fit, batches, predicted, spec.config),
        cost=Cost(
            seconds=round(math.fsum(r.seconds for r in run.runs), 3),
            gradient_examples=sum(r.examples for r in run.runs)
            + sum(part["gradient_examples"] for part in probes),
            evaluation_examples=run.evaluation_examples * sum(r.evaluations for r in run.runs)
            + sum(part["evaluation_examples"] for part in probes),
        ),
    )


def _best_runs(run: SweepRun, size: int) -> list[TrainingRun]:
    """The runs of every seed at the best learning rate of a batch size; none if none arrived."""
    rate = run.chosen[size]
    found = [r for r in run.runs if r.batch_size == size and r.learning_rate == rate and r.reached]
    return list({r.seed: r for r in found}.values())


def _critical(fit: StepsFit | None) -> CriticalBatchSize:
    if fit is None:
        return CriticalBatchSize(value=None, low=0.0, high=None, basis="sweep")
    found = fit.critical
    return CriticalBatchSize(
        value=found.value, low=found.low, high=found.high, basis="sweep", sharpness=fit.sharpness
    )


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
    """S(B) of the prediction. It predicts ratios of steps, which are scaled to the steps of the run that was probed."""
    law = predicted.critical_batch_size.known if predicted is not None else None
    if predicted is None or law is None:
        return None
    along = predicted.batch_size
    steps = [r.steps for r in best.get(along, []) if r.steps is not None]
    if not steps:
        return None
    return _mean(steps) * law.steps(size) / law.steps(along)


def _nearest_to(goal: float, horizon: dict[str, Any] | None) -> HorizonPoint | None:
    points = TypeAdapter(list[HorizonPoint]).validate_python(horizon["curve"]) if horizon else []
    return min(points, key=lambda point: abs(point.loss - goal), default=None)


def _prediction(trajectory: Sequence[dict[str, Any]], measured: Estimate) -> Prediction | None:
    """The mean noise scale of the resolved points, weighted by progress."""
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
    """The geometric mean, because the fit is made in logarithms."""
    return math.exp(math.fsum(map(math.log, steps)) / len(steps))
