"""Which batch sizes a sweep measures: a range around the critical batch size that it finds."""

from __future__ import annotations

import math
from collections.abc import Collection

#: Batch sizes reach from a sixth of B_crit to six times it, a factor of two apart: there S is 7 times the fewest
#: steps at one end and E 7 times the fewest examples at the other.
SIDE = 6.0
#: The factor between the first three batch sizes: the planned one and one on either side.
_FIRST = 2


def first_batch_sizes(planned: int, most: int) -> list[int]:
    """The first three batch sizes, with the planned one in the middle if there is room on both sides."""
    sizes = _sizes(planned, most)
    middle = min(max(sizes.index(planned), _FIRST), max(len(sizes) - 1 - _FIRST, 0))
    chosen = {max(middle - _FIRST, 0), middle, min(middle + _FIRST, len(sizes) - 1)}
    missing = (place for place in range(len(sizes)) if place not in chosen)
    while len(chosen) < min(3, len(sizes)):
        chosen.add(next(missing))
    return [sizes[place] for place in sorted(chosen)]


def next_batch_size(planned: int, most: int, done: Collection[int], critical: float) -> int | None:
    """The nearest batch size that is missing in the range around `critical`; None when it is full.

    Args:
        planned: all are this times a power of two, rounded.
        most: no larger ones.
        done: those that were tried, whether or not they arrived.
    """
    low, high = critical / SIDE, critical * SIDE
    wanted = [size for size in _sizes(planned, most) if low <= size <= high and size not in done]
    if not wanted:
        return None
    return min(wanted, key=lambda size: (min(abs(math.log(size / other)) for other in done), size))


def _sizes(planned: int, most: int) -> list[int]:
    """The planned batch times powers of two, rounded, from one example to `most`."""
    shifted = (round(planned * 2.0**shift) for shift in range(-40, 41))
    return sorted({size for size in shifted if 1 <= size <= most})
