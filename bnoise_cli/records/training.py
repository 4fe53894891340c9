"""Runs to a goal, branches, and what they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bnoise_cli.records.estimates import CriticalBatchSize, Limits, Positive, Size
from bnoise_cli.records.one_step import TrajectoryPoint

#: How a training run ended: at the goal, later than a better rate, beyond all bounds, or short of the goal.
RunEnd = Literal["reached", "beaten", "diverged", "unreached"]


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
    #: The steps that the fitted law gives.
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
