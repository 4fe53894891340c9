"""The form of a config: which keys there are and what their values must be."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_seconds(value: Any) -> float:
    """`60s`, `2m`, `1h` or a number of seconds.

    Raises:
        ValueError: anything else, or less than a second.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*([a-z]*)\s*", str(value))
    try:
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    except (ValueError, KeyError):
        seconds = 0.0
    if isinstance(value, bool) or not 1 <= seconds < 1e9:
        raise ValueError("a time of at least 1s, such as 60s, 2m or 1h")
    return seconds


Seconds = Annotated[float, BeforeValidator(parse_seconds)]
#: The least that a budget in examples must hold: at each point of training, and in largest batches.
_FEWEST_EXAMPLES, _FEWEST_LARGEST = 256, 6
#: A mapping with `_target_`; checked by `spec.targets`.
Target = dict[str, Any]


class Section(BaseModel):
    """A part of the config: unknown keys are mistakes, and a string is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Training(Section):
    """The run that is planned."""

    batch_size: PositiveInt = 64  # global, in examples
    world_size: PositiveInt = 1
    max_grad_norm: float | None = Field(default=None, gt=0)  # used in the warm-up, off in the probe
    steps: PositiveInt | None = None  # the planned length, at `batch_size`
    examples: PositiveInt | None = None  # or that
    price_per_device_hour: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # in any currency


def _ascending(values: list[int]) -> list[int]:
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise ValueError("ascending, distinct numbers")
    return values


def _three_or_more(value: Literal["auto"] | list[int]) -> Literal["auto"] | list[int]:
    if isinstance(value, list):
        _ascending(value)
        if len(value) < 3:
            raise ValueError("three batch sizes or more: two fit any law")
    return value


BatchSizes = Annotated[Literal["auto"] | list[PositiveInt], AfterValidator(_three_or_more)]


class Probe(Section):
    """How the noise scale is measured."""

    warmup_steps: Annotated[int, Field(ge=0)] = 100
    at_steps: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)
    batch_sizes: BatchSizes = "auto"
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.15
    budget: Seconds = 60.0
    max_examples: Annotated[int, Field(ge=256)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("at_steps")
    @classmethod
    def _steps_ascend(cls, value: list[int] | None) -> list[int] | None:
        return None if value is None else _ascending(value)

    @model_validator(mode="after")
    def _examples_suffice(self) -> Probe:
        points = len(self.at_steps or [0])
        needed = _FEWEST_EXAMPLES * points
        if isinstance(self.batch_sizes, list):
            needed = max(needed, _FEWEST_LARGEST * self.batch_sizes[-1] * points)
        if self.max_examples is not None and self.max_examples < needed:
            raise ValueError(
                f"max_examples of at least {needed}: {_FEWEST_EXAMPLES} for each probed point, and "
                f"{_FEWEST_LARGEST} times the largest of batch_sizes"
            )
        return self


class Branch(Section):
    """Branched training from one start: the same examples at multiples of the planned batch."""

    multiples: list[PositiveInt] = Field(default=[1, 2, 4, 8], min_length=2)  # of training.batch_size
    examples: PositiveInt  # of every branch
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01  # in loss, over the smallest batch

    @field_validator("multiples")
    @classmethod
    def _multiples_ascend(cls, value: list[int]) -> list[int]:
        return _ascending(value)


class Sweep(Section):
    """How the trade-off is measured by training."""

    batch_sizes: BatchSizes = "auto"
    goal: Literal["auto"] | float = "auto"  # a loss, or where the planned run is after `steps`
    steps: PositiveInt = 200
    max_steps: PositiveInt = 20_000  # of one run
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # steps of the planned run before all runs begin
    seeds: PositiveInt = 3
    budget: Seconds | None = None
    branch: Branch | None = None  # instead of runs to a goal


class Advice(Section):
    """The user's own limits, which choose among batch sizes."""

    max_compute_overhead: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = (
        None  # examples over the fewest, less 1
    )
    deadline: Seconds | None = None  # for the planned run


class Check(Section):
    """What the pre-training check lets pass."""

    max_compute_overhead: Annotated[float, Field(gt=0, allow_inf_nan=False)] = (
        1.0  # examples over the fewest, less 1
    )
    min_time_efficiency: Annotated[float, Field(gt=0, lt=1)] | None = None  # the fewest steps over the plan's


class Config(Section):
    """A whole config file."""

    version: Literal[1]
    model: Target
    checkpoint: str | None = None
    dataset: Target
    collate: Target | None = None
    loss: Target | None = None
    objective: Target | None = None
    optimizer: Target
    training: Training = Training()
    probe: Probe = Probe()
    sweep: Sweep = Sweep()
    advice: Advice = Advice()
    check: Check = Check()
