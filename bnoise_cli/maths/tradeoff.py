"""Steps and examples at a batch size, relative to the fewest possible; and the batch sizes to compare."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Batch sizes up to this many times B_crit are compared: there a run takes 17 times the fewest examples.
RANGE = 16


def steps_ratio(batch_size: float, critical_batch_size: float) -> float:
    """S(B)/S_min = 1 + B_crit/B (M18 eq. 2.11 and 2.12)."""
    return 1 + critical_batch_size / batch_size


def examples_ratio(batch_size: float, critical_batch_size: float) -> float:
    """E(B)/E_min = 1 + B/B_crit (M18 eq. 2.11 and 2.12)."""
    return 1 + batch_size / critical_batch_size


def fastest_batch_size(
    critical_batch_size: float, fixed_seconds: float, seconds_per_example: float, world_size: int = 1
) -> float:
    """The B of least S(B)·t(B) if t = t₀ + t₁·B/K: sqrt(B_crit·K·t₀/t₁).

    S(B)·t(B) = S_min·(t₀ + t₁·B_crit/K + t₁·B/K + t₀·B_crit/B), whose last two terms are equal there. It is
    infinite if examples take no time.
    """
    if seconds_per_example <= 0:
        return math.inf
    return math.sqrt(critical_batch_size * world_size * fixed_seconds / seconds_per_example)


def usual_batch_sizes(largest: float, world_size: int = 1) -> list[int]:
    """Global batch sizes that people use: 2ⁿ and 3·2ⁿ examples on each device, up to `largest` in all."""
    local = {factor << n for factor in (1, 3) for n in range(64) if (factor << n) * world_size <= largest}
    return [world_size * size for size in sorted(local)]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (time, examples), whether no other point is at least as good in both and better in one."""
    return [
        not any(other[0] <= point[0] and other[1] <= point[1] and other != point for other in points)
        for point in points
    ]
