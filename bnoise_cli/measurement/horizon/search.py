"""Which short runs to train for the horizon: batch sizes, learning rates, lengths and replicates.

Nothing here knows torch: `Runs` trains, and a test puts an exactly known problem in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from bnoise_cli.maths.crossing import WINDOW, smoothed_at
from bnoise_cli.maths.horizon import (
    CLOSE,
    COARSE,
    LawFit,
    Level,
    RateRuns,
    StepsTo,
    arrival,
    fit_law,
    pooled_variances,
    steps_to,
)
from bnoise_cli.maths.rate_search import PER_DOUBLING, is_steep, next_rate

#: The first ladder of batch sizes, as multiples of the guess; they lie a factor of 4 apart.
_LADDER = (1 / 8, 1 / 2, 2, 8)
#: The ladder is moved until B_crit lies at least this factor inside its ends.
_INSIDE = 3.0
#: More batch sizes than this are given up from that end whose second size lies this factor beyond B_crit.
_SIZES, _FAR_ENOUGH = 4, 4.0
#: Replicates at the smallest batch size of the ladder; each next size has half as many, and none fewer than the least.
#: A learning rate is first tried, and the ladder is moved, with a quarter of them.
_MOST_REPLICATES, _LEAST_REPLICATES, _AT_FIRST = 12, 2, 4
#: Replicates are doubled at most this many times for a narrower interval.
_MOST_DOUBLINGS = 2
#: The loss is read when the step has grown by this factor.
_MARK = 1.4
#: It is read as seldom as this factor of steps before any run can have arrived.
_SELDOM = 4
#: A learning rate is given up for a loss when it has taken this many times the steps of the best rate so far.
_LATE = 1.5
#: The planned learning rate may take this many times the steps of the best one before it is given up.
_LATE_PLAN = 6.0
#: The planned batch size is trained if it lies within this factor of B_crit.
_FAR = 40.0
#: Part of the budget that is kept for the planned batch size and for more replicates.
_PART_OF_PLAN = 0.25
#: A loss above the start by this part of it has diverged; merely chosen.
_DIVERGED = 1.0
#: Neighbouring learning rates on the grid are a factor of 2 apart; √2 and 2^(1/4) if the steps of neighbours differ by
#: more than this factor, because no parabola can be put through them beside a cliff. Once K is known, the factor is
#: the lower one.
_DISTANCES = (PER_DOUBLING, PER_DOUBLING // 2, PER_DOUBLING // 4)
_CLIFF, _LAST_CLIFF = 1.3, 1.08
#: Learning rates within this distance of the best, in powers of two, decide its steps.
_NEAR = 1.01
#: The first level lies this many steps of the largest batch ahead, while the ladder is still moved.
FIRST_STEPS = 4
#: No answer before this many steps of the largest batch: the first steps of a run gain in sharp directions what
#: later steps cannot repeat.
_FEWEST_STEPS = 16
#: The curve stands still when two doublings of K in a row change B_crit by less than the lower factor, or by less than
#: the higher one within the interval of B_crit: noise moves a curve too.
_STILL, _STILL_AT_MOST = 1.3, 1.6
#: Most moves of the ladder at one level, against going round in circles.
_MOST_MOVES = 4


class BudgetSpent(Exception):  # noqa: N818  an event, not a mistake
    """The time or the examples that the horizon may take are spent."""


class Runs(Protocol):
    """Training runs from one start, kept where they ended."""

    def extend(
        self, batch_size: int, points: Sequence[int], replicates: range, step: int
    ) -> list[list[float]]:
        """Train runs on to `step` and read their losses.

        Args:
            points: learning rates on the grid of `maths.rate_search`.
            replicates: which runs at each.

        Returns:
            The loss of every replicate at every learning rate; NaN or infinite if it diverged.

        Raises:
            BudgetSpent: nothing more may be trained.
        """

    def allow(self, part: float) -> None:
        """Spend no more than this part of the budget until told otherwise."""


@dataclass
class _Rate:
    """What is known of one learning rate at one batch size."""

    steps: list[int] = field(default_factory=lambda: [0])
    losses: list[list[float]] = field(default_factory=list)
    diverged: bool = False

    @property
    def replicates(self) -> int:
        return len(self.losses[0])

    def as_runs(self) -> RateRuns:
        return RateRuns(self.steps, np.array(self.losses).T)


class Search:
    """A horizon under way.

    Args:
        start_loss: the loss before the first step, on the evaluation examples.
        guess: where B_crit is looked for first, in examples.
        planned: the planned batch size; its learning rate is grid point 0.
        least, most: the smallest and the largest batch size of the ladder.
        group: every batch size is a multiple of it.
        most_steps: K, the last level, or None if the curve decides.
        precision: relative half width of the interval of B_crit that is aimed at.
    """

    def __init__(
        self,
        runs: Runs,
        *,
        start_loss: float,
        guess: float,
        planned: int,
        least: int = 1,
        most: int = 2**40,
        group: int = 1,
        most_steps: int | None = None,
        precision: float = 0.3,
        first_steps: int = FIRST_STEPS,
        on_level: Callable[[Sequence[Level]], None] = lambda _: None,
    ) -> None:
        self._runs, self.start_loss, self._planned = runs, start_loss, planned
        self._least, self._most, self._group = least, most, group
        self._most_steps, self._precision, self._first_steps = most_steps, precision, first_steps
        self._on_level = on_level
        self.known: dict[int, dict[int, _Rate]] = {}
        self.ladder = self._ladder(guess)
        self._settled, self._reached, self._cliff = False, 0, _CLIFF
        self.levels: list[Level] = []
        self.complete = False

    # ---- the story ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Double K until the curve stands still and is known well enough, or the budget is spent."""
        self._runs.allow(1 - _PART_OF_PLAN)
        try:
            self._climb()
            self.complete = True
        except BudgetSpent:
            pass
        self._runs.allow(1.0)
        if not self.levels:
            return
        try:
            self._refine()
            self._train_plan()
            self._note()
            for _ in range(_MOST_DOUBLINGS):
                if self._is_precise():
                    break
                self._add_replicates(lambda size: 2 * self._most_replicates(size))
        except BudgetSpent:
            pass

    def _climb(self) -> None:
        """Level after level, until the curve stands still in a close search of the learning rates too."""
        steps = min(self._first_steps, self._most_steps or self._first_steps)
        self._reach(steps)
        self._settled = True
        self._add_replicates(self._usual_replicates)
        while steps != self._most_steps:
            if self.stands_still:
                self._refine()
                if self.stands_still:
                    break
            steps = min(2 * steps, self._most_steps or 2 * steps)
            self._cliff = _CLIFF
            self._reach(steps)

    def _refine(self) -> None:
        """Search the learning rates of the last level closely."""
        self._cliff = _LAST_CLIFF
        self._reach(self._reached)

    @property
    def stands_still(self) -> bool:
        """Whether the last two doublings of K left B_crit where it was."""
        if len(self.levels) < 3 or self.levels[-1].steps < _FEWEST_STEPS:
            return False
        if self.levels[-1].fit.log_error > math.log(2):
            return False
        return all(
            abs(after.fit.log_critical - before.fit.log_critical)
            <= min(max(math.log(_STILL), after.fit.log_error), math.log(_STILL_AT_MOST))
            for before, after in pairwise(self.levels[-3:])
        )

    @property
    def obstacle(self) -> str | None:
        """Why no level was reached, as far as the largest batch shows it; None if it shows nothing of the kind."""
        tried = self.known.get(self.ladder[-1], {})
        if self.levels or not tried:
            return None
        if all(rate.diverged for rate in tried.values()):
            return "the loss diverges at every learning rate that was tried"
        trained = [rate for rate in tried.values() if len(rate.losses) > 1]
        lowest = min(
            (float(np.nanmin(np.mean(rate.losses[1:], axis=1))) for rate in trained if not rate.diverged),
            default=None,
        )
        if lowest is not None and lowest >= self.start_loss:
            return f"the loss does not fall below {self.start_loss:.3g}, where it starts, at any learning rate tried"
        return None

    def _is_precise(self) -> bool:
        """Whether the interval is as narrow as asked, or more replicates would hardly make it narrower."""
        last = self.levels[-1]
        noise = float(np.max(pooled_variances(last.arrivals)))
        return last.fit.log_error <= math.log1p(self._precision) or noise < (2 * CLOSE) ** 2

    def _train_plan(self) -> None:
        """Train the planned batch size too: at its best learning rate, and at the planned one."""
        level, size = self.levels[-1], self._planned
        if abs(math.log(size) - level.fit.log_critical) > math.log(_FAR):
            return
        if size not in self.ladder:
            self._to_loss(size, level.loss)
        best = self.steps_to(size, level.loss)
        if best is not None:
            self._arrivals(size, [0], level.loss, best=math.exp(best.log_steps), late=_LATE_PLAN)

    # ---- one level ---------------------------------------------------------------------------------------------

    def _reach(self, steps: int) -> None:
        """Train until every batch size of the ladder has reached the loss of the largest after `steps`."""
        for _ in range(_MOST_MOVES):
            loss = self._loss_after(self.ladder[-1], steps)
            arrivals = [self._to_loss(size, loss) for size in reversed(self.ladder)]
            fit = fit_law([found for found in arrivals if found is not None])
            if fit is None or not self._move(fit):
                break
            self._trim(fit.log_critical)
        self._reached = steps
        self._note()
        if self.levels:
            self._trim(self.levels[-1].fit.log_critical)

    def _trim(self, critical: float) -> None:
        """Leave out batch sizes far from B_crit: the largest take many examples, the smallest many steps."""
        while len(self.ladder) > _SIZES and math.log(self.ladder[-2]) >= critical + math.log(_FAR_ENOUGH):
            self.ladder.pop()
        while len(self.ladder) > _SIZES and math.log(self.ladder[1]) <= critical - math.log(_FAR_ENOUGH):
            self.ladder.pop(0)

    def _note(self) -> None:
        """Derive the curve from all that has been trained. Earlier levels keep their losses and batch sizes."""
        largest, steps = self.ladder[-1], self._reached
        loss = self._best_loss(largest, steps)
        earlier = [level for level in self.levels if level.steps < steps]
        levels = [self._level(level.steps, level.loss, level.sizes) or level for level in earlier]
        last = self._level(steps, loss, self.sizes) if loss is not None else None
        if last is not None:
            self.levels = [*levels, last]
        self._on_level(self.levels)

    def _level(self, steps: int, loss: float, sizes: Sequence[int]) -> Level | None:
        found = [self.steps_to(size, loss) for size in sizes]
        kept = tuple(point for point in found if point is not None and point.inside)
        fit = fit_law(kept, CLOSE if self._cliff == _LAST_CLIFF else COARSE)
        return None if fit is None else Level(steps=steps, loss=loss, fit=fit, arrivals=kept)

    @property
    def sizes(self) -> list[int]:
        """Trained batch sizes that the law is fitted to; one beyond the ladder is the plan's alone."""
        return sorted(size for size in self.known if size <= self.ladder[-1])

    def arrival_of(self, size: int, point: int, loss: float) -> float | None:
        """Steps of one learning rate to a loss; None if it has not reached it."""
        return arrival(self.known[size][point].as_runs(), loss)

    def steps_to(self, size: int, loss: float) -> StepsTo | None:
        """S_B(ℓ) from what is known."""
        rates = {
            point / PER_DOUBLING: rate.as_runs()
            for point, rate in self.known[size].items()
            if len(rate.losses) > 1
        }
        return steps_to(size, rates, loss)

    def _loss_after(self, size: int, steps: int) -> float:
        """Train the largest batch and find the lowest loss after `steps` over learning rates."""
        found: dict[int, float | None] = {}
        target = max(steps + 1, math.ceil(WINDOW * steps))
        first = self._first_point(size)
        for point in self._candidates(size, first):
            found[point] = self._loss_of(size, point, steps, target)
        for distance in _DISTANCES:
            if distance != _DISTANCES[0] and not is_steep(found, 2 * distance, self._cliff):
                break
            while (further := next_rate(found, first, {}, distance)) is not None:
                found[further] = self._loss_of(size, further, steps, target)
        values = [value for value in found.values() if value is not None]
        if not values:
            raise BudgetSpent  # every learning rate diverges; the caller says so
        return min(values)

    def _loss_of(self, size: int, point: int, steps: int, target: int) -> float | None:
        rate = self._rate(size, point)
        while rate.steps[-1] < target and not rate.diverged:
            self._advance(size, [point], min(target, _next_mark(rate.steps[-1])))
        return self._smoothed(rate, steps)

    def _smoothed(self, rate: _Rate, steps: int) -> float | None:
        if rate.diverged or rate.steps[-1] < steps:
            return None
        mean = np.mean(np.array(rate.losses), axis=1)
        return smoothed_at(rate.steps, list(mean), steps)

    def _best_loss(self, size: int, steps: int) -> float | None:
        values = [self._smoothed(rate, steps) for rate in self.known[size].values()]
        return min((value for value in values if value is not None), default=None)

    def _to_loss(self, size: int, loss: float) -> StepsTo | None:
        """Train one batch size until its best learning rate for `loss` is bracketed."""
        first = self._first_point(size, loss)
        points = self._candidates(size, first)
        found = self._arrivals(size, points, loss)
        for distance in _DISTANCES:
            if distance != _DISTANCES[0] and not is_steep(found, 2 * distance, self._cliff):
                break
            while (point := next_rate(found, first, self._lowest(size, found), distance)) is not None:
                found |= self._arrivals(size, [point], loss, best=_least(found))
        # A learning rate with few replicates looks best by luck: those around the best have as many.
        while (best := self.steps_to(size, loss)) is not None and self._settled:
            if not self._fill(size, best.log_rate, self._usual_replicates(size)):
                break
        return best

    def _lowest(self, size: int, found: dict[int, float | None]) -> dict[int, float]:
        """The lowest mean loss of the learning rates that were tried and did not diverge."""
        return {
            point: float(np.min(np.mean(np.array(rate.losses), axis=1)))
            for point in found
            if not (rate := self.known[size][point]).diverged
        }

    def _arrivals(
        self,
        size: int,
        points: Sequence[int],
        loss: float,
        best: float | None = None,
        late: float = _LATE,
    ) -> dict[int, float | None]:
        """Train learning rates side by side until each has arrived, diverged or is late."""
        found: dict[int, float | None] = {}
        waiting, quiet = list(points), self._quiet(size, loss)
        while waiting:
            for point in list(waiting):
                rate = self._rate(size, point)
                at = arrival(rate.as_runs(), loss) if len(rate.losses) > 1 else None
                if at is not None and (rate.steps[-1] >= WINDOW * at or rate.diverged):
                    found[point] = at
                    best = at if best is None else min(best, at)
                elif rate.diverged or (best is not None and rate.steps[-1] >= late * best + 1):
                    found[point] = None
                elif best is None and rate.steps[-1] >= self._too_many(size, loss):
                    found[point] = None
                else:
                    continue
                waiting.remove(point)
            if waiting:
                step = min(self._rate(size, point).steps[-1] for point in waiting)
                behind = [point for point in waiting if self._rate(size, point).steps[-1] == step]
                self._advance(size, behind, _next_mark(step, quiet))
        return found

    def _quiet(self, size: int, loss: float) -> float:
        """Steps before which no run can have arrived: a larger batch size does not take more."""
        larger = min((other for other in self.known if other > size), default=None)
        there = self.steps_to(larger, loss) if larger is not None else None
        return math.exp(there.log_steps) / WINDOW if there is not None else 0.0

    def _too_many(self, size: int, loss: float) -> float:
        """Steps after which a batch size whose learning rates all miss the loss is searched at other rates."""
        largest = self.ladder[-1]
        there = self.steps_to(largest, loss) if largest in self.known and size != largest else None
        steps = math.exp(there.log_steps) if there is not None else float(self._first_steps)
        return 4 * steps * (1 + largest / size)

    # ---- learning rates and batch sizes ------------------------------------------------------------------------

    def _candidates(self, size: int, first: int) -> list[int]:
        """Learning rates to look at together: around the one that is expected to be best."""
        known = self.known.get(size, {})
        if not known:
            return [first + side * PER_DOUBLING for side in (1, 0, -1)]
        return [point for point in known if abs(point - first) <= PER_DOUBLING and not known[point].diverged]

    def _first_point(self, size: int, loss: float | None = None) -> int:
        """The best known grid point, or that of the nearest size by the square root of the ratio."""
        if (own := self._best_known(size, loss)) is not None:
            return own
        if size in self.known:  # every rate diverged
            return min(self.known[size]) - PER_DOUBLING
        best = {other: self._best_known(other, loss) for other in self.known}
        known = {other: point for other, point in best.items() if point is not None} or {self._planned: 0}
        nearest = min(known, key=lambda other: abs(math.log(size / other)))
        return known[nearest] + round(PER_DOUBLING * 0.5 * math.log2(size / nearest))

    def _best_known(self, size: int, loss: float | None) -> int | None:
        """The learning rate that reached `loss` first, or else the one with the lowest last loss."""
        rates = {point: rate for point, rate in self.known.get(size, {}).items() if not rate.diverged}
        if loss is not None and rates and (there := self.steps_to(size, loss)) is not None:
            return self._nearest(size, there.log_rate)
        return min(rates, key=lambda point: float(np.mean(rates[point].losses[-1])), default=None)

    def _nearest(self, size: int, log_rate: float) -> int:
        return min(self.known[size], key=lambda point: abs(point / PER_DOUBLING - log_rate))

    def _move(self, fit: LawFit) -> bool:
        """Add a batch size beyond the end that B_crit is too near to; whether there was one to add.

        At first B_crit must be surely below the ladder to lower it: small batches take long, and noise and momentum
        can decide the first few steps.
        """
        low, high = self.ladder[0], self.ladder[-1]
        sure = 0.0 if self._settled else fit.log_error
        if fit.log_critical + sure < math.log(_INSIDE * low) and (smaller := self._allowed(low / 4)) < low:
            self.ladder.insert(0, smaller)
            return True
        if fit.log_critical > math.log(high / _INSIDE) and (larger := self._allowed(high * 4)) > high:
            self.ladder.append(larger)
            return True
        return False

    def _ladder(self, guess: float) -> list[int]:
        sizes = sorted({self._allowed(guess * part) for part in _LADDER})
        while len(sizes) < 3 and (larger := self._allowed(4 * sizes[-1])) > sizes[-1]:
            sizes.append(larger)
        while len(sizes) < 3 and (smaller := self._allowed(sizes[0] / 4)) < sizes[0]:
            sizes.insert(0, smaller)
        return sizes

    def _allowed(self, size: float) -> int:
        """The nearest power of two of groups between the least and the most."""
        least, most = max(self._least, self._group), max(self._most, self._group)
        groups = 2.0 ** round(math.log2(max(size / self._group, 1)))
        return int(self._group * min(max(groups, least // self._group), most // self._group))

    # ---- training ----------------------------------------------------------------------------------------------

    def _rate(self, size: int, point: int) -> _Rate:
        rates = self.known.setdefault(size, {})
        if point not in rates:
            few = -(-self._usual_replicates(size) // _AT_FIRST)
            rates[point] = _Rate(losses=[[self.start_loss] * few])
        return rates[point]

    def _usual_replicates(self, size: int) -> int:
        """Fewer at larger batch sizes, which have less noise and cost more."""
        place = max(sum(other < size for other in self.ladder), 0)
        return max(_MOST_REPLICATES >> place, _LEAST_REPLICATES)

    def _most_replicates(self, size: int) -> int:
        return max(rate.replicates for rate in self.known[size].values())

    def _add_replicates(self, wanted: Callable[[int], int]) -> None:
        """Train more replicates around the best learning rate of every batch size, as far as the others went."""
        arrivals = self.levels[-1].arrivals if self.levels else ()
        for found in (point for point in arrivals if point.batch_size in self.ladder):
            self._fill(found.batch_size, found.log_rate, wanted(found.batch_size))
        self._note()

    def _fill(self, size: int, log_rate: float, count: int) -> bool:
        """Bring the learning rates around one to `count` replicates; whether any lacked some."""
        lacking = {
            point: rate
            for point, rate in self.known[size].items()
            if rate.replicates < count and not rate.diverged and abs(point / PER_DOUBLING - log_rate) <= _NEAR
        }
        for point, rate in lacking.items():
            added = range(rate.replicates, count)
            fresh = [[self.start_loss] * len(added)]
            for step in rate.steps[1:]:
                fresh += self._runs.extend(size, [point], added, step)
            rate.losses = [old + new for old, new in zip(rate.losses, fresh, strict=True)]
            rate.diverged = self._have_diverged(rate.losses[-1])
        return bool(lacking)

    def _advance(self, size: int, points: Sequence[int], step: int) -> None:
        counts = {point: self._rate(size, point).replicates for point in points}
        for count in set(counts.values()):
            chosen = [point for point in points if counts[point] == count]
            losses = self._runs.extend(size, chosen, range(count), step)
            for point, found in zip(chosen, losses, strict=True):
                rate = self.known[size][point]
                rate.steps.append(step)
                rate.losses.append(found)
                rate.diverged = self._have_diverged(found)

    def _have_diverged(self, losses: Sequence[float]) -> bool:
        """Whether replicates diverged, by their mean loss; one that is not finite is enough."""
        mean = math.fsum(losses) / len(losses)
        return not mean <= self.start_loss + _DIVERGED * abs(self.start_loss)


def _next_mark(step: int, quiet: float = 0.0) -> int:
    """The next step at which the loss is read; seldom before `quiet`, because reading it costs more than training."""
    usual = max(step + 1, math.floor(step * _MARK))
    return usual if usual >= quiet else min(max(step + 1, _SELDOM * step), math.ceil(quiet))


def _least(found: dict[int, float | None]) -> float | None:
    return min((steps for steps in found.values() if steps is not None), default=None)
