"""What a measurement hands to the advice: data, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bnoise_cli.errors import RunError
from bnoise_cli.maths.analysis import Analysis, Design
from bnoise_cli.records import TrainingRun


class StopReason(StrEnum):
    """Why the replicates ended."""

    PRECISION = "precision"
    BUDGET = "budget"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a probe in progress knows."""

    phase: str
    replicates: int
    analysis: Analysis | None
    seconds: float
    budget_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupProgress:
    """How far the training before a probed point has come."""

    step: int
    of: int
    start: str | None = None  # the one of several checkpoints that it begins with


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What the probe of one point of training found."""

    step: int  # training steps taken before, those of the checkpoint's own run counted
    loss: float | None  # mean over evaluation examples
    analysis: Analysis | None  # None: fewer than two replicates
    design: Design | None
    replicates: int
    stop: StopReason
    failure: RunError | None
    seconds: float
    gradient_examples: int
    evaluation_examples: int
    micro_batch_size: int
    shortened_from: int | None  # micro-batch size before memory ran out
    rounding_floor: float | None = None  # differences of losses below this say nothing, in nats
    exact_noise_scale: float | None = None  # where the model knows its own answer


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFindings:
    """What the checks before the probe found."""

    loss: float  # of a few examples, before the warm-up
    stochastic: bool  # the loss of given examples depends on random masks, or examples on augmentation
    batch_norms: int  # layers that normalise by the statistics of the batch
    group: int  # examples that go through the model together in the probe, of which the loss is no mean
    mean_gap: float  # |gradient of a batch − mean of its halves'| over its norm
    is_mean: bool  # whether that gap is rounding
    streamed: int | None = None  # examples kept of a stream; None: the dataset is no stream
    frozen: float = 0.0  # the part of the model's parameters that is not trained
    by_tokens: float | None = (
        None  # tokens that count in an average example, where the loss is a mean of them
    )
    loss_parameters: int = 0  # trainable ones of the loss itself, which are held
    tokens_per_example: float | None = None  # on average, where the batches show it


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
    interrupted: bool  # also in the warm-up between two points
    failure: RunError | None
    unused_states: tuple[str, ...] = ()  # of optimizers in checkpoints: which, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """The plan of a probe with its estimated time and memory."""

    device: str
    parameters: int
    dataset_length: int
    micro_batch_size: int
    steps: tuple[int, ...]
    seconds_per_example: float  # forward and backward
    warmup_seconds: float
    budget_seconds: float  # the most the measurement takes after the warm-up
    extra_bytes: int  # beside a training step of the micro-batch
    peak_bytes: int | None  # of one micro-batch's gradient, where the device can tell
    checkpoints: tuple[str, ...] = ()  # in the order in which they are probed


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepProgress:
    """How far a sweep has come."""

    phase: str
    step: int
    batch_size: int | None
    sizes_done: int
    sizes_planned: int
    runs: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchEnd:
    """Where one branch of a given number of examples arrived."""

    batch_size: int
    learning_rate: float
    seed: int
    loss: float | None  # smoothed over the last part; None: it diverged
    taken: int  # training steps
    evaluations: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """What the runs of a sweep found."""

    goal: float
    start_loss: float
    runs: tuple[TrainingRun, ...]
    chosen: dict[int, float | None]  # batch size → its best learning rate; None: no run arrived
    trajectory: tuple[dict[str, Any], ...]
    branches: tuple[BranchEnd, ...]
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
    """What a sweep would do, with its estimated time."""

    device: str
    parameters: int
    dataset_length: int
    evaluation_examples: int
    start_loss: float
    goal: float | None  # None: where the planned run is after `steps`
    batch_sizes: tuple[int, ...]  # the first ones, where the range is found on the way
    runs: int
    steps: int  # of the planned run to the goal, taken for the estimate
    seconds: float
