"""The form of a config: its keys and the values they take."""

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
    WithJsonSchema,
    field_validator,
    model_validator,
)

from bnoise_cli.spec.units import TOKENS

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_seconds(value: Any) -> float:
    """`60s`, `2m`, `1h` or a number of seconds.

    Raises:
        ValueError: the value is not a time, or is less than a second.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*([a-z]*)\s*", str(value))
    try:
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    except (ValueError, KeyError):
        seconds = 0.0
    if isinstance(value, bool) or not 1 <= seconds < 1e9:
        raise ValueError("a time of at least 1s, such as 60s, 2m or 1h")
    return seconds


#: Upper limit of counts. No training run is larger, and floats hold it exactly.
_MOST = 2**53
_SECONDS: Any = {"anyOf": [{"type": "number", "minimum": 1}, {"type": "string"}]}
_TARGET: Any = {
    "type": "object",
    "anyOf": [{"required": [spelling]} for spelling in ("_target_", "_component_", "class_path")],
}
Seconds = Annotated[float, BeforeValidator(parse_seconds), WithJsonSchema(_SECONDS)]


def _amount(least: int, most: int | None = None) -> Any:
    """JSON Schema of a number of examples: an integer, or an amount of tokens."""
    limits = {"minimum": least} | ({"maximum": most} if most is not None else {})
    return {"anyOf": [{"type": "integer", **limits}, {"type": "string", "pattern": TOKENS}]}


#: Numbers of examples. `spec.units` has already converted amounts of tokens.
Examples = Annotated[int, Field(gt=0, le=_MOST), WithJsonSchema(_amount(1, _MOST))]
Budget = Annotated[int, Field(ge=256), WithJsonSchema(_amount(256))]
#: A budget in examples must hold this many for each probed point, and this many of the largest batches.
_FEWEST_EXAMPLES, _FEWEST_LARGEST = 256, 6
#: A mapping with `_target_`; checked by `spec.check_targets`.
Target = Annotated[dict[str, Any], WithJsonSchema(_TARGET)]


class Section(BaseModel):
    """A section of the config. Unknown keys are mistakes, and a string is not taken as a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Training(Section):
    """The planned training run."""

    batch_size: Examples = Field(default=64, description="global, in examples, or as in 524288 tokens")
    world_size: PositiveInt = Field(default=1, le=_MOST, description="devices that train together")
    parallel: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        description="how several devices share the model; fsdp for one that does not fit one device",
    )
    max_grad_norm: float | None = Field(
        default=None, gt=0, description="clipping; used in the warm-up, off in the probe"
    )
    steps: PositiveInt | None = Field(default=None, description="the planned length, at batch_size")
    examples: Examples | None = Field(default=None, description="the planned length in examples instead")
    tokens_per_example: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="the length of a sequence; found where it can be"
    )
    price_per_device_hour: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="in any currency; prices the planned run"
    )


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


def _two_or_more(value: list[str]) -> list[str]:
    if len(value) < 2 or len(set(value)) < len(value):
        raise ValueError("two or more distinct checkpoints of one run")
    return value


_PATHS: Any = {"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True}
Paths = Annotated[list[str], AfterValidator(_two_or_more), WithJsonSchema(_PATHS)]
BatchSizes = Annotated[Literal["auto"] | list[Examples], AfterValidator(_three_or_more)]


class Probe(Section):
    """How the critical batch size is measured."""

    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        default=100, description="training steps before the probe"
    )
    at_steps: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, min_length=1, description="several points of training instead, as in [0, 50, 200]"
    )
    batch_sizes: BatchSizes = Field(default="auto", description="auto, or a list of three or more")
    horizon: Literal["auto", "off"] | PositiveInt = Field(
        default="auto",
        description="short training runs from the probed weights: auto (until the curve stands still, the loss is a "
        "tenth or the budget ends), off, or their length in steps of the largest batch",
    )
    precision: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.15, description="stop when the 95% interval is within this fraction on each side"
    )
    budget: Seconds = Field(
        default=300.0, description="or when this time is spent, after the warm-up: seconds, or as in 2m"
    )
    max_examples: Budget | None = Field(
        default=None,
        description="or a budget in gradient examples, which repeats exactly if it is spent long before the time",
    )
    precision_mode: Literal["full", "bf16-mixed"] = Field(
        default="full",
        description="of the planned run: in the type of the parameters, or in bfloat16 by autocast",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="of all draws")

    @field_validator("at_steps")
    @classmethod
    def _steps_ascend(cls, value: list[int] | None) -> list[int] | None:
        return None if value is None else _ascending(value)

    @model_validator(mode="after")
    def _examples_suffice(self) -> Probe:
        if needed := self.examples_needed(len(self.at_steps or [0])):
            raise ValueError(needed)
        return self

    def examples_needed(self, points: int) -> str | None:
        """The least `max_examples` for this number of probed points; None if it is large enough."""
        needed = _FEWEST_EXAMPLES * points
        if isinstance(self.batch_sizes, list):
            needed = max(needed, _FEWEST_LARGEST * self.batch_sizes[-1] * points)
        if self.max_examples is None or self.max_examples >= needed:
            return None
        return (
            f"max_examples of at least {needed}: {_FEWEST_EXAMPLES} for each probed point, and "
            f"{_FEWEST_LARGEST} times the largest of batch_sizes"
        )


