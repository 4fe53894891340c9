"""Outcomes of measurements as plain data, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bnoise_cli.errors import RunError
from bnoise_cli.records import BranchRun, HorizonRun, TrainingRun

if TYPE_CHECKING:
    from bnoise_cli.maths.analysis import Analysis, Design
    from bnoise_cli.maths.horizon import Level, StepsTo

#: What a probe is doing: looking for the range of batch sizes, or measuring.
ProbePhase = Literal["pilot", "replicates"]
#: What a sweep is doing; "probe" is the probe along its best run.
SweepPhase = Literal["warm-up", "goal", "training", "branch", "probe"]


#: Training from a positive loss to this part of it is as far as a horizon looks: noise matters more the lower the loss,
#: and further on the runs fit their examples to the last digit. Merely chosen.
_FAR = 0.1


class StopReason(StrEnum):
    """Why the replicates ended."""

    PRECISION = "precision"
    BUDGET = "budget"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a probe in progress."""

    kind: ClassVar[str] = "probe"
    phase: ProbePhase
    replicates: int
    analysis: Analysis | None
    #: The relative half-width of the interval at which the probe stops.
    precision: float
    seconds: float
    budget_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupProgress:
    """How far the training before a probed point has come."""

    kind: ClassVar[str] = "probe"
    step: int
    of: int
    #: The checkpoint that it begins with, if the probe has several.
    start: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonFound:
    """The result of short training runs from one start."""

    #: The config's learning rate, of which the rates of the runs are multiples.
    base_rate: float
    start_loss: float
    stands_still: bool
    levels: tuple[Level, ...]
    #: The fewest steps of each batch size to the last loss, at a learning rate at which no run diverged.
    batches: tuple[StepsTo, ...]
    runs: tuple[HorizonRun, ...]
    gradient_examples: int
    evaluation_examples: int
    seconds: float
    #: Steps of the largest batch that probe.horizon asks for; None if the curve decides.
    asked: int | None = None
    #: Why no loss of a level was reached although there was time, in words; None if nothing was in the way.
    obstacle: str | None = None
    #: Whether the budget in time ended runs, so that more time would have shown more.
    out_of_time: bool = False
    interrupted: bool = False
    failure: RunError | None = None

    @property
    def is_far(self) -> bool:
        """Whether the runs went as far as a horizon looks."""
        return is_far(self.start_loss, self.levels[-1].loss)


def is_far(start_loss: float, loss: float) -> bool:
    """Whether a horizon looks no further than to `loss`."""
    return loss <= lowest_loss(start_loss)


def before_doubling(levels: Sequence[Level]) -> Level | None:
    """The last level with at most half the steps of the last one; None if there is none."""
    return next((level for level in reversed(levels) if 2 * level.steps <= levels[-1].steps), None)


