"""The learning rate that arrives first: bracketed on a grid of powers of two."""

from __future__ import annotations

from collections.abc import Mapping

#: Grid points of a factor of two.
PER_DOUBLING = 8
#: No search goes further than this from its first learning rate: a factor of 2^12 either way.
_FURTHEST = 12 * PER_DOUBLING
#: A valley is steep if a neighbour of the best rate takes this many times its steps.
_STEEP = 1.1


def rate_at(base_rate: float, point: int) -> float:
    """The learning rate of a grid point; 0 is the config's own."""
    return float(base_rate * 2 ** (point / PER_DOUBLING))


def fastest(found: Mapping[int, float | None]) -> int | None:
    """The grid point that took the fewest steps, the lower of two equal ones; None if none arrived."""
    arrived = {point: steps for point, steps in found.items() if steps is not None}
    return min(arrived, key=lambda point: (arrived[point], point), default=None)


def next_rate(
    found: Mapping[int, float | None], first: int, losses: Mapping[int, float], distance: int
) -> int | None:
    """The grid point to try next; None if the best is known or no further one is in reach.

    The best rate is known if it has a worse neighbour on either side, at most `distance` away. Higher rates are tried
    first, because they arrive or diverge sooner.

    Args:
        found: steps to the goal of each grid point that was tried; None if it did not arrive or was beaten.
        first: where to begin.
        losses: the lowest loss of each rate that did not diverge. It says where to look as long as none arrived. Above
            the goal rates hover, and luck decides which comes lowest: two lower ones are tried.
        distance: between neighbours, in grid points.
    """
    if not found:
        return first
    best = fastest(found)
    if best is not None:
        wanted = [
            best + side * distance
            for side in (1, -1)
            if not any(0 < side * (point - best) <= distance for point in found)
        ]
    elif losses:
        nearest = min(losses, key=lambda point: losses[point])
        wanted = [nearest + side * distance for side in (1, -1, -2) if nearest + side * distance not in found]
    else:
        wanted = [min(found) - distance]
    return next((point for point in wanted if abs(point - first) <= _FURTHEST), None)


def is_steep(found: Mapping[int, float | None], distance: int, factor: float = _STEEP) -> bool:
    """Whether a closer look around the best pays: a neighbour at `distance` is far worse, or did not arrive.

    At large batches S falls as c/ε up to the edge of stability and then jumps: the best point of a grid can be off by
    the whole difference of two neighbours. In the smooth valley of small batches it is off by an eighth of it.
    """
    best = fastest(found)
    if best is None:
        return False
    enough = factor * (found[best] or 0.0)
    near = [steps for point, steps in found.items() if 0 < abs(point - best) <= distance]
    return any(steps is None or steps > enough for steps in near)
