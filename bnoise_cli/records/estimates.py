"""Estimates: a value, its limits, and what it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from bnoise_cli.records.law import Law

#: An interval whose limits differ by more than this factor does not settle anything; merely chosen.
WIDEST_INTERVAL = 10.0
# The limits of these types are checked when a stored result is read, not when a measurement makes one.
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
#: A number of examples, devices or steps that cannot be zero.
Size = Annotated[int, Field(gt=0)]
#: What B_crit rests on: one point of training, several, runs of some steps from one start, or whole runs.
Basis = Literal["probe", "trajectory", "horizon", "sweep"]


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
    """The fewest examples over the fewest steps: where more examples for fewer steps begin to be a bad bargain."""

    basis: Basis
    #: How sharply the steps turn there, the p of `Law`. It is 1 for a single step, and in files that do not say.
    sharpness: Positive = 1.0
    definition: str = (
        "E_min/S_min, fewest examples over fewest steps, in S/S_min = (1 + (B_crit/B)^sharpness)^(1/sharpness): at "
        "sharpness 1 arXiv:1812.06162 eq. 2.11"
    )

    def law(self, at: float) -> Law:
        """Steps and examples if B_crit is `at`, its value or one of its limits."""
        return Law(at, self.sharpness)

    @property
    def known(self) -> Law | None:
        """Steps and examples by the value; None without one."""
        return self.law(self.value) if self.value is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The range of a figure over the interval that it depends on; `high` is None if there is no upper limit."""

    low: float
    high: float | None
