"""The form of a ledger's entries, so that an entry that was changed by hand or torn is left out and not believed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from bnoise_cli.records import NotNegative, Positive, RunEnd, Size

Count = Annotated[int, Field(ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class RunEntry(_Entry):
    """A run to the goal: its key, and what became of it."""

    batch_size: Size
    #: A point on the grid of learning rates; the limit is far beyond what a search visits and cannot overflow.
    point: Annotated[int, Field(ge=-4096, le=4096)]
    seed: Count
    stage: Literal[1, 2]
    steps: Positive | None
    outcome: RunEnd
    taken: Count
    evaluations: Count
    seconds: NotNegative
    lowest_loss: float | None


class RunsEntry(_Entry):
    """Runs that went side by side."""

    runs: list[RunEntry]


class BranchEntry(_Entry):
    """A finished branch."""

    batch_size: Size
    learning_rate: Positive
    seed: Count
    steps: Positive
    examples: Size
    loss: float | None
    evaluations: Count
    seconds: NotNegative


class StacksEntry(_Entry):
    """Whether runs at a batch size go side by side."""

    batch_size: Size
    value: bool


class _Scale(_Entry):
    value: Positive | None
    low: NotNegative
    high: Positive | None


class _Probed(_Entry):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    step: Count
    loss: float
    noise_scale: _Scale | None
    simple_noise_scale: _Scale | None
    gradient_examples: Count
    evaluation_examples: Count
    batch_size: Size
    learning_rate: Positive


class _Ahead(_Entry):
    """A point of the horizon at the start."""

    steps: Size
    loss: float
    critical_batch_size: _Scale
    min_steps: Positive
    min_examples: Positive
    sharpness: Positive


class _Horizon(_Entry):
    curve: list[_Ahead]
    gradient_examples: Count
    evaluation_examples: Count


class _GoalAt(_Entry):
    """What the planned batch size reaches at one learning rate; None: it diverges."""

    loss: float | None


_FACTS: dict[str, TypeAdapter[Any]] = {
    "goal": TypeAdapter(Annotated[float, Field(strict=True, allow_inf_nan=False)]),
    "goal at": TypeAdapter(_GoalAt),
    "probed": TypeAdapter(_Probed),
    "horizon": TypeAdapter(_Horizon),
}


def is_fact(kind: str, value: Any) -> bool:
    """Whether a value is as this version writes it for a kind of fact."""
    try:
        _FACTS[kind].validate_python(value)
    except ValueError:
        return False
    return True
