"""How long a training step takes: the line t₀ + t₁·m, and the best split of a batch into micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, nnls

from bnoise_cli.records import Throughput

Array = NDArray[np.float64]
#: Training may use this fraction of the memory; the rest is a margin, because its use varies from step to step.
MEMORY_PART = 0.95
#: A micro-batch that was not timed is chosen only if the best timed one takes this many times as long.
_WORTH = 1.02
#: Splits whose times differ by less than this factor take the same time: no measurement of them is better.
_SAME = 1.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """t(m) = t₀ + t₁·m, in seconds and seconds per example."""

    fixed_seconds: float
    seconds_per_example: float
    worst_misfit: float  # largest |t₀ + t₁·m − t| / t


def fit_line(sizes: Sequence[int], seconds: Sequence[float]) -> Line:
    """Fit t = t₀ + t₁·m to measured step times by least squares on relative residuals, neither negative.

    Args:
        sizes: micro-batch sizes m, in examples, at least one.
        seconds: t, positive.
    """
    m, t = np.array(sizes, dtype=np.float64), np.array(seconds, dtype=np.float64)
    (fixed, per_example), _ = nnls(np.stack([1 / t, m / t], axis=1), np.ones_like(t))
    misfit = np.abs((fixed + per_example * m) / t - 1)
    return Line(
        fixed_seconds=float(fixed), seconds_per_example=float(per_example), worst_misfit=float(misfit.max())
    )


def line_of(throughput: Throughput, *, exchange: bool = True) -> Line:
    """The line through the measured step times, or through what they are without the exchange of gradients."""
    steps = throughput.step_times
    if exchange or not any(step.exchange_seconds for step in steps):
        return Line(
            fixed_seconds=throughput.fixed_seconds,
            seconds_per_example=throughput.seconds_per_example,
            worst_misfit=throughput.worst_misfit,
        )
    return fit_line([s.micro_batch_size for s in steps], [s.seconds - s.exchange_seconds for s in steps])


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One device's part of a batch: k micro-batches of m examples, and what such a step takes."""

    micro_batch_size: int
    accumulation_steps: int
    seconds: float
    #: The 95% interval of `seconds`.
    low_seconds: float
    high_seconds: float


class StepTimes:
    """Predicts step times from measured ones.

    A step of k micro-batches takes t(m, k) = e(m) + o + k·(t(m) − e(m) − o): accumulation repeats neither the
    exchange of gradients, e(m), nor the optimizer step, o. One device alone has no exchange: e = 0, and t(m) − e(m)
    for t(m). But no micro-batch after the first trains more examples a second than the best measured one: a wrong
    optimizer time would make micro-batches cost nothing.

    Between measured sizes t(m) is interpolated and does not follow the fitted line, because devices are not linear. A
    larger micro-batch never takes less time, with the exchange or without: if measured times fall, neighbours are
    averaged. If a larger micro-batch than the largest timed one may fit, its memory and its time without the exchange
    follow their lines, and the exchange takes no longer.
    """

    def __init__(self, throughput: Throughput) -> None:
        measured = throughput.step_times
        self._sizes = np.array([step.micro_batch_size for step in measured], dtype=np.float64)
        whole: Array = isotonic_regression([step.seconds for step in measured]).x
        self._alone: Array = isotonic_regression(
            [step.seconds - step.exchange_seconds for step in measured]
        ).x
        self._exchange = np.maximum(
            whole - self._alone, 0.0
        )  # isotonic fits keep their order, but for rounding
        self._optimizer = min(throughput.optimizer_seconds, float(self._alone[0]))
        self._least_per_example = float(np.min(self._alone / self._sizes))
        self._largest = throughput.largest_micro_batch_size
        self._slope = line_of(throughput, exchange=False).seconds_per_example
        relative = np.array([np.divide(step.limits, step.seconds) for step in measured])
        self._low, self._high = relative.T
        self._beyond = (
            _largest_in_memory(throughput) if throughput.limited_by in ("time", "need") else self._largest
        )

    def seconds(self, micro_batch_size: int, accumulation_steps: int = 1, *, exchange: bool = True) -> float:
        """t(m, k) in seconds; without the exchange, on one device alone."""
        one = float(np.interp(micro_batch_size, self._sizes, self._alone))
        one += self._slope * max(0.0, micro_batch_size - float(self._sizes[-1]))
        alone = self._optimizer + accumulation_steps * (one - self._optimizer)
        if accumulation_steps > 1:
            alone = max(alone, one + (accumulation_steps - 1) * micro_batch_size * self._least_per_example)
        return alone + self.exchange_seconds(micro_batch_size) if exchange else alone

    def exchange_seconds(self, micro_batch_size: int) -> float:
        """e(m): the time that each step waits for the exchange of gradients, in seconds."""
        return float(np.interp(micro_batch_size, self._sizes, self._exchange))

    def split(self, micro_batch_size: int, accumulation_steps: int, *, exchange: bool = True) -> Split:
        """A split with its time; the interval is that of the micro-batch, relative to its time."""
        seconds = self.seconds(micro_batch_size, accumulation_steps, exchange=exchange)
        return Split(
            micro_batch_size=micro_batch_size,
            accumulation_steps=accumulation_steps,
            seconds=seconds,
            low_seconds=seconds * float(np.interp(micro_batch_size, self._sizes, self._low)),
            high_seconds=seconds * float(np.interp(micro_batch_size, self._sizes, self._high)),
        )

    def best_split(self, examples: int, *, exchange: bool = True, group: int = 1) -> Split:
        """The fastest split of one device's examples into equal micro-batches that fit the memory.

        Of splits that take the same time it has the fewest accumulation steps. A micro-batch above the
        largest timed one must save much time, because its own time is an extrapolation.

        Args:
            group: examples that must go through the model together; a multiple of them is split into these.
        """
        if group > 1 and examples % group == 0:
            return self.split(group, examples // group, exchange=exchange)
        splits = [
            self.split(size, examples // size, exchange=exchange)
            for size in _divisors(examples)
            if size <= self._beyond
        ]
        best = _fewest_steps(splits)
        known = _fewest_steps([split for split in splits if split.micro_batch_size <= self._largest])
        return known if known.seconds <= _WORTH * best.seconds else best


def _fewest_steps(splits: Sequence[Split]) -> Split:
    """The fewest accumulation steps of the splits that take the same time as the fastest."""
    equal = _SAME * min(split.seconds for split in splits)
    return min(
        (split for split in splits if split.seconds <= equal), key=lambda split: split.accumulation_steps
    )


def _largest_in_memory(throughput: Throughput) -> float:
    """The micro-batch at which the memory would be full on the line through the two largest peaks."""
    known = [step for step in throughput.step_times if step.peak_memory_bytes is not None][-2:]
    if throughput.memory_bytes is None or len(known) < 2:
        return math.inf
    (m, peak), (n, other) = ((step.micro_batch_size, step.peak_memory_bytes or 0) for step in known)
    if other <= peak:
        return math.inf
    room = MEMORY_PART * throughput.memory_bytes - other
    return n + room * (n - m) / (other - peak)


def _divisors(number: int) -> list[int]:
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
