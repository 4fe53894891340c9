"""Results as data: what one measurement found, and the JSON that holds it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 1
#: An interval whose limits differ by more than this factor cannot tell; merely chosen.
WIDEST_INTERVAL = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured quantity with its confidence interval, in the unit of `value`."""

    value: float | None  # None: the data do not resolve it
    low: float  # 0.0 where unbounded below
    high: float | None  # None where unbounded above
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScale(Estimate):
    """B_noise: the batch size at which one step is half as good as the best possible step."""

    unit: str = "examples"
    definition: str = "B_noise in ΔL_opt(B) = ΔL_max / (1 + B_noise/B), arXiv:1812.06162 eq. 2.7"
    exact: float | None = None  # where the task knows its own answer


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalBatchSize(Estimate):
    """The batch size that takes twice the fewest steps and twice the fewest examples."""

    basis: str  # "probe" | "trajectory" | "sweep"
    definition: str = "twice the fewest steps and twice the fewest examples, arXiv:1812.06162 eq. 2.11"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadratic:
    """The witness: ΔL(ε, B) = ε·a − ½ε²·(b + c/B), arXiv:1812.06162 eq. 2.5 and 2.8."""

    curvature: float  # b = GᵀPHPG
    noise: float  # c = tr(PHPΣ)
    noise_scale: float | None  # c/b; None where b is not positive
    ratio: float | None  # noise_scale over the fit's


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What the best step at one batch size gains, averaged over draws."""

    batch_size: int | None  # None: the gradient of the whole dataset
    improvement: float  # nats, or the loss's unit
    std_error: float
    step_size: float  # the learning rate of that best step
    fitted: float | None  # the law at this batch size
    gradient_error: float | None  # sqrt(B_simple/B), eq. 2.10
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well the law describes the points."""

    chi2: float | None  # Hotelling's T² of the residuals; None with too few replicates or points
    dof: int
    r_squared: float | None
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an interval makes of a figure; high is None where that is unbounded."""

    low: float
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryPoint:
    """One probed point of training."""

    step: int
    loss: float | None
    noise_scale: Estimate
    simple_noise_scale: Estimate
    batch_size: float | None = None  # of the schedule; None: there is none, as some noise scale is unresolved
    batch_size_limits: Limits | None = None  # of this point's noise scale, the exchange rate held


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What a batch size that follows the noise scale would take: B(s) = sqrt(r·B_noise(s)), M18 appendix D."""

    exchange_rate: float  # r, the examples that one step is worth: B_crit of the stretch
    gamma: float  # (S/S_min − 1)(E/E_min − 1), which is 1 for any fixed batch size
    steps_ratio: float  # steps over the fewest; at B_crit a fixed batch takes 2
    examples_ratio: float  # examples over the fewest


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """A training step at one micro-batch size of each device."""

    micro_batch_size: int
    seconds: float  # median; forward, backward and optimizer step, the examples at hand
    spread: float  # half the distance between the quartiles over the median
    loading_seconds: float  # reading these examples in one process; median
    peak_memory_bytes: int | None  # where the device can tell
    exchange_seconds: float = (
        0.0  # the part of `seconds` that waits for gradients and accumulation does not repeat
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What training steps take on this device or these together, and how large a micro-batch can be."""

    step_times: tuple[StepTime, ...]  # ascending micro-batch sizes
    optimizer_seconds: float  # the part of a step that accumulation does not repeat
    fixed_seconds: float  # t₀ in t = t₀ + t₁·m
    seconds_per_example: float  # t₁
    worst_misfit: float  # the largest relative distance of a measured time from that line
    largest_micro_batch_size: int
    limited_by: (
        str  # "memory": more does not fit | "failure" | "time" | "need": more was not tried, or has no use
    )
    memory_bytes: int | None  # what the device can give to training
    seconds: float  # what these timings took
    failure: str | None = None  # why a larger step failed
    world_size: int = 1  # devices that took each step together
    parallel: str | None = None  # "ddp" | "fsdp" where they are several


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeoffRow:
    """What training at one batch size costs on the planned devices; None where they were not timed."""

    batch_size: int
    steps_ratio: float  # steps over the fewest, 1 + B_crit/B
    examples_ratio: float  # examples over the fewest, 1 + B/B_crit
    time_efficiency: float  # the fewest steps over these: speed relative to the limit
    compute_efficiency: float  # the fewest examples over these
    steps_limits: Limits
    examples_limits: Limits
    micro_batch_size: int | None = None
    accumulation_steps: int | None = None
    step_seconds: float | None = None
    examples_per_second: float | None = None
    relative_time: float | None = None  # over the fastest batch size on these devices
    relative_time_limits: Limits | None = None
    relative_cost: float | None = None  # device time over the least, on these devices or fewer
    pareto: bool | None = None  # no other batch size takes both less time and fewer examples
    peak_memory_bytes: int | None = None  # of the micro-batch
    fits: bool | None = None  # in one micro-batch, without accumulation
    run_steps: float | None = None  # to where the planned run ends; None without a planned length
    run_seconds: float | None = None
    run_price: float | None = None  # in the currency of training.price_per_device_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A batch size to train with, how to split it, and why."""

    roles: tuple[str, ...]  # of "fastest", "cheapest", "balanced", "deadline", "max_compute_overhead"
    batch_size: int
    micro_batch_size: int
    accumulation_steps: int
    world_size: int
    learning_rate: float | None  # a starting point to re-tune; None where no rule is known
    learning_rate_rule: str
    reason: str
    row: TradeoffRow  # on `world_size` devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One reason to trust a result less."""

    code: str
    finding: str
    remedy: str
    about: str = "measurement"  # or "advice": made anew whenever the advice is


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the measurement spent, warm-up training apart."""

    seconds: float
    gradient_examples: int
    evaluation_examples: int  # forward passes, each step size of a line counted
    warmup_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where, when and with what a result was made."""

    bnoise: str
    python: str
    torch: str
    device: str
    dtype: str
    seed: int
    time: str  # UTC, ISO 8601
    dataset_length: int
    dataset_hash: str | None = None  # where the dataset offers one
    code: dict[str, str] = field(default_factory=dict)  # of the user's files that the config names: sha256
    weights: str | None = None  # sha256 of the ends of the checkpoint
    micro_batch_size: int | None = None
    replicates: int = 0
    group: int = 1  # examples that a device takes at once, where the loss is no mean over them
    tokens_per_example: float | None = None  # of the config, or as found; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """Everything one probe found; the fields of the JSON file, in its order."""

    config: dict[str, Any]
    config_hash: str
    provenance: Provenance
    noise_scale: NoiseScale
    max_improvement: Estimate
    simple_noise_scale: Estimate
    quadratic: Quadratic | None
    critical_batch_size: CriticalBatchSize
    points: tuple[Point, ...]
    fit: Fit
    trajectory: tuple[TrajectoryPoint, ...]
    tradeoff: tuple[TradeoffRow, ...]
    doubts: tuple[Doubt, ...]
    cost: Cost
    throughput: Throughput | None = None  # None: this device was not timed
    recommendation: Recommendation | None = None
    alternatives: tuple[Recommendation, ...] = ()
    step: int | None = None  # of training, where it was probed last; None: as its config says
    schedule: Schedule | None = None  # where several points were probed and every one is resolved
    kind: str = "probe"
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def resolved(self) -> bool:
        """Whether there is an answer to rely on."""
        return _resolved(self.critical_batch_size)

    def to_json(self) -> dict[str, Any]:
        """The result as plain data for `json.dumps`; what is not finite becomes null."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One run to the goal."""

    batch_size: int
    learning_rate: float
    seed: int
    steps: float | None  # interpolated at the crossing; None: it did not arrive
    examples: int  # spent
    evaluations: int  # of the loss
    seconds: float
    reached: bool
    outcome: str  # "reached" | "beaten" by a better rate | "diverged" | "unreached" in the allowed steps, or it stalled
    lowest_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """The fewest steps to the goal at one batch size, over learning rates."""

    batch_size: int
    learning_rate: float | None  # None: no rate arrived
    steps: float | None  # geometric mean over seeds
    steps_limits: Limits | None  # of the seeds
    examples: float | None
    fitted: float | None  # steps of the hyperbola
    predicted: float | None  # steps that the noise scale along training predicts
    loss: float | None = None  # at the end of a branch, the mean over seeds
    loss_limits: Limits | None = None  # of the seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the probe says of the same stretch of training."""

    critical_batch_size: CriticalBatchSize
    batch_size: int  # of the run along which it was probed
    learning_rate: float
    trajectory: tuple[TrajectoryPoint, ...]
    ratio: float | None  # measured B_crit over the predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """Everything one sweep found; the fields of the JSON file, in its order."""

    config: dict[str, Any]
    config_hash: str
    provenance: Provenance
    goal: float  # loss
    start_loss: float
    critical_batch_size: CriticalBatchSize
    min_steps: Estimate
    min_examples: Estimate
    batches: tuple[BatchOutcome, ...]
    scatter: float | None  # root mean square of the residuals of log S
    predicted: Prediction | None
    runs: tuple[TrainingRun, ...]
    tradeoff: tuple[TradeoffRow, ...]
    doubts: tuple[Doubt, ...]
    cost: Cost
    throughput: Throughput | None = None
    recommendation: Recommendation | None = None
    alternatives: tuple[Recommendation, ...] = ()
    kind: str = "sweep"
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def resolved(self) -> bool:
        """Whether there is an answer to rely on."""
        return _resolved(self.critical_batch_size)

    def to_json(self) -> dict[str, Any]:
        """The result as plain data for `json.dumps`; what is not finite becomes null."""
        return _to_json(self)


#: What a command stores.
Result = ProbeResult | SweepResult


def _resolved(critical: Estimate) -> bool:
    """A value, and limits within a factor of ten."""
    if critical.value is None or critical.high is None:
        return False
    return critical.high <= WIDEST_INTERVAL * critical.low


def _to_json(result: Result) -> dict[str, Any]:
    data: dict[str, Any] = _plain(dataclasses.asdict(result))
    first = {"schema_version": data.pop("schema_version"), "kind": data.pop("kind")}
    return first | data


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
