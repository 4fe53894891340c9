"""How long a training step takes: the line t₀ + t₁·m, and the best split of a batch into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, nnls

from bnoise_cli.records import Throughput

Array = NDArray[np.float64]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One device's part of a batch: k micro-batches of m examples, and what such a step takes."""

    micro_batch_size: int
    accumulation_steps: int
    seconds: float


class StepTimes:
    """Predicts a step from measured ones, between them and never beyond.

    A step of k micro-batches takes t(m, k) = o + k·(t(m) − o), with o the time of the optimizer step, which
    accumulation does not repeat. Between measured sizes t(m) is a straight line, not the fitted one: devices bend.
    A larger micro-batch never takes less time; where noise says so, neighbours are averaged.
    """

    def __init__(self, throughput: Throughput) -> None:
        measured = throughput.step_times
        self._sizes = np.array([step.micro_batch_size for step in measured], dtype=np.float64)
        self._seconds: Array = isotonic_regression([step.seconds for step in measured]).x
        self._optimizer = min(throughput.optimizer_seconds, float(self._seconds[0]))
        self._largest = throughput.largest_micro_batch_size

    def seconds(self, micro_batch_size: int, accumulation_steps: int = 1) -> float:
        """t(m, k) in seconds; m within what was measured."""
        one = float(np.interp(micro_batch_size, self._sizes, self._seconds))
        return self._optimizer + accumulation_steps * (one - self._optimizer)

    def best_split(self, examples: int) -> Split:
        """The fastest split of one device's examples into equal micro-batches that fit the memory."""
        splits = [
            Split(
                micro_batch_size=size,
                accumulation_steps=examples // size,
                seconds=self.seconds(size, examples // size),
            )
            for size in _divisors(examples)
            if size <= self._largest
        ]
        return min(splits, key=lambda split: (split.seconds, split.accumulation_steps))


def _divisors(number: int) -> list[int]:
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
