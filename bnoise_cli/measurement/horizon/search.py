"""The horizon's search: which batch sizes, how far ahead, and how many replicates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bnoise_cli.maths.horizon import Level, StepsTo, excludes, fit_law
from bnoise_cli.maths.steps_fit import StepsFit
from bnoise_cli.measurement.horizon.curve import KNOWN, last_changes, stands_still, surely_moves
from bnoise_cli.measurement.horizon.ladder import Ladder
from bnoise_cli.measurement.horizon.learning_rates import LONGEST, LearningRates
from bnoise_cli.measurement.horizon.nearby import around_recommended, most_useful
from bnoise_cli.measurement.horizon.trained import BudgetSpent, Runs, Trained
from bnoise_cli.measurement.outcome import is_far, lowest_loss

#: Replicates that a learning rate begins with, from the smallest batch size of the ladder on: larger batches have less
#: noise and cost more.
_FIRST_REPLICATES = (4, 2, 1)
#: Where only the largest batch size reaches its loss, one of its few runs was lucky: it gets up to so many.
_MOST_REPEATS = 8
#: Every batch size that decides the answer has at least so many replicates.
_LEAST_REPLICATES = 2
#: At the end the learning rates of the planned batch size, and of those from B_crit over the second number to B_crit
#: times the third, have at least the first number of replicates: a recommendation lies there, and the best rate of two
#: replicates is the luckiest.
_SETTLED, _BELOW, _ABOVE = 4, 4.5, 2.2
#: One more batch size is trained if those around the recommended one lie further apart than this: best learning rates
#: do not lie on a straight line over a factor of four.
_GAP = 2.0
#: None of this many runs at the best learning rates of these two batch sizes may diverge.
_CONFIRMED = 16
#: The planned learning rate may take this many times the steps of the best one before it is given up.
_LATE_PLAN = 6.0
#: The planned batch size is trained if it lies within this factor of B_crit.
_FAR = 40.0
#: Part of the budget that is kept for the planned batch size and for more replicates.
_PART_OF_PLAN = 0.25
#: The first level lies this many steps of the largest batch ahead, while the ladder is still moved.
_FIRST_STEPS = 4
#: A low loss ends the runs after this many steps of the largest batch at the earliest: the first steps of a run gain in
#: sharp directions what later steps cannot repeat.
_FEWEST_STEPS = 16
#: From this level on K grows by less than a factor of 2 if the budget holds no more, and by at least the second.
_FITTED_FROM, _LEAST_GROWTH = 8, 1.25
#: At the first level the ladder is moved only if B_crit surely lies beyond it; later also if the limits of B_crit lie
#: within a factor of 4 of it.
_SURE = math.log(4)
#: Most moves of the ladder at one level, against going round in circles.
_MOST_MOVES = 4


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
        on_level: Callable[[Sequence[Level]], None] = lambda _: None,
    ) -> None:
        self._runs, self._planned = runs, planned
        self._most_steps, self._precision = most_steps, precision
        self._on_level = on_level
        self._ladder = Ladder(guess, least=least, most=most, group=group)
        self.trained = Trained(runs, start_loss)
        self._rates = LearningRates(self.trained, planned=planned, replicates=self._first_replicates)
        self.safe = self.trained.strict()
        self._safe_rates = LearningRates(self.safe, planned=planned, replicates=self._first_replicates)
        self._reached, self._loss = 0, start_loss
        self.levels: list[Level] = []
        self.complete = False

    @property
    def ladder(self) -> list[int]:
        """Batch sizes that are trained now, ascending."""
        return self._ladder.sizes

    def run(self) -> None:
        """Double K until the curve stands still or the loss is low; the budget ends it earlier.

        What is trained at the end can show that the curve does not stand still: then K is doubled further.
        """
        while not self.complete:
            climbed = self._within(1 - _PART_OF_PLAN, self._climb)
            if not self.levels:
                return
            if not climbed:
                self._leave_level()
            finished = self._within(1.0, self._finish)
            self._note()
            if not (climbed and finished):
                return
            self.complete = self._is_over

    def _within(self, part: float, work: Callable[[], None]) -> bool:
        """Whether some work came to its end within a part of the budget."""
        self._runs.allow(part)
        try:
            work()
        except BudgetSpent:
            return False
        return True

    def _climb(self) -> None:
        while not self._stops():
            steps = 2 * self._reached or _FIRST_STEPS
            self._reach(self._affordable(min(steps, self._most_steps or steps)))

    def _affordable(self, steps: int) -> int:
        """The next K: fewer `steps` if the budget holds no more.

        Going on from K to K·g takes about g − 1 times what the runs have taken so far.

        Raises:
            BudgetSpent: it holds hardly more than K.
        """
        if self._reached < _FITTED_FROM:
            return steps
        wanted = steps / self._reached
        growth = self._runs.growth(1 - _PART_OF_PLAN, wanted)
        if growth < min(_LEAST_GROWTH, wanted):
            raise BudgetSpent
        return round(growth * self._reached)

    def _leave_level(self) -> None:
        """Leave out what runs on their way to the next level have read: more replicates need not go as far."""
        for there in self.levels[-1].arrivals:
            for point in self.trained.known[there.batch_size]:
                if (there.batch_size, point) != (self._planned, 0):
                    self.trained.cut(there.batch_size, point, LONGEST * math.exp(there.log_steps))

    def _finish(self) -> None:
        """What the last level needs besides: the planned batch, replicates, and the best learning rates."""
        self._train_plan()
        self._note()
        self._sharpen(1 + self._precision)
        self._settle_rates()
        self._confirm_rates()

    def _reach(self, steps: int) -> None:
        """Train until every batch size of the ladder has reached the loss of the largest after `steps`.

        Raises:
            BudgetSpent: also if that is no lower than the last level's, because the rate that reached it has diverged.
        """
        before, last = self._reached, self._loss
        ends = before >= _FEWEST_STEPS and not self._most_steps
        lowest = lowest_loss(self.trained.start_loss) if ends else -math.inf
        for moves in range(1, _MOST_MOVES + 1):
            loss = max(self._rates.loss_after(self.ladder[-1], steps), lowest)
            if self._loss == lowest:  # the last level, with other batch sizes
                loss = lowest
            elif 0 < before < steps and loss >= last:
                raise BudgetSpent
            if (
                loss >= self.trained.start_loss
            ):  # momentum of the start; a loss that is there already says nothing
                self._reached = steps
                return
            fit, is_sure = self._train_ladder(steps, loss)
            if fit is None and self._rates.repeat(self.ladder[-1], _MOST_REPEATS):
                continue
            moved = fit is not None and self._ladder.move(fit.log_critical, is_sure)
            if not moved or before >= _FITTED_FROM or moves == _MOST_MOVES:
                self._keep(before, steps, loss, is_lowest=loss == lowest)
            if not moved:
                break
            assert fit is not None
            self._ladder.trim(fit.log_critical)
        if self.levels:
            self._ladder.trim(self.levels[-1].fit.log_critical)

    def _keep(self, before: int, steps: int, loss: float, *, is_lowest: bool) -> None:
        """Note a level that was reached. K of the lowest loss is what the largest batch takes to it."""
        best = self.trained.best(self.ladder[-1], loss)
        if is_lowest and best is not None:
            steps = min(max(before + 1, round(math.exp(best.log_steps))), steps)
        self._reached, self._loss = steps, loss
        self._note()

    def _train_ladder(self, steps: int, loss: float) -> tuple[StepsFit | None, Callable[[float], bool]]:
        """The law through the steps of every batch size; of the larger ones alone if they say that larger ones lack.

        Returns:
            (fit, whether B_crit surely differs from a limit)
        """
        arrivals: list[StepsTo] = []
        fit: StepsFit | None = None

        def is_sure(log_limit: float) -> bool:
            assert fit is not None
            known = self._reached > 0 and fit.log_error <= _SURE
            return known or excludes(arrivals, fit, log_limit)

        for size in reversed(self.ladder):
            self._rates.to_loss(size, loss, steps)
            if (found := self.trained.steps_to(size, loss)) is not None:
                arrivals.append(found)
            fit = fit_law(arrivals)
            if fit is not None and self._ladder.is_low(fit.log_critical, is_sure):
                break
        return fit, is_sure

    # ---- the curve ---------------------------------------------------------------------------------------------

    def _note(self) -> None:
        """Derive the curve from all that has been trained. Earlier levels keep their losses and batch sizes."""
        earlier = [level for level in self.levels if level.steps < self._reached]
        levels = [self._level(level.steps, level.loss, level.sizes) or level for level in earlier]
        last = self._level(self._reached, self._loss, self._sizes)
        if last is not None:
            self.levels = [*levels, last]
        self._on_level(self.levels)

    def _level(self, steps: int, loss: float, sizes: Sequence[int]) -> Level | None:
        found = [self.trained.steps_to(size, loss) for size in sizes]
        kept = tuple(point for point in found if point is not None and point.inside)
        fit = fit_law(kept)
        return None if fit is None else Level(steps=steps, loss=loss, fit=fit, arrivals=kept)

    @property
    def _sizes(self) -> list[int]:
        """Trained batch sizes that the law is fitted to; one beyond the ladder is the plan's alone."""
        return sorted(size for size in self.trained.known if size <= self.ladder[-1])

    def _stops(self) -> bool:
        """Whether K is doubled no further, with as many replicates as the last interval needs to tell."""
        if (
            self._is_over
            or self._most_steps
            or len(last_changes(self.levels)) < 2
            or surely_moves(self.levels)
        ):
            return self._is_over
        self._sharpen(KNOWN)
        if self.stands_still:
            self._sharpen(1 + self._precision)
        return self.stands_still

    @property
    def _is_over(self) -> bool:
        """Whether the asked level is reached; without one, whether the loss is low or the curve stands still."""
        if self._most_steps:
            return self._reached == self._most_steps
        is_low = self._reached >= _FEWEST_STEPS and is_far(self.trained.start_loss, self._loss)
        return is_low or self.stands_still

    @property
    def stands_still(self) -> bool:
        """Whether the last two doublings of K left B_crit where it was."""
        return stands_still(self.levels)

    @property
    def obstacle(self) -> str | None:
        """Why no level was reached, as far as the largest batch shows it; None if it shows nothing of the kind."""
        tried = self.trained.known.get(self.ladder[-1], {})
        if self.levels or not tried:
            return None
        start, converging = self.trained.start_loss, self.trained.converging(self.ladder[-1])
        if not converging:
            return "the loss diverges at every learning rate that was tried"
        lowest = min((min(rate.means[1:]) for rate in converging.values() if rate.last), default=None)
        if lowest is not None and lowest >= start:
            return f"the loss does not fall below {start:.3g}, where it starts, at any learning rate tried"
        if self._reached:  # a loss, but no law
            return (
                f"smaller batch sizes did not come to the loss of {self.ladder[-1]} after {self._reached} steps, "
                "although they took twice its examples"
            )
        return None

    # ---- replicates and the plan -------------------------------------------------------------------------------

    def _first_replicates(self, size: int) -> int:
        place = sum(other < size for other in self.ladder)
        return _FIRST_REPLICATES[min(place, len(_FIRST_REPLICATES) - 1)]

    def _sharpen(self, factor: float) -> None:
        """Add replicates until the limits of the last B_crit lie within a factor of it, or they hardly help."""
        for point in self.levels[-1].arrivals:
            self._replicate(point.batch_size, _LEAST_REPLICATES)
        self._note()
        moves = 0
        while self.levels[-1].fit.log_error > math.log(factor):
            size = most_useful(self.levels[-1], self._rates, self.trained)
            if size is None:
                return
            self._replicate(size, 2 * self.trained.most_replicates(size))
            self._note()
            # What looked well inside the ladder with few replicates may be beyond it.
            fit = self.levels[-1].fit
            if moves < _MOST_MOVES and fit.log_error <= _SURE and self._ladder.move(fit.log_critical):
                moves += 1
                self._reach(self._reached)

    def _settle_rates(self) -> None:
        """Train more replicates of the planned batch size and of those near B_crit, and rates given up too early."""
        level = self.levels[-1]
        for size in level.sizes:
            distance = math.log(size) - level.fit.log_critical
            if size == self._planned or -math.log(_BELOW) <= distance <= math.log(_ABOVE):
                self._replicate(size, _SETTLED)
                while self._rates.reconsider(size, level.loss):
                    self._replicate(size, _SETTLED)
        self._note()

    def _confirm_rates(self) -> None:
        """Make sure of the learning rates that a recommended one lies between; more runs can move B_crit to others."""
        level, confirmed = self.levels[-1], set[int]()
        while True:
            self._train_between()
            lacking = [size for size in around_recommended(self.levels[-1]) if size not in confirmed]
            if not lacking:
                return
            for size in lacking:
                self._safe_rates.confirm(size, level.loss, level.steps, _SETTLED, _CONFIRMED)
            confirmed.update(lacking)
            self._note()

    def _replicate(self, size: int, count: int) -> None:
        level = self.levels[-1]
        if self._rates.fill(size, level.loss, count):
            self._rates.to_loss(size, level.loss, level.steps)

    def _train_plan(self) -> None:
        """Train the planned batch size too: at its best learning rate, and at the planned one."""
        level, size = self.levels[-1], self._planned
        if abs(math.log(size) - level.fit.log_critical) > math.log(_FAR):
            return
        if size not in self.ladder:
            self._rates.to_loss(size, level.loss, level.steps)
        best = self.trained.best(size, level.loss)
        if best is not None:
            self._rates.arrivals(size, [0], level.loss, best=math.exp(best.log_steps), late=_LATE_PLAN)

    def _train_between(self) -> None:
        """Train a batch size between those around which one is recommended, if they lie far apart."""
        level = self.levels[-1]
        around = around_recommended(level)
        if around[-1] > _GAP * around[0]:
            middle = self._ladder.allowed(math.sqrt(around[0] * around[-1]))
            if middle not in around:
                self._rates.to_loss(middle, level.loss, level.steps)
                self._note()
