"""The batch sizes to compare, and which of them are worth it."""

from __future__ import annotations

from collections.abc import Sequence

#: Batch sizes up to this many times B_crit are compared: there a run takes 17 times the fewest examples.
RANGE = 16


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