def lowest_loss(start_loss: float) -> float:
    """The loss to which a horizon looks, if it comes so far."""
    return _FAR * start_loss if start_loss > 0 else -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonProgress:
    """What a horizon in progress knows."""

    kind: ClassVar[str] = "probe"
    levels: tuple[Level, ...]
    batch_size: int
    step: int
    seconds: float
    budget_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The result of the probe of one point of training."""

    #: Training steps before the point, including those of the run that made the checkpoint.
    step: int
    #: Mean over evaluation examples.
    loss: float | None
    #: None: fewer than two replicates.
    analysis: Analysis | None
    design: Design | None
    replicates: int
    stop: StopReason
    failure: RunError | None
    seconds: float
    gradient_examples: int
    evaluation_examples: int
    micro_batch_size: int
    #: The micro-batch size before memory ran out; None if it did not.
    shortened_from: int | None
    horizon: HorizonFound | None = None
    #: Why there is no horizon, in words; None if there is one.
    no_horizon: str | None = None
    #: Why there is no one-step measurement, in words; None if there is one.
    no_one_step: str | None = None
    #: Differences of losses below this are rounding, in nats.
    rounding_floor: float | None = None
    #: Seconds of a one-step measurement that gives a rough answer; None unless the budget ended before there was any.
    enough_seconds: float | None = None
    #: The true value, if the model knows its own answer.
    exact_noise_scale: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossChange:
    """The mean loss of the same examples before and after the warm-up."""

    before: float
    after: float
    #: The standard error of the difference.
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFindings:
    """The findings of the checks before the probe."""

    #: Whether the same examples give another loss each time, because of dropout or augmentation.
    stochastic: bool
    #: The number of layers that normalise by the statistics of the batch.
    batch_norms: int
    #: The number of examples that go through the model together in the probe; more than 1 if their loss is not a mean.
    group: int
    #: |gradient of a batch − mean of the gradients of its halves| over the gradient's norm.
    mean_gap: float
    #: Whether that gap is rounding.
    is_mean: bool
    #: The number of examples kept of a stream; None: the dataset is not a stream.
    streamed: int | None = None
    #: What the loader's sampler draws, such as "200 of 4,000 examples"; None if it draws all examples alike.
    drawn: str | None = None
    #: The class of a loader's batch sampler that puts batches together in its own way.
    batch_sampler: str | None = None
    #: The batch size of the loader; None if the dataset came without one.
    loader_batch_size: int | None = None
    #: The share of the model's parameters that is not trained.
    frozen: float = 0.0
    #: Whether the loss is a mean with unequal weights.
    weighted: bool = False
    #: What an example is weighed by, such as "labels of `labels`"; None if the weights are equal or were not found.
    weighed_by: str | None = None
    #: The weight of an average example, in what `weighed_by` counts.
    by_tokens: float | None = None
    #: Why the loss of fewer examples than a device of the planned run takes cannot be computed; None if it can.
    refused: str | None = None
    #: Buffers that computing the loss changes, which were put back before every pass.
    held_buffers: tuple[str, ...] = ()
    #: The number of trainable parameters of the loss itself, which are not trained.
    loss_parameters: int = 0
    #: On average; None if the batches do not show it.
    tokens_per_example: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRun:
    """One call of the probe: its points of training and the facts around them."""

    points: tuple[Measurement, ...]
    findings: TaskFindings
    from_checkpoint: bool
    momentum: float
    weight_decay: float
    device: str
    dtype: str
    dataset_length: int
    dataset_hash: str | None
    warmup_seconds: float
    #: Also during the warm-up between two points.
    interrupted: bool
    failure: RunError | None
    #: The loss before and after the warm-up; None if there was none.
    warmup: LossChange | None = None
    #: The optimizer states in checkpoints that were not used: which, and why.
    unused_states: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """The plan of a probe with its estimated time and memory."""

    device: str
    parameters: int
    dataset_length: int
    micro_batch_size: int
    steps: tuple[int, ...]
    #: Forward and backward.
    seconds_per_example: float
    warmup_seconds: float
    #: The longest time that the measurement takes after the warm-up.
    budget_seconds: float
    #: In addition to a training step of the micro-batch.
    extra_bytes: int
    #: Of one micro-batch's gradient; None if the device cannot tell.
    peak_bytes: int | None
    #: In the order in which they are probed.
    checkpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepProgress:
    """How far a sweep has come."""

    kind: ClassVar[str] = "sweep"
    phase: SweepPhase
    step: int
    batch_size: int | None
    sizes_done: int
    sizes_planned: int
    runs: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """The runs of a sweep."""

    goal: float
    start_loss: float
    runs: tuple[TrainingRun, ...]
    #: Batch size → its best learning rate; None: no run arrived.
    chosen: dict[int, float | None]
    trajectory: tuple[dict[str, Any], ...]
    #: The horizon at the start: its curve as plain data, and the examples that it took. None if there is none.
    horizon: dict[str, Any] | None
    branches: tuple[BranchRun, ...]
    findings: TaskFindings
    complete: bool
    interrupted: bool
    failure: RunError | None
    device: str
    dtype: str
    dataset_length: int
    dataset_hash: str | None
    micro_batch_size: int
    evaluation_examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """The plan of a sweep with its estimated time."""

    device: str
    parameters: int
    dataset_length: int
    evaluation_examples: int
    start_loss: float
    #: None: what the planned batch size reaches in `steps` at its best learning rate.
    goal: float | None
    #: Only the first ones if the range is found on the way.
    batch_sizes: tuple[int, ...]
    runs: int
    #: The steps of the planned batch to the goal that the estimate assumes.
    steps: int
    #: Whether the planned batch was trained for `steps` steps and arrived at a named goal.
    arrived: bool
    seconds: float
    #: The number of examples of every branch; None if runs train to a goal.
    branch_examples: int | None = None
