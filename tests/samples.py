"""Shared pieces: what a probe found, made up, and a device whose step times are written down."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bnoise_cli.advice.advise import advise
from bnoise_cli.maths.analysis import Analysis, Design
from bnoise_cli.measurement.outcome import Measurement, ProbeRun, StopReason, TaskFindings
from bnoise_cli.measurement.task.user_code import OutOfMemoryError
from bnoise_cli.measurement.timing.throughput import TimedStep, measure_throughput
from bnoise_cli.records import (
    Cost,
    CriticalBatchSize,
    Doubt,
    Estimate,
    Fit,
    NoiseScale,
    Point,
    ProbeResult,
    Provenance,
    Quadratic,
    Throughput,
)
from bnoise_cli.spec.schema import Config

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
    max_improvement=Estimate(value=0.02, low=0.018, high=0.022),
    simple_noise_scale=Estimate(value=250.0, low=200.0, high=310.0),
    quadratic=Quadratic(curvature=0.5, noise=52.0, noise_scale=104.0, ratio=1.04),
    points=POINTS,
    fit=Fit(chi2=1.5, dof=2, r_squared=0.999, p_value=0.6),
    law_holds=True,
    slope=0.1,
    slope_error=0.01,
    slope_gap=0.5,
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
)
RUN = ProbeRun(
    points=(POINT,),
    findings=TaskFindings(loss=2.3, stochastic=False, batch_norms=0, group=1, mean_gap=1e-7, is_mean=True),
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
            "probe": {"warmup_steps": 100, "at_steps": None},
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
        critical_batch_size=CriticalBatchSize(value=100.0, low=90.0, high=112.0, basis="probe"),
        points=POINTS,
        fit=ANALYSIS.fit,
        trajectory=(),
        tradeoff=(),
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
    found: ProbeResult, world_size: int, *, exchange: float = 0.0, parallel: str = "ddp"
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
                value=found.value, low=found.low, high=found.high, basis="probe"
            ),
        )
    )
