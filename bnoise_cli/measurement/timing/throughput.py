"""Time training steps at a range of micro-batches, and find the largest that fits."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np

from bnoise_cli.errors import RunError, StoppedError
from bnoise_cli.maths.fastest import Purpose
from bnoise_cli.maths.step_time import MEMORY_PART, fit_line
from bnoise_cli.measurement.task.user_code import OutOfMemoryError
from bnoise_cli.records import LimitedBy, StepTime, Throughput

#: The first visits, which also warm up, may take this fraction of the time; the rounds share what is left. Rounds are
#: half as long as the first visits, so that the fewest fit.
_FIRST_VISITS = 0.4
_FEWEST_ROUNDS = 2
#: The median of the fast half of the visits is their first quartile. Its interval reaches this many standard errors
#: of a rank to both sides: 95%.
_QUARTILE, _ERRORS = 0.25, 2.0
#: A step that once had its core for this fraction of its time does not wait for anything but other programs.
_OWN_CORE = 0.9
#: The fewest sizes for a line, timed while there is any time; and the largest size at which a range may begin.
_FEWEST_SIZES, _LARGEST_START = 2, 64
#: The search for the largest micro-batch ends if the smallest that does not fit is at most this many times larger.
_BRACKET = 1.08


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedStep:
    """One training step."""

    #: Forward and backward passes and the optimizer step.
    seconds: float
    #: The optimizer step alone.
    optimizer_seconds: float
    #: The time to read its examples.
    loading_seconds: float
    peak_memory_bytes: int | None = None
    #: CPU time of all threads of this process; None if other devices do a part of the work.
    cpu_seconds: float | None = None
    #: The time without the exchange of gradients; None if there is no exchange that can be left out.
    alone_seconds: float | None = None


class Steps(Protocol):
    """A device that takes training steps."""

    #: The memory that training could use; None: unknown.
    memory_bytes: int | None

    def step(self, micro_batch_size: int) -> TimedStep:
        """Take a step of `micro_batch_size` examples.

        Raises:
            OutOfMemoryError: it does not fit; nothing of it is held any more.
        """


def measure_throughput(
    steps: Steps, *, most: int, budget_seconds: float, purpose: Purpose | None = None
) -> Throughput:
    """Time steps at micro-batches of 1, 2, 4 … examples, in turns, as far as memory, need and time go.

    Each size is visited once to warm up and once to be timed; then rounds over all sizes follow, so that a
    disturbance of the device falls on all alike, and the median of the fast half of the visits leaves it out. More
    rounds follow over the sizes that matter, until the fastest batch size is known. A size that fails although smaller
    ones work ends the range; where small ones fail, the range begins above them.

    Args:
        most: a larger micro-batch has no use.
        purpose: what must be known; None: the fewest rounds are enough.
        budget_seconds: time for all steps. No step begins after it, except the first; a size whose second step
            would is known by its first.

    Raises:
        RunError: no size works.
    """
    run = _Timing(steps, budget_seconds)
    limited_by = run.ascend(most)
    if limited_by == "memory":
        run.refine(most)
    run.go_round(limited_by, purpose)
    return run.throughput(limited_by)


class _Timing:
    def __init__(self, steps: Steps, budget_seconds: float) -> None:
        self.steps, self.budget_seconds = steps, budget_seconds
        self.timed: dict[int, list[TimedStep]] = defaultdict(list)
        self.quickest: dict[int, float] = {}  # of the first visit of each size
        self.spent = 0.0  # as it was
        self.visits = 0.0  # the first visits, as they would have been without a disturbance
        self.failure: str | None = None
        self.too_large: int | None = None

    @property
    def sizes(self) -> list[int]:
        return sorted(self.timed)

    @property
    def is_over(self) -> bool:
        return self.spent > self.budget_seconds

    def ascend(self, most: int) -> LimitedBy:
        """Double the micro-batch until a limit is reached. Returns the limit."""
        size = self._smallest(most)
        while size < most:
            size = min(2 * size, most)
            expected = 4 * self.quickest[self.sizes[-1]]
            enough = len(self.timed) >= _FEWEST_SIZES
            if self.is_over or (enough and self.visits + expected > _FIRST_VISITS * self.budget_seconds):
                return "time"
            try:
                fits = self._should_fit(size) and self._visit(size)
            except StoppedError:
                raise
            except RunError as error:
                self.failure = f"a step of {size} examples failed: {error}"
                return "failure"
            if not fits:
                self.too_large = size
                return "memory"
        return "need"

    def _smallest(self, most: int) -> int:
        """Find the smallest size that works: a model may need two examples or more."""
        size = 1
        while True:
            try:
                if not self._visit(size):
                    raise RunError(
                        f"a training step on {size} example{'s' if size > 1 else ''} does not fit the memory."
                    )
            except StoppedError:
                raise
            except RunError:
                if 2 * size > min(most, _LARGEST_START) or self.too_large is not None:
                    raise
                size *= 2
            else:
                return size

    def refine(self, most: int) -> None:
        """Search for the largest micro-batch that fits, between the last that fits and the first that does not."""
        low, high = self.sizes[-1], min(self.too_large or most, most + 1)
        while high > low + 1 and high > _BRACKET * low and not self.is_over:
            middle = self._extrapolated(low, high) or round(math.sqrt(low * high))
            if self._visit(middle):
                low = middle
                if self.steps.memory_bytes is not None:
                    return
            else:
                high = middle

    def go_round(self, limited_by: LimitedBy, purpose: Purpose | None) -> None:
        """Time sizes again in turn until what matters is known, while there is time for a whole round.

        The fewest rounds begin without that, and end where the time does.

        Whether it is known is found out whenever the rounds have doubled.
        """
        sizes: Sequence[int] = self.sizes
        rounds, known = 0, _FEWEST_ROUNDS
        while sizes:
            whole = sum(self.quickest[size] for size in sizes)
            while rounds < known:
                if rounds >= _FEWEST_ROUNDS and self.spent + whole > self.budget_seconds:
                    return
                for size in sizes:
                    if rounds < _FEWEST_ROUNDS and self.is_over:
                        return
                    self._step(size)
                rounds += 1
            sizes = purpose.unsettled(self.throughput(limited_by)) if purpose is not None else ()
            known *= 2

    def throughput(self, limited_by: LimitedBy) -> Throughput:
        smallest = self.timed[self.sizes[0]]
        by_cpu = any((step.cpu_seconds or 0.0) >= _OWN_CORE * step.seconds for step in smallest)
        measured = [_step_time(size, self.timed[size], by_cpu=by_cpu) for size in self.sizes]
        line = fit_line([s.micro_batch_size for s in measured], [s.seconds for s in measured])
        return Throughput(
            step_times=tuple(measured),
            optimizer_seconds=_fast([step.optimizer_seconds for step in smallest]),
            fixed_seconds=line.fixed_seconds,
            seconds_per_example=line.seconds_per_example,
            worst_misfit=line.worst_misfit,
            largest_micro_batch_size=self.sizes[-1],
            limited_by=limited_by,
            memory_bytes=self.steps.memory_bytes,
            seconds=self.spent,
            failure=self.failure,
        )

    def _visit(self, size: int) -> bool:
        """Warm up and time one size. Returns False if it does not fit."""
        try:
            warm = self._take(size)
            if self.is_over:
                self.timed[size].append(warm)
            else:
                self._step(size)
        except OutOfMemoryError:
            self.timed.pop(size, None)
            if not self.timed:
                self.too_large = size
            return False
        self.quickest[size] = min(_whole(step) for step in (warm, *self.timed[size]))
        self.visits += 2 * self.quickest[size]
        return True

    def _step(self, size: int) -> None:
        self.timed[size].append(self._take(size))

    def _take(self, size: int) -> TimedStep:
        step = self.steps.step(size)
        self.spent += _whole(step)
        return step

    def _memory_line(self) -> tuple[float, float] | None:
        """(bytes without examples, bytes per example), from the two largest sizes; None: unknown."""
        sizes = self.sizes[-2:]
        peaks = [self.timed[size][-1].peak_memory_bytes for size in sizes]
        if len(sizes) < 2 or peaks[0] is None or peaks[1] is None:
            return None
        per_example = max(peaks[1] - peaks[0], 0) / (sizes[1] - sizes[0])
        return peaks[1] - per_example * sizes[1], per_example

    def _should_fit(self, size: int) -> bool:
        line, memory = self._memory_line(), self.steps.memory_bytes
        if line is None or memory is None:
            return True
        return line[0] + line[1] * size <= MEMORY_PART * memory

    def _extrapolated(self, low: int, high: int) -> int | None:
        line, memory = self._memory_line(), self.steps.memory_bytes
        if line is None or memory is None or line[1] == 0:
            return None
        size = math.floor((MEMORY_PART * memory - line[0]) / line[1])
        return size if low < size < high else None


def _whole(step: TimedStep) -> float:
    return step.seconds + step.loading_seconds + (step.alone_seconds or 0.0)


def _fast(seconds: Sequence[float]) -> float:
    """The median of the fast half."""
    return median(sorted(seconds)[: (len(seconds) + 1) // 2])


def _limits(seconds: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of the first quartile of such times, by their order (David and Nagaraja, Order Statistics, 7.1).

    If no time is as far down as the lower rank, the limit lies as far below the least as the upper one lies above it.
    """
    times, number = sorted(seconds), len(seconds)
    middle = _QUARTILE * number
    reach = _ERRORS * math.sqrt(number * _QUARTILE * (1 - _QUARTILE))
    high = times[min(math.ceil(middle + reach), number) - 1]
    rank = math.floor(middle - reach)
    low = times[rank - 1] if rank >= 1 else max(2 * times[0] - high, times[0] / 2)
    return low, high


def _step_time(size: int, steps: list[TimedStep], *, by_cpu: bool) -> StepTime:
    """A step time from its visits.

    Args:
        by_cpu: count the time of this process alone. Its threads together work at least as long as a step takes on a
            free machine, so the shorter of both times is never too short.
    """
    seconds = [
        min(step.seconds, step.cpu_seconds) if by_cpu and step.cpu_seconds else step.seconds for step in steps
    ]
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    fast = _fast(seconds)
    least, most = _limits(seconds)
    peaks = [step.peak_memory_bytes for step in steps if step.peak_memory_bytes is not None]
    alone = [step.alone_seconds for step in steps if step.alone_seconds is not None]
    return StepTime(
        micro_batch_size=size,
        seconds=fast,
        low_seconds=min(least, fast),
        high_seconds=max(most, fast),
        spread=float((high - low) / 2 / middle),
        loading_seconds=median(step.loading_seconds for step in steps),
        peak_memory_bytes=max(peaks) if peaks else None,
        exchange_seconds=max(fast - _fast(alone), 0.0) if alone else 0.0,
    )
