"""Whether the horizon curve, B_crit over the length of training, stands still."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bnoise_cli.maths.horizon import Level
from bnoise_cli.measurement.outcome import before_doubling

#: The curve stands still when two doublings of K in a row, from this K on, change B_crit by less than the lower factor,
#: or by less than the higher one within the interval of B_crit: noise moves a curve too. So must both together, because
#: a curve that falls twice does not stand still. The limits must lie within `KNOWN` of B_crit.
_STILL_FROM = 8
_STILL, _STILL_AT_MOST = 1.3, 1.6
KNOWN = 2.0


def stands_still(levels: Sequence[Level]) -> bool:
    """Whether the last two doublings of K left B_crit where it was."""
    changes = last_changes(levels)
    if len(changes) < 2 or levels[-1].fit.log_error > math.log(KNOWN):
        return False
    both = changes[0][0] + changes[1][0], changes[0][1]
    return all(
        abs(change) <= min(max(math.log(_STILL), error), math.log(_STILL_AT_MOST))
        for change, error in (*changes, both)
    )


def surely_moves(levels: Sequence[Level]) -> bool:
    """Whether one of the last two doublings of K changed B_crit by more than its interval allows."""
    return any(abs(change) - error > math.log(_STILL_AT_MOST) for change, error in last_changes(levels))


def last_changes(levels: Sequence[Level]) -> list[tuple[float, float]]:
    """What the last two doublings of K changed of log B_crit, and the half width of its interval after each."""
    found: list[tuple[float, float]] = []
    after = [level for level in levels if level.steps >= _STILL_FROM]
    while len(found) < 2 and after and (before := before_doubling(after)) is not None:
        change = after[-1].fit.log_critical - before.fit.log_critical
        found.append((change, after[-1].fit.log_error))
        after = after[: after.index(before) + 1]
    return found
