"""The trade-off and the recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from bnoise_cli.records.estimates import Limits, Positive, Size

#: Why a batch size is worth naming; the last two are the user's own limits.
Role = Literal["fastest", "cheapest", "balanced", "deadline", "max_compute_overhead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeoffRow:
    """What training at one batch size costs on the planned devices; times are None if no step was timed."""

    batch_size: int
    #: Steps over the fewest.
    steps_ratio: Positive
    #: Examples over the fewest.
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
