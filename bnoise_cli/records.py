"""The parts of results: what was measured, what is advised, and why to doubt it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

SCHEMA_VERSION = 1
#: An interval whose limits differ by more than this factor does not settle anything; merely chosen.
WIDEST_INTERVAL = 10.0

# The limits of these types are checked when a stored result is read, not when a measurement makes one.
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
#: A number of examples, devices or steps that cannot be zero.
Size = Annotated[int, Field(gt=0)]

#: What B_crit rests on: one point of training, several, runs of some steps from one start, or whole runs.
Basis = Literal["probe", "trajectory", "horizon", "sweep"]
#: How devices share the model.
Parallel = Literal["ddp", "fsdp"]
#: Why no larger micro-batch was timed: it does not fit, it failed, the time was over, or it has no use.
LimitedBy = Literal["memory", "failure", "time", "need"]
#: How a training run ended: at the goal, later than a better rate, beyond all bounds, or short of the goal.
RunEnd = Literal["reached", "beaten", "diverged", "unreached"]
#: Why a batch size is worth naming; the last two are the user's own limits.
Role = Literal["fastest", "cheapest", "balanced", "deadline", "max_compute_overhead"]
#: A doubt about the advice is made anew whenever the advice is.
Subject = Literal["measurement", "advice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured quantity with its confidence interval, in the unit of `value`."""

    #: None: the data do not resolve it.
    value: Positive | None
    #: 0.0 if there is no lower limit.
    low: NotNegative
    #: None if there is no upper limit.
    high: float | None
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95

    @property
    def relative_half_width(self) -> float:
        """Half the interval over the value; infinite if the interval is open."""
        if self.value is None or self.high is None:
            return math.inf
        return (self.high - self.low) / (2 * self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScale(Estimate):
    """B_noise: the batch size at which one step is half as good as the best possible step."""

    unit: str = "examples"
    definition: str = "B_noise in ΔL_opt(B) = ΔL_max / (1 + B_noise/B), arXiv:1812.06162 eq. 2.7"
    #: The true value, if the task knows its own answer.
    exact: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalBatchSize(Estimate):
    """The batch size that takes twice the fewest steps and twice the fewest examples."""

    basis: Basis
    definition: str = "twice the fewest steps and twice the fewest examples, arXiv:1812.06162 eq. 2.11"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadratic:
    """The witness: ΔL(ε, B) = ε·a − ½ε²·(b + c/B), arXiv:1812.06162 eq. 2.5 and 2.8."""

    #: b = GᵀPHPG.
    curvature: float
    #: c = tr(PHPΣ).
    noise: float
    #: c/b; None if b is not positive.
    noise_scale: float | None
    #: `noise_scale` over the fitted one.
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What the best step at one batch size gains, averaged over draws."""

    #: None: the gradient of the whole dataset.
    batch_size: Size | None
    #: In nats, or the loss's unit.
    improvement: float
    std_error: NotNegative
    #: The learning rate of that best step.
    step_size: float
    #: The improvement that the law gives at this batch size.
    fitted: float | None
    #: sqrt(B_simple/B), eq. 2.10.
    gradient_error: float | None
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well the law describes the points."""

    #: Hotelling's T² of the residuals; None with too few replicates or points.
    chi2: float | None
    dof: int
    r_squared: float | None
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The range of a figure over the interval that it depends on; `high` is None if there is no upper limit."""

    low: float
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonPoint:
    """The critical batch size of the training from the start of a horizon to one loss."""

    #: Steps that the largest batch takes to this loss at its best learning rate.
    steps: Size
    loss: float
    critical_batch_size: Estimate
    #: S_min and E_min of the law through the steps of all batch sizes.
    min_steps: Positive
    min_examples: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonRun:
    """The replicates of one batch size and learning rate."""

    batch_size: Size
    learning_rate: Positive
    replicates: Size
    #: Steps that were trained, and the mean loss after them; None if that is not finite.
    steps: int
    loss: float | None
    #: Steps to the last loss of the curve; None if these runs did not reach it.
    arrived: Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonBatch:
    """The fewest steps of one batch size to the last loss of the curve."""

    batch_size: Size
    learning_rate: Positive
    steps: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """Short training runs from the probed weights, and the critical batch size that they show."""

    start_loss: float
    #: The learning rate of the plan.
    planned_learning_rate: Positive
    #: Whether the last two doublings of the steps left the critical batch size where it was.
    stands_still: bool
    #: Examples that went forward to read losses, and examples that went forward and backward to train.
    evaluation_examples: int
    gradient_examples: int
    seconds: float
    #: Ascending steps.
    curve: Annotated[tuple[HorizonPoint, ...], Field(min_length=1)]
    #: Ascending batch sizes, each at its best learning rate.
    batches: tuple[HorizonBatch, ...]
    runs: tuple[HorizonRun, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryPoint:
    """One probed point of training."""

    step: int
    loss: float | None
    noise_scale: Estimate
    simple_noise_scale: Estimate
    #: The batch size that the schedule takes here; None if there is no schedule, because a noise scale is unresolved.
    batch_size: Positive | None = None
    #: Its range over the interval of this point's noise scale, with the exchange rate held.
    batch_size_limits: Limits | None = None
    #: B_crit that short training runs from this point show; None if there is no horizon here.
    critical_batch_size: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What a batch size that follows the noise scale would take: B(s) = sqrt(r·B_noise(s)), M18 appendix D."""

    #: r, the number of examples that one step is worth: B_crit of the stretch.
    exchange_rate: float
    #: (S/S_min − 1)(E/E_min − 1), which is 1 for any fixed batch size.
    gamma: Annotated[float, Field(gt=0, le=1)]
    #: Steps over the fewest; a fixed batch of B_crit takes 2.
    steps_ratio: Annotated[float, Field(gt=1, le=2)]
    #: Examples over the fewest.
    examples_ratio: Annotated[float, Field(gt=1, le=2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """A training step at one micro-batch size on each device."""

    micro_batch_size: Size
    #: Forward, backward and optimizer step, with the examples in memory: the median of the fast half of the visits.
    seconds: Positive
    #: Half the distance between the quartiles over the median.
    spread: NotNegative
    #: Median time of one process to read these examples.
    loading_seconds: float
    #: None if the device cannot tell.
    peak_memory_bytes: int | None
    #: The part of `seconds` that waits for other devices' gradients, which accumulation does not repeat.
    exchange_seconds: NotNegative = 0.0
    #: The 95% interval of `seconds` by the order of the visits; None in files that do not say.
    low_seconds: Positive | None = None
    high_seconds: Positive | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """The interval of `seconds`; of files that do not say, by the spread of the visits."""
        if self.low_seconds is None or self.high_seconds is None:
            return self.seconds / (1 + self.spread), self.seconds * (1 + self.spread)
        return self.low_seconds, self.high_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """The torch threads of a CPU that were measured with, because they are faster there than the usual number."""

    number: Size
    #: As torch would have taken them.
    usual: Size
    #: The time of a pass on the usual number of threads over the time on `number`.
    times_faster: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """The time of training steps on one device or several, and how large a micro-batch can be."""

    #: In ascending order of micro-batch size.
    step_times: tuple[StepTime, ...]
    #: The part of a step that accumulation does not repeat.
    optimizer_seconds: NotNegative
    #: t₀ in t = t₀ + t₁·m.
    fixed_seconds: NotNegative
    #: t₁.
    seconds_per_example: NotNegative
    #: The largest relative distance of a measured time from that line.
    worst_misfit: NotNegative
    largest_micro_batch_size: int
    limited_by: LimitedBy
    #: The memory that the device can give to training.
    memory_bytes: int | None
    #: The time that the timing itself took.
    seconds: float
    #: Why a larger step failed.
    failure: str | None = None
    #: The number of devices that took each step together.
    world_size: Size = 1
    #: None for one device.
    parallel: Parallel | None = None
    #: None if torch's own number of threads was used.
    threads: Threads | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeoffRow:
    """What training at one batch size costs on the planned devices; times are None if no step was timed."""

    batch_size: int
    #: Steps over the fewest, 1 + B_crit/B.
    steps_ratio: Positive
    #: Examples over the fewest, 1 + B/B_crit.
    examples_ratio: Positive
    #: The fewest steps over the steps at this batch size: the speed relative to its limit.
    time_efficiency: float
    #: The fewest examples over the examples at this batch size.
    compute_efficiency: float
    steps_limits: Limits
    examples_limits: Limits
    micro_batch_size: int | None = None
    accumulation_steps: int | None = None
    step_seconds: float | None = None
    examples_per_second: float | None = None
    #: Steps to the last loss of the horizon over S_min, and the best learning rate; None if this size was not trained.
    measured_steps_ratio: float | None = None
    learning_rate: float | None = None
    #: Run time over that of the fastest batch size on these devices.
    relative_time: Positive | None = None
    relative_time_limits: Limits | None = None
    #: Device time over the least, on these devices or fewer.
    relative_cost: Positive | None = None
    #: Whether no other batch size takes both less time and fewer examples.
    pareto: bool | None = None
    #: Peak memory of a step on one micro-batch.
    peak_memory_bytes: int | None = None
    #: Whether the batch is one micro-batch, without accumulation.
    fits: bool | None = None
    #: Steps until the run gets as far as the planned one; None if the plan has no length.
    run_steps: float | None = None
    run_seconds: float | None = None
    #: In the currency of training.price_per_device_hour.
    run_price: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSizes:
    """A range of batch sizes."""

    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A batch size to train with, how to split it, and why."""

    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    batch_size: Size
    micro_batch_size: int
    accumulation_steps: int
    world_size: int
    #: A starting point to re-tune; None if no rule is known.
    learning_rate: float | None
    learning_rate_rule: str
    reason: str
    #: On `world_size` devices.
    row: TradeoffRow
    #: The batch sizes that take the same time within 3%; None if the times are not known well enough.
    same_time: BatchSizes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One reason to trust a result less."""

    code: str
    finding: str
    remedy: str
    about: Subject = "measurement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the measurement spent; the training before it is counted apart."""

    seconds: float
    gradient_examples: int
    #: Forward passes; every step size of a line counts.
    evaluation_examples: int
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
    #: UTC, ISO 8601.
    time: str
    dataset_length: int
    #: None if the dataset offers no hash.
    dataset_hash: str | None = None
    #: sha256 of each of the user's files that the config names.
    code: dict[str, str] = field(default_factory=dict)
    #: sha256 of both ends of the checkpoint.
    weights: str | None = None
    micro_batch_size: int | None = None
    replicates: int = 0
    #: The number of examples that a device takes at once, if the loss is not a mean over them.
    group: Size = 1
    #: As the config says, or as found; None: not known.
    tokens_per_example: Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One run to the goal."""

    batch_size: int
    learning_rate: float
    seed: int
    #: Interpolated at the crossing; None: the run did not arrive.
    steps: float | None
    #: The number of examples that it was trained on.
    examples: int
    #: The number of times that its loss was evaluated.
    evaluations: int
    seconds: float
    reached: bool
    outcome: RunEnd
    lowest_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchRun:
    """One branch: a run of a given number of examples."""

    batch_size: Size
    learning_rate: Positive
    seed: int
    steps: float
    examples: int
    #: The number of times that its loss was evaluated.
    evaluations: int
    seconds: float
    #: Smoothed over the last part; None: the branch diverged.
    loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """The fewest steps to the goal at one batch size, over learning rates."""

    batch_size: Size
    #: None: no rate arrived.
    learning_rate: Positive | None
    #: Geometric mean over seeds.
    steps: Positive | None
    #: The range of the seeds.
    steps_limits: Limits | None
    examples: float | None
    #: The steps that the fitted hyperbola gives.
    fitted: Positive | None
    #: The steps that the noise scale along training predicts.
    predicted: Positive | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the probe says of the same stretch of training."""

    critical_batch_size: CriticalBatchSize
    #: Of the run along which it was probed.
    batch_size: int
    learning_rate: float
    trajectory: tuple[TrajectoryPoint, ...]
    #: The measured B_crit over the predicted one.
    ratio: float | None
