"""Train one batch size until its best learning rate is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bnoise_cli.maths.crossing import WINDOW
from bnoise_cli.maths.horizon import OUTSIDE_VALLEY, SOON
from bnoise_cli.maths.rate_search import PER_DOUBLING, fastest, is_steep, next_rate
from bnoise_cli.measurement.horizon.trained import NothingKept, Rate, Trained

#: The loss is read when the step has grown by this factor.
_MARK = 1.4
#: It is read as seldom as this factor of steps before any run can have arrived, and twice as often in the first steps,
#: where a rate that is too high shows it.
_SELDOM, _FIRST_STEPS = 4, 8
#: A learning rate is given up for a loss when it has taken this many times the steps of the best rate so far.
_LATE = 1.5
#: Steps of the longest run that a loss needs, as multiples of those of the best rate: a late one must be seen to be
#: late.
LONGEST = WINDOW * _LATE
#: Neighbouring learning rates on the grid are a factor of 2 apart; √2 and 2^(1/4) if the steps of neighbours differ by
#: more than `_CLIFF`, because no parabola can be put through them beside a cliff. 2^(1/8) if the rate is recommended.
_DISTANCES = (PER_DOUBLING, PER_DOUBLING // 2, PER_DOUBLING // 4)
_CLOSEST = (*_DISTANCES, PER_DOUBLING // 8)
_CLIFF = 1.3
#: If a rate has not reached a loss with this many times the examples of a larger batch size, others are tried.
_TOO_MANY = 2


class LearningRates:
    """Searches the learning rates of one batch size after another.

    Args:
        planned: the planned batch size; its learning rate is grid point 0.
        replicates: how many runs of a batch size a learning rate begins with.
    """

    #: Most replicates of a learning rate; only one that is recommended has more.
    most_replicates = 16

    def __init__(self, trained: Trained, *, planned: int, replicates: Callable[[int], int]) -> None:
        self._trained, self._planned, self._replicates = trained, planned, replicates

    def loss_after(self, size: int, steps: int) -> float:
        """Train one batch size; the lowest loss after `steps` over learning rates."""
        first = self._first_point(size)
        found = {point: self._train_for(size, point, steps) for point in self._candidates(size, first)}
        _go_outwards(found, first, lambda: {}, lambda point: {point: self._train_for(size, point, steps)})
        values = [value for value in found.values() if value is not None]
        if not values:
            raise NothingKept
        return min(values)

    def repeat(self, size: int, most: int) -> bool:
        """Double the replicates of the learning rates around the best one; whether they stay at or below `most`."""
        best, rates = self._best_known(size, None), self._trained.converging(size)
        if best is None or 2 * rates[best].replicates > most:
            return False
        for point in [point for point in rates if abs(point - best) <= PER_DOUBLING]:
            self._trained.add_replicates(size, point, 2 * rates[best].replicates)
        return True

    def to_loss(self, size: int, loss: float, steps: int) -> None:
        """Train one batch size until its best learning rate for `loss` is bracketed.

        A learning rate with few replicates, or trained only a little beyond the loss, looks best by luck, and leaves
        better ones behind. So those of the valley get as many replicates as any has, and the search is made again
        from there until it changes nothing.

        Args:
            steps: that the largest batch size takes to `loss`, about.
        """
        first, limit, before = self._first_point(size, loss), self._too_many(size, loss, steps), math.nan
        while True:
            self._bracket(size, loss, first, limit)
            filled = self.fill(size, loss, min(self._trained.most_replicates(size), self.most_replicates))
            best = self._trained.best(size, loss)
            if best is None or (best.log_steps == before and not filled):
                return
            before = best.log_steps

    def confirm(self, size: int, loss: float, steps: int, least: int, count: int) -> None:
        """Make sure of the best learning rate of one batch size, of those that have not diverged.

        Rates that are hardly worse can hide a faster one further up. So twice the best rate is tried or, if rates below
        that diverge, the one just below those. Beside rates that diverge the best one gets `count` replicates; if one
        of them diverges as well, a lower rate is the best.

        Args:
            steps: that the largest batch size takes to `loss`, about.
            least: replicates of the rates around the best one.
        """
        limit, rates = self._too_many(size, loss, steps), self._trained.known[size]
        while (best := self._best_known(size, loss)) is not None:
            diverging = self._diverging(size, best)
            further = diverging - PER_DOUBLING // 4 if diverging is not None else best + PER_DOUBLING
            if further > best and further not in rates:
                at = self._trained.arrival_of(size, best, loss)
                self.arrivals(size, [further], loss, limit=limit, best=at)
                self.fill(size, loss, least)
            elif diverging is None or rates[best].replicates >= count:
                return
            else:
                self._trained.add_replicates(size, best, count)
                self._bracket(size, loss, best, limit, _CLOSEST)
                self.fill(size, loss, least)

    def _diverging(self, size: int, best: int) -> int | None:
        """The lowest learning rate that diverges, of those up to a factor of 2 above the best one."""
        rates = self._trained.known[size]
        above = (point for point in rates if 0 < point - best <= PER_DOUBLING)
        return min((point for point in above if self._trained.has_diverged(size, point)), default=None)

    def _bracket(
        self, size: int, loss: float, first: int, limit: float, distances: Sequence[int] = _DISTANCES
    ) -> None:
        """Search outwards from the learning rate that is expected to be best, not endlessly far from the first."""
        expected = self._first_point(size, loss)
        found = self.arrivals(size, self._candidates(size, expected), loss, limit=limit)

        def train(point: int) -> dict[int, float | None]:
            best = found[known] if (known := fastest(found)) is not None else None
            return self.arrivals(size, [point], loss, limit=limit, best=best)

        _go_outwards(found, first, lambda: self._lowest(size, found), train, distances)

    def arrivals(
        self,
        size: int,
        points: Sequence[int],
        loss: float,
        *,
        limit: float = math.inf,
        best: float | None = None,
        late: float = _LATE,
    ) -> dict[int, float | None]:
        """Train learning rates side by side until each has arrived, diverged or is late.

        Args:
            limit: steps after which all give up if none has arrived.
            best: the fewest steps so far; a rate is late after `late` times as many.
        """
        found: dict[int, float | None] = {}
        rates = {point: self._trained.begin(size, point, self._replicates(size)) for point in points}
        waiting, quiet = list(points), self._quiet(size, loss)

        def decided_at(at: float | None) -> float:
            """Until when a rate goes on: one that seems to have arrived in time until that is sure."""
            if at is not None and at <= limit:
                if best is None or at <= max(OUTSIDE_VALLEY, late / WINDOW) * best:
                    return WINDOW * at
            elif best is None:
                return limit
            return late * best + 1

        while waiting:
            ends: dict[int, float] = {}
            for point in waiting:
                rate, at = rates[point], self._trained.arrival_of(size, point, loss)
                if at is not None and at <= limit and rate.last >= WINDOW * at:
                    found[point] = at
                    best = at if best is None else min(best, at)
                elif self._trained.has_diverged(size, point) or rate.last >= decided_at(at):
                    found[point] = None
                else:
                    ends[point] = decided_at(at)
            waiting = list(ends)
            if waiting:
                step = min(rates[point].last for point in waiting)
                behind = [point for point in waiting if rates[point].last == step]
                last = max(ends[point] for point in behind)
                self._trained.advance(size, behind, math.ceil(min(_next_mark(step, quiet), last)))
        return found

    def fill(self, size: int, loss: float, count: int) -> bool:
        """Bring the learning rates around the best one to `count` replicates; whether any lacked some."""
        lacking = [point for point, rate in self.valley(size, loss).items() if rate.replicates < count]
        for point in lacking:
            self._trained.add_replicates(size, point, count)
        return bool(lacking)

    def reconsider(self, size: int, loss: float) -> bool:
        """Train on the learning rates near the best one that were given up as late; whether there were any.

        They were late beside the best one of that time. If that was lucky, more replicates have made it slower.
        """
        best = self._trained.best(size, loss)
        if best is None:
            return False
        first, rates = self._first_point(size, loss), self._trained.converging(size)
        near = {point: rate.last for point, rate in rates.items() if abs(point - first) <= PER_DOUBLING}
        self.arrivals(size, list(near), loss, best=math.exp(best.log_steps))
        return any(rates[point].last > last for point, last in near.items())

    def valley(self, size: int, loss: float) -> dict[int, Rate]:
        """The learning rates that decide S_B(ℓ): those near the best one that take hardly longer."""
        rates = self._trained.converging(size)
        arrived = {point: at for point in rates if (at := self._trained.arrival_of(size, point, loss))}
        best = fastest(arrived)
        if best is None:
            return {}
        return {
            point: rates[point]
            for point, at in arrived.items()
            if abs(point - best) <= PER_DOUBLING and at <= OUTSIDE_VALLEY * arrived[best]
        }

    def _train_for(self, size: int, point: int, steps: int) -> float | None:
        """The loss after `steps`; None if the learning rate diverges, or does not keep a loss below the start."""
        rate = self._trained.begin(size, point, self._replicates(size))
        target = max(steps + 1, math.ceil(WINDOW * steps))
        while not self._trained.has_diverged(size, point):
            if rate.last < target:
                self._trained.advance(size, [point], min(target, _next_mark(rate.last)))
                continue
            if not self._trained.is_thrown_up(size, point):  # for a few steps, or for good
                loss = self._trained.loss_after(size, point, steps)
                if loss is None or loss >= self._trained.start_loss:  # momentum can raise it first
                    return loss
                if self._trained.arrival_of(size, point, loss) is not None:
                    return loss
                if rate.last >= SOON * target:
                    return None
            self._trained.advance(size, [point], _next_mark(rate.last))
        return None

    def _lowest(self, size: int, found: dict[int, float | None]) -> dict[int, float]:
        """The lowest mean loss of the learning rates that were tried and did not diverge."""
        return {
            point: min(rate.means) for point, rate in self._trained.converging(size).items() if point in found
        }

    def _quiet(self, size: int, loss: float) -> float:
        """Steps before which no run can have arrived: a larger batch size does not take more."""
        return self._larger(size, loss)[1] / WINDOW

    def _too_many(self, size: int, loss: float, steps: int) -> float:
        """Steps after which a learning rate is too high or too low: a larger batch size takes no fewer examples."""
        larger, taken = self._larger(size, loss)
        if taken:
            return _TOO_MANY * taken * larger / size
        return _TOO_MANY * steps * max([size, *self._trained.known]) / size

    def _larger(self, size: int, loss: float) -> tuple[int, float]:
        """The next larger batch size, and its steps to the loss; 0 if it has not reached that or there is none."""
        larger = min((other for other in self._trained.known if other > size), default=0)
        best = self._trained.best(larger, loss)
        return larger, math.exp(best.log_steps) if best is not None else 0.0

    def _candidates(self, size: int, first: int) -> list[int]:
        """Learning rates to look at together: the one that is expected to be best, and a neighbour on either side."""
        known = self._trained.converging(size)
        if not self._trained.known.get(size):
            return [first + side * PER_DOUBLING for side in (1, 0, -1)]
        near = [point for point in known if abs(point - first) <= PER_DOUBLING]
        above = min((point for point in near if point > first), default=None)
        below = max((point for point in near if point < first), default=None)
        return [point for point in (above, first if first in near else None, below) if point is not None]

    def _first_point(self, size: int, loss: float | None = None) -> int:
        """The best known grid point, or that of the nearest size by the square root of the ratio."""
        if (own := self._best_known(size, loss)) is not None:
            return own
        if tried := self._trained.known.get(size):  # every rate diverged
            return min(tried) - PER_DOUBLING
        best = {other: self._best_known(other, loss) for other in self._trained.known}
        known = {other: point for other, point in best.items() if point is not None} or {self._planned: 0}
        nearest = min(known, key=lambda other: abs(math.log(size / other)))
        return known[nearest] + round(PER_DOUBLING * 0.5 * math.log2(size / nearest))

    def _best_known(self, size: int, loss: float | None) -> int | None:
        """The learning rate that reached `loss` first, or else the one with the lowest last loss."""
        rates = self._trained.converging(size)
        if loss is not None and rates and (best := self._trained.best(size, loss)) is not None:
            return min(rates, key=lambda point: abs(point / PER_DOUBLING - best.log_rate))
        return min(rates, key=lambda point: rates[point].means[-1], default=None)


def _go_outwards(
    found: dict[int, float | None],
    first: int,
    lowest: Callable[[], dict[int, float]],
    train: Callable[[int], dict[int, float | None]],
    distances: Sequence[int] = _DISTANCES,
) -> None:
    """Train further learning rates until the best one has worse ones on both sides, closer together beside a cliff.

    Args:
        found: grid point → steps or loss, of those that were tried; the further ones are added.
        first: where the search began.
        lowest: the lowest loss of each rate that did not diverge, as `next_rate` takes it.
        train: finds the same of one more learning rate.
        distances: between neighbours, in grid points.
    """
    for distance in distances:
        if distance != distances[0] and not is_steep(found, 2 * distance, _CLIFF):
            break
        while (point := next_rate(found, first, lowest(), distance)) is not None:
            found |= train(point)


def _next_mark(step: int, quiet: float = 0.0) -> int:
    """The next step at which the loss is read; seldom before `quiet`, because reading it costs more than training."""
    usual = max(step + 1, math.floor(step * _MARK))
    seldom = _SELDOM if step >= _FIRST_STEPS else _SELDOM // 2
    return max(usual, min(seldom * step, math.ceil(quiet)))
