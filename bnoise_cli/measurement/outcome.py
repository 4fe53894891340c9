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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What the probe of one point of training found."""

    step: int  # training steps taken before
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
    exact_noise_scale: float | None = None  # where the model knows its own answer


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFindings:
    """What the checks before the probe found."""

    loss: float  # of a few examples, before the warm-up
    stochastic: bool  # the loss of given examples depends on random masks
    batch_norms_held: int  # layers that use their running statistics during the probe
    mean_gap: float  # |gradient of a batch − mean of its halves'| over its norm
    is_mean: bool  # whether that gap is rounding
    tokens_per_example: float | None = None  # mean of a few examples; None: they are no tokens
    streamed: int | None = None  # examples kept of a stream; None: the dataset is no stream


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
