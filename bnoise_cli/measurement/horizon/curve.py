"""The horizon curve under way, derived anew from all runs whenever there are more, and whether it stands still."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bnoise_cli.maths.horizon import Level, fit_law
from bnoise_cli.measurement.horizon.ladder import Ladder
from bnoise_cli.measurement.horizon.trained import Trained
from bnoise_cli.measurement.outcome import before_doubling

#: The curve stands still when two doublings of K in a row, from this K on, change B_crit by less than the lower factor,
#: or by less than the higher one within the interval of B_crit: noise moves a curve too. So must both together, because
#: a curve that falls twice does not stand still. The limits must lie within `KNOWN` of B_crit.
_STILL_FROM = 8
_STILL, _STILL_AT_MOST = 1.3, 1.6
KNOWN = 2.0


class Curve:
    """B_crit over the length of training: the levels that were reached, ascending.

    Attributes:
        steps, loss: K and the loss of the last one that was reached, also if no law goes through its steps.
        found: those with a law.
    """

    def __init__(self, trained: Trained, ladder: Ladder, on_level: Callable[[Sequence[Level]], None]) -> None:
        self._trained, self._ladder, self._on_level = trained, ladder, on_level
        self.steps, self.loss = 0, trained.start_loss
        self.found: list[Level] = []

    @property
    def last(self) -> Level:
        return self.found[-1]

    def keep(self, before: int, steps: int, loss: float, *, is_lowest: bool) -> None:
        """Note a level that was reached after the one of `before` steps.

        K of the lowest loss is what the largest batch takes to it.
        """
        best = self._trained.best(self._ladder.sizes[-1], loss)
        if is_lowest and best is not None:
            steps = min(max(before + 1, round(math.exp(best.log_steps))), steps)
        self.steps, self.loss = steps, loss
        self.derive()

    def derive(self) -> None:
        """Derive the curve from all that has been trained. Earlier levels keep their losses and batch sizes."""
        earlier = [level for level in self.found if level.steps < self.steps]
        levels = [self._level(level.steps, level.loss, level.sizes) or level for level in earlier]
        last = self._level(self.steps, self.loss, self._sizes)
        if last is not None:
            self.found = [*levels, last]
        self._on_level(self.found)

    def _level(self, steps: int, loss: float, sizes: Sequence[int]) -> Level | None:
        found = [self._trained.steps_to(size, loss) for size in sizes]
        kept = tuple(point for point in found if point is not None and point.inside)
        fit = fit_law(kept)
        return None if fit is None else Level(steps=steps, loss=loss, fit=fit, arrivals=kept)

    @property
    def _sizes(self) -> list[int]:
        """Trained batch sizes that the law is fitted to; one beyond the ladder is the plan's alone."""
        return sorted(size for size in self._trained.known if size <= self._ladder.sizes[-1])


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