class Branch(Section):
    """Branched training: from one start, the same number of examples at multiples of the planned batch size."""

    multiples: list[PositiveInt] = Field(
        default=[1, 2, 4, 8], min_length=2, description="of training.batch_size"
    )
    examples: Examples = Field(description="of every branch")
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=0.01, description="in loss, over the smallest batch"
    )

    @field_validator("multiples")
    @classmethod
    def _multiples_ascend(cls, value: list[int]) -> list[int]:
        return _ascending(value)


class Sweep(Section):
    """How the trade-off is measured by training."""

    batch_sizes: BatchSizes = Field(default="auto", description="auto, or a list of three or more")
    goal: Literal["auto"] | Annotated[float, Field(allow_inf_nan=False)] = Field(
        default="auto", description="the loss to reach, or what the planned batch size reaches in `steps`"
    )
    steps: PositiveInt = Field(
        default=200, description="of the planned batch size at its best learning rate, to the goal `auto`"
    )
    max_steps: PositiveInt = Field(default=20_000, description="of one run")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        default=0, description="steps of the planned run before all runs begin"
    )
    seeds: PositiveInt = Field(default=3, description="runs at every learning rate that counts")
    budget: Seconds | None = Field(default=None, description="time after which it ends with what is known")
    branch: Branch | None = Field(
        default=None, description="branches from one start instead of runs to a goal"
    )


class Advice(Section):
    """The user's own limits, which choose among batch sizes."""

    max_compute_overhead: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="examples over the fewest, less 1"
    )
    deadline: Seconds | None = Field(default=None, description="for the planned run, as in 12h")


class Check(Section):
    """The limits of the pre-training check."""

    max_compute_overhead: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=1.0, description="fail if the plan surely spends more: examples over the fewest, less 1"
    )
    min_time_efficiency: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="warn below this: the fewest steps over the plan's"
    )


class Config(Section):
    """A whole config file."""

    version: Literal[1] = Field(description="of the form of the config")
    model: Target = Field(description="what is trained")
    checkpoint: str | Paths | None = Field(
        default=None, description="where to start: .safetensors, .pt, a folder; or a list, probed in turn"
    )
    dataset: Target = Field(description="anything with a length and items")
    collate: Target | None = Field(default=None, description="makes a batch of a list of examples")
    loss: Target | None = Field(
        default=None, description="a criterion: loss(model(x), y) for (x, y) examples"
    )
    objective: Target | None = Field(
        default=None, description="or f(model, batch); neither: model(**batch).loss"
    )
    optimizer: Target = Field(description="of the planned run, at its learning rate")
    unit: Literal["examples", "tokens"] = Field(
        default="examples", description="what reports count in; tokens are shown beside examples"
    )
    training: Training = Training()
    probe: Probe = Probe()
    sweep: Sweep = Sweep()
    advice: Advice = Advice()
    check: Check = Check()

    @property
    def checkpoints(self) -> list[str]:
        """All checkpoints that the config names."""
        return [self.checkpoint] if isinstance(self.checkpoint, str) else self.checkpoint or []


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a config, for completion in editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "bnoise config",
    }
