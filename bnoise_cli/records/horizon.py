"""What the training runs of a horizon show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bnoise_cli.records.estimates import Estimate, Positive, Size
from bnoise_cli.records.law import Law


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
    #: How sharply the steps turn from falling with the batch size to S_min; files that do not say have 1.
    sharpness: Positive = 1.0

    def steps_at(self, batch_size: int) -> float:
        """Steps to this loss by the law."""
        return self.min_steps * Law(self.min_examples / self.min_steps, self.sharpness).steps(batch_size)


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

    def run_as_planned(self, batch_size: int) -> HorizonRun | None:
        """The run at a batch size and the planned learning rate; None if it was not trained."""
        same = (run for run in self.runs if run.batch_size == batch_size)
        return next(
            (run for run in same if math.isclose(run.learning_rate, self.planned_learning_rate)), None
        )
