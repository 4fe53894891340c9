"""How long training steps take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bnoise_cli.records.estimates import NotNegative, Positive, Size

#: How devices share the model.
Parallel = Literal["ddp", "fsdp"]
#: Why no larger micro-batch was timed: it does not fit, it failed, the time was over, or it has no use.
LimitedBy = Literal["memory", "failure", "time", "need"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """A training step at one micro-batch size on each device."""

    micro_batch_size: Size
    #: Forward, backward and optimizer step, with the examples in memory: the median of the fast half of the visits.
    seconds: Positive
    #: Half the distance between the quartiles over the median.
    spread: NotNegative
    #: Median time of one process to read these examples.
    loading_seconds: float
    #: None if the device cannot tell.
    peak_memory_bytes: int | None
    #: The part of `seconds` that waits for other devices' gradients, which accumulation does not repeat.
    exchange_seconds: NotNegative = 0.0
    #: The 95% interval of `seconds` by the order of the visits; None in files that do not say.
    low_seconds: Positive | None = None
    high_seconds: Positive | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """The interval of `seconds`; of files that do not say, by the spread of the visits."""
        if self.low_seconds is None or self.high_seconds is None:
            return self.seconds / (1 + self.spread), self.seconds * (1 + self.spread)
        return self.low_seconds, self.high_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """The torch threads of a CPU that were measured with, because they are faster there than the usual number."""

    number: Size
    #: As torch would have taken them.
    usual: Size
    #: The time of a pass on the usual number of threads over the time on `number`.
    times_faster: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """The time of training steps on one device or several, and how large a micro-batch can be."""

    #: In ascending order of micro-batch size.
    step_times: tuple[StepTime, ...]
    #: The part of a step that accumulation does not repeat.
    optimizer_seconds: NotNegative
    #: t₀ in t = t₀ + t₁·m.
    fixed_seconds: NotNegative
    #: t₁.
    seconds_per_example: NotNegative
    #: The largest relative distance of a measured time from that line.
    worst_misfit: NotNegative
    largest_micro_batch_size: int
    limited_by: LimitedBy
    #: The memory that the device can give to training.
    memory_bytes: int | None
    #: The time that the timing itself took.
    seconds: float
    #: Why a larger step failed.
    failure: str | None = None
    #: The number of devices that took each step together.
    world_size: Size = 1
    #: None for one device.
    parallel: Parallel | None = None
    #: None if torch's own number of threads was used.
    threads: Threads | None = None
