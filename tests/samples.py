"""Shared pieces: what a probe or a sweep found, made up, and a device whose step times are written down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnoise_cli.advice.advise import advise
from bnoise_cli.maths.analysis import Analysis, Design
from bnoise_cli.maths.horizon import Level, StepsTo
from bnoise_cli.maths.steps_fit import StepsFit
from bnoise_cli.measurement.outcome import (
    HorizonFound,
    Measurement,
    ProbeRun,
    StopReason,
    SweepRun,
    TaskFindings,
)
from bnoise_cli.measurement.task.user_code import OutOfMemoryError
from bnoise_cli.measurement.timing.throughput import TimedStep, measure_throughput
from bnoise_cli.records import (
    BatchOutcome,
    BranchRun,
    Cost,
    CriticalBatchSize,
    Doubt,
    Estimate,
    Fit,
    HorizonRun,
    Limits,
    NoiseScale,
    Parallel,
    Point,
    Provenance,
    Quadratic,
    Recommendation,
    StepTime,
    Throughput,
    TradeoffRow,
    TrainingRun,
)
from bnoise_cli.results.horizon import horizon_record
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.probe import ProbeResult
from bnoise_cli.results.result import Result
from bnoise_cli.results.sweep import SweepResult
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.schema import Config
from bnoise_cli.storage import write_json

GOOD = Estimate(value=100.0, low=90.0, high=112.0)
OPEN = Estimate(value=None, low=40.0, high=None)

POINTS = tuple(
    Point(
        batch_size=B,
        improvement=0.02 / (1 + 100 / B),
        std_error=0.001 / (1 + 100 / B),
        step_size=0.3 / (1 + 100 / B),
        fitted=0.0201 / (1 + 100 / B),
        gradient_error=(250 / B) ** 0.5,
        draws=40,
    )
    for B in (8, 32, 128, 512)
)

ANALYSIS = Analysis(
    noise_scale=GOOD,
    half_width_by_chance=0.11,
    max_improvement=Estimate(value=0.02, low=0.018, high=0.022),
    simple_noise_scale=Estimate(value=250.0, low=200.0, high=310.0),
    quadratic=Quadratic(curvature=0.5, noise=52.0, noise_scale=104.0, ratio=1.04),
    points=POINTS,
    fit=Fit(chi2=1.5, dof=2, r_squared=0.999, p_value=0.6),
    law_holds=True,
    slope=0.1,
    slope_error=0.01,
    slope_gap=None,
    beyond_at=(),
    outgrown_at=(),
    fitted_curvatures=np.ones(4),
    rough_noise_scale=100.0,
)
DESIGN = Design(batch_sizes=np.array([8.0, 32, 128, 512]), scales=np.ones(4), blocks=np.array([16, 6, 1, 0]))
POINT = Measurement(
    step=100,
    loss=1.5,
    analysis=ANALYSIS,
    design=DESIGN,
    replicates=40,
    stop=StopReason.PRECISION,
    failure=None,
    seconds=3.2,
    gradient_examples=20_000,
    evaluation_examples=60_000,
    micro_batch_size=64,
    shortened_from=None,
    no_horizon="probe.horizon is off",
)


def level(steps: int, critical: float, loss: float) -> Level:
    """A level of a horizon whose batch sizes 8, 32, 128 and 512 follow the law with S_min = 0.9 K."""
    fewest, examples = 0.9 * steps, 0.9 * steps * critical
    fit = StepsFit(
        critical=Estimate(value=critical, low=critical / 1.25, high=critical * 1.25),
        min_steps=Estimate(value=fewest, low=fewest / 1.1, high=fewest * 1.1),
        min_examples=Estimate(value=examples, low=examples / 1.1, high=examples * 1.1),
        log_critical=math.log(critical),
        log_error=math.log(1.25),
        log_min_steps=math.log(fewest),
        sharpness=1.0,
        scatter=0.0,
    )
    arrivals = tuple(
        StepsTo(size, math.log(0.9 * steps * (1 + critical / size)), rate, True, 0.001, 4)
        for size, rate in ((8, -1.0), (32, 0.0), (128, 1.0), (512, 1.5))
    )
    return Level(steps=steps, loss=loss, fit=fit, arrivals=arrivals)


HORIZON = HorizonFound(
    base_rate=0.2,
    start_loss=0.41,
    stands_still=True,
    levels=(level(8, 50.0, 0.33), level(16, 44.0, 0.28), level(32, 42.0, 0.2)),
    batches=level(32, 42.0, 0.2).arrivals,
    runs=tuple(
        HorizonRun(
            batch_size=size, learning_rate=rate, replicates=4, steps=steps, loss=0.19, arrived=0.7 * steps
        )
        for size, rate, steps in ((64, 0.2, 160), (64, 0.56, 80), (128, 0.4, 60), (512, 0.57, 44))
    ),
    gradient_examples=600_000,
    evaluation_examples=900_000,
    seconds=20.0,
)
RUN = ProbeRun(
    points=(POINT,),
    findings=TaskFindings(stochastic=False, batch_norms=0, group=1, mean_gap=1e-7, is_mean=True),
    from_checkpoint=False,
    momentum=0.0,
    weight_decay=0.0,
    device="cpu",
    dtype="float32",
    dataset_length=50_000,
    dataset_hash=None,
    warmup_seconds=0.5,
    interrupted=False,
    failure=None,
)
CONFIG = Config.model_validate(
    {"version": 1, "model": {}, "dataset": {}, "optimizer": {}, "training": {"batch_size": 64}}
)


def result(**changes: Any) -> ProbeResult:
    """What a probe found, not yet advised."""
    base = ProbeResult(
        config={
            "training": {"batch_size": 64, "world_size": 1},
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.2},
        },
        config_hash="0" * 64,
        provenance=Provenance(
            bnoise="0.1.0", python="3.11.7", torch="2.13.0", device="cpu", dtype="float32", seed=0,
            time="2026-01-01T00:00:00+00:00", dataset_length=50_000, micro_batch_size=64, replicates=40,
        ),
        noise_scale=NoiseScale(value=100.0, low=90.0, high=112.0),
        max_improvement=ANALYSIS.max_improvement,
        simple_noise_scale=ANALYSIS.simple_noise_scale,
        quadratic=ANALYSIS.quadratic,
        critical_batch_size=CriticalBatchSize(value=100.0, low=90.0, high=112.0, basis="horizon"),
        points=POINTS,
        fit=ANALYSIS.fit,
        trajectory=(),
        step=100,
        doubts=(Doubt(code="momentum", finding="measured without it", remedy="Nothing to do."),),
        cost=Cost(seconds=3.2, gradient_examples=20_000, evaluation_examples=60_000, warmup_seconds=0.5),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


class Device:
    """Steps of t₀ + t₁·m seconds, and room for so many examples."""

    def __init__(
        self,
        fixed: float = 3e-3,
        per_example: float = 1e-4,
        *,
        optimizer: float = 1e-3,
        room: int = 1 << 30,
        tells_memory: bool = False,
        loading: float = 0.0,
    ) -> None:
        self.fixed, self.per_example, self.optimizer = fixed, per_example, optimizer
        self.room, self.loading = room, loading
        self.tells_memory = tells_memory
        self.memory_bytes = 1000 * room + 50_000 if tells_memory else None
        self.taken: list[int] = []

    def step(self, micro_batch_size: int) -> TimedStep:
        self.taken.append(micro_batch_size)
        if micro_batch_size > self.room:
            raise OutOfMemoryError
        return TimedStep(
            seconds=self.fixed + self.per_example * micro_batch_size,
            optimizer_seconds=self.optimizer,
            loading_seconds=self.loading * micro_batch_size,
            peak_memory_bytes=50_000 + 1000 * micro_batch_size if self.tells_memory else None,
        )


def timed(device: Device | None = None, most: int = 1 << 14) -> Throughput:
    """All that `device` can be found to do."""
    return measure_throughput(device or Device(), most=most, budget_seconds=1e9)


def together(
    found: ProbeResult, world_size: int, *, exchange: float = 0.0, parallel: Parallel = "ddp"
) -> ProbeResult:
    """The same advised result, as if so many devices had taken its steps and waited so long for one another.

    Args:
        exchange: seconds that every step takes in addition.
    """
    alone = found.throughput
    assert alone is not None
    steps = tuple(
        dataclasses.replace(
            step,
            seconds=step.seconds + exchange,
            exchange_seconds=exchange if parallel == "ddp" else 0.0,
        )
        for step in alone.step_times
    )
    return advise(
        dataclasses.replace(
            found,
            throughput=dataclasses.replace(
                alone,
                step_times=steps,
                fixed_seconds=alone.fixed_seconds + exchange,
                world_size=world_size,
                parallel=parallel,
            ),
        )
    )


def plan(critical: Estimate | None = None, device: Device | None = None, **config: Any) -> ProbeResult:
    """An advised result; `config` has entries of `training` and `advice`."""
    base = result()
    limits = ("deadline", "max_compute_overhead")
    training = {k: v for k, v in config.items() if k not in limits}
    wishes = {k: v for k, v in config.items() if k in limits}
    found = critical or base.critical_batch_size
    settings = {**base.config, "training": {**base.config["training"], **training}, "advice": wishes}
    return advise(
        dataclasses.replace(
            base,
            config=settings,
            throughput=timed(device),
            critical_batch_size=CriticalBatchSize(
                value=found.value, low=found.low, high=found.high, basis="horizon"
            ),
        )
    )


def ahead(horizon: HorizonFound = HORIZON) -> ProbeResult:
    """An advised result with a horizon whose batch sizes follow the law of B_crit 42."""
    found = plan(Estimate(value=42.0, low=34.0, high=52.0))
    return advise(dataclasses.replace(found, horizon=horizon_record(horizon)))


def training_run(batch_size: int, steps: float | None, seed: int = 0, **changes: Any) -> TrainingRun:
    base = TrainingRun(
        batch_size=batch_size, learning_rate=0.1, seed=seed, steps=steps, examples=100 * batch_size, evaluations=20,
        seconds=1.0, reached=steps is not None, outcome="unreached" if steps is None else "reached", lowest_loss=0.3,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


SIZES = (5, 10, 20, 40, 80)
GOOD_STEPS = {size: 100 * (1 + 20 / size) for size in SIZES}


def sweep_run(steps: Mapping[int, float | None], **changes: Any) -> SweepRun:
    """Three seeds at every batch size, 2% apart."""
    base = SweepRun(
        goal=0.4,
        start_loss=2.3,
        runs=tuple(
            training_run(size, None if value is None else value * (1 + 0.02 * seed), seed)
            for size, value in steps.items()
            for seed in (-1, 0, 1)
        ),
        chosen={size: None if value is None else 0.1 for size, value in steps.items()},
        trajectory=along_a_run(20.0),
        horizon=None,
        branches=(),
        findings=RUN.findings,
        complete=True,
        interrupted=False,
        failure=None,
        device="cpu",
        dtype="float32",
        dataset_length=50_000,
        dataset_hash=None,
        micro_batch_size=64,
        evaluation_examples=256,
    )
    return dataclasses.replace(base, **changes)


#: Two seeds at three batch sizes; the largest loses.
BRANCHES = tuple(
    BranchRun(
        batch_size=size, learning_rate=0.1, seed=seed, loss=loss, steps=float(2000 // size),
        examples=2000 // size * size, evaluations=3, seconds=0.1,
    )
    for size, losses in ((8, (1.0, 1.002)), (16, (1.003, 1.001)), (32, (1.2, 1.1)))
    for seed, loss in enumerate(losses)
)  # fmt: skip


def along_a_run(noise_scale: float | None) -> tuple[dict[str, Any], ...]:
    told = None if noise_scale is None else {
        "value": noise_scale, "low": 0.9 * noise_scale, "high": 1.1 * noise_scale, "confidence": 0.95}  # fmt: skip
    return tuple(
        {"step": step, "loss": 1.0, "noise_scale": told, "simple_noise_scale": told, "gradient_examples": 1000,
         "evaluation_examples": 1000, "batch_size": 20, "learning_rate": 0.1}
        for step in (5, 50, 100, 150, 190)
    )  # fmt: skip


# A result whose every advised number is written down.
ADVICE = Recommendation(
    roles=("balanced",),
    batch_size=96,
    micro_batch_size=8,
    accumulation_steps=4,
    world_size=3,
    learning_rate=3e-05,  # which YAML reads as a string unless it is written 3.0e-05
    learning_rate_rule="from the planned 0.0001 at 64, proportional to 1/(1 + B_crit/B)",
    reason="The nearest usual size to 100.",
    row=TradeoffRow(
        batch_size=96,
        steps_ratio=2.04,
        examples_ratio=1.96,
        time_efficiency=0.49,
        compute_efficiency=0.51,
        steps_limits=Limits(low=1.9, high=2.2),
        examples_limits=Limits(low=1.8, high=2.1),
        run_steps=1000.2,
    ),
)
ADVISED = ProbeResult(
    config={
        "model": {"_target_": "my.Model", "widths": [64, 10]},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-4},
        "training": {"batch_size": 64, "steps": None},
        "probe": {"precision": 0.15},
    },
    config_hash="0123456789abcdef" * 4,
    provenance=Provenance(
        bnoise="0.1.0", python="3.11.7", torch="2.13.0", device="cpu", dtype="float32", seed=0,
        time="2026-01-01T00:00:00+00:00", dataset_length=50_000,
    ),
    noise_scale=NoiseScale(value=100.0, low=90.0, high=112.0),
    max_improvement=Estimate(value=0.02, low=0.018, high=0.022),
    simple_noise_scale=Estimate(value=None, low=200.0, high=None),
    quadratic=None,
    critical_batch_size=CriticalBatchSize(value=100.0, low=90.0, high=112.0, basis="horizon"),
    points=tuple(
        Point(
            batch_size=B, improvement=gain, std_error=1e-4, step_size=0.1, fitted=fitted, gradient_error=None, draws=9
        )
        for B, gain, fitted in ((8, 0.001, 0.0015), (64, 0.008, None), (None, 0.02, 0.02))
    ),
    fit=Fit(chi2=None, dof=1, r_squared=None, p_value=None),
    trajectory=(),
    tradeoff=(),
    doubts=(Doubt(code="momentum", finding="measured without it", remedy="Nothing to do."),),
    cost=Cost(seconds=3.2, gradient_examples=20_000, evaluation_examples=60_000),
    throughput=Throughput(
        step_times=(
            StepTime(micro_batch_size=8, seconds=0.01, spread=0.02, loading_seconds=1e-3, peak_memory_bytes=None),
        ),
        optimizer_seconds=0.001, fixed_seconds=0.002, seconds_per_example=0.001, worst_misfit=0.05,
        largest_micro_batch_size=8, limited_by="memory", memory_bytes=None, seconds=1.0,
    ),
    recommendation=ADVICE,
)  # fmt: skip


def store(config: str, name: str | None = None, kind: str = "probe", **changes: Any) -> Path:
    """A made-up result of a config, where the program would keep it."""
    spec = load_spec(Path(config), at_hand=False)
    made: Result = result(config=spec.resolved(), config_hash=KINDS[kind].hash(spec), doubts=())
    if kind == "sweep":
        fields = {field.name for field in dataclasses.fields(SweepResult)} & {
            field.name for field in dataclasses.fields(type(made))
        }
        shared = {name: getattr(made, name) for name in fields - {"kind"}}
        some = Estimate(value=100.0, low=90.0, high=110.0)
        batch = BatchOutcome(
            batch_size=64, learning_rate=0.1, steps=100.0, steps_limits=Limits(low=90.0, high=110.0),
            examples=6400.0, fitted=100.0, predicted=None,
        )  # fmt: skip
        made = SweepResult(
            **shared, goal=0.5, start_loss=2.0, min_steps=some, min_examples=some, batches=(batch,),
            scatter=0.01, predicted=None, runs=(),
        )  # fmt: skip
    made = dataclasses.replace(made, **changes)
    path = Path(name or f".bnoise/{Path(config).stem}.{kind}.json")
    write_json(path, made.to_json())
    return path
