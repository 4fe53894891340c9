"""Which batch sizes a sweep measures: around where the critical one turns out to be."""

from __future__ import annotations

import math
from collections.abc import Collection

#: Batch sizes reach from a sixth of B_crit to six times it, a factor of two apart: there S is 7 times the fewest
#: steps at one end and E 7 times the fewest examples at the other.
SIDE = 6.0
#: So far apart are the first three, at the plan's batch and on both sides of it.
_FIRST = 2


def first_batch_sizes(planned: int, most: int) -> list[int]:
    """Three batch sizes to begin with; on one side only where the other is closed."""
    shifts = [-_FIRST, 0, _FIRST]
    while _shifted(planned, shifts[0]) is None:
        shifts = [shift + 1 for shift in shifts]
    while planned * 2.0 ** shifts[-1] > most and _shifted(planned, shifts[0] - 1) is not None:
        shifts = [shift - 1 for shift in shifts]
    return [size for shift in shifts if (size := _shifted(planned, shift)) is not None and size <= most]


def next_batch_size(planned: int, most: int, done: Collection[int], critical: float) -> int | None:
    """The nearest batch size that is missing in the range around `critical`; None when it is full.

    Args:
        planned: all are this times a power of two.
        most: no larger ones.
        done: those that were tried, whether or not they arrived.
    """
    low, high = critical / SIDE, critical * SIDE
    wanted = [
        size
        for shift in range(-40, 41)
        if (size := _shifted(planned, shift)) is not None
        and low <= size <= min(high, most)
        and size not in done
    ]
    if not wanted:
        return None
    return min(wanted, key=lambda size: (min(abs(math.log(size / other)) for other in done), size))


def _shifted(planned: int, shift: int) -> int | None:
    """planned·2^shift where that is whole and at least one."""
    size = planned * 2.0**shift
    return int(size) if size >= 1 and size == int(size) else None
