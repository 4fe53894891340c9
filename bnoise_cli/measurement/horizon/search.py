"""The horizon's search: which batch sizes, and how far ahead."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bnoise_cli.maths.horizon import Level, StepsTo, excludes, fit_law
from bnoise_cli.maths.steps_fit import StepsFit
from bnoise_cli.measurement.horizon.curve import KNOWN, Curve, last_changes, stands_still, surely_moves
from bnoise_cli.measurement.horizon.ladder import MOST_MOVES, Ladder
from bnoise_cli.measurement.horizon.learning_rates import LONGEST, LearningRates
from bnoise_cli.measurement.horizon.replicates import Replicates
from bnoise_cli.measurement.horizon.trained import BudgetSpent, NothingKept, Runs, Trained
from bnoise_cli.measurement.outcome import is_far, lowest_loss

#: Replicates that a learning rate begins with, from the smallest batch size of the ladder on: larger batches have less
#: noise and cost more.
_FIRST_REPLICATES = (4, 2, 1)
#: Where only the largest batch size reaches its loss, one of its few runs was lucky: it gets up to so many.
_MOST_REPEATS = 8
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
        self._ladder = Ladder(guess, least=least, most=most, group=group)
        self.trained = Trained(runs, start_loss)
        self.safe = self.trained.strict()
        self._rates, safe_rates = (
            LearningRates(of, planned=planned, replicates=self._first_replicates)
            for of in (self.trained, self.safe)
        )
        self._curve = Curve(self.trained, self._ladder, on_level)
        self._replicates = Replicates(
            self._curve,
            self.trained,
            self._ladder,
            planned=planned,
            rates=self._rates,
            safe_rates=safe_rates,
            move=self._move_at_the_end,
        )
        self.complete = self._nothing_kept = False

    @property
    def levels(self) -> list[Level]:
        """The curve so far, by ascending steps."""
        return self._curve.found

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
            self._curve.derive()
            if not (climbed and finished):
                return
            self.complete = self._is_over

    def _within(self, part: float, work: Callable[[], None]) -> bool:
        """Whether some work came to its end within a part of the budget."""
        self._runs.allow(part)
        try:
            work()
        except BudgetSpent as end:
            self._nothing_kept = isinstance(end, NothingKept)
            return False
        return True

    def _climb(self) -> None:
        while not self._stops():
            steps = 2 * self._curve.steps or _FIRST_STEPS
            self._reach(self._affordable(min(steps, self._most_steps or steps)))

    def _affordable(self, steps: int) -> int:
        """The next K: fewer `steps` if the budget holds no more.

        Going on from K to K·g takes about g − 1 times what the runs have taken so far.

        Raises:
            BudgetSpent: it holds hardly more than K.
        """
        if self._curve.steps < _FITTED_FROM:
            return steps
        wanted = steps / self._curve.steps
        growth = self._runs.growth(1 - _PART_OF_PLAN, wanted)
        if growth < min(_LEAST_GROWTH, wanted):
            raise BudgetSpent
        return round(growth * self._curve.steps)

    def _leave_level(self) -> None:
        """Leave out what runs on their way to the next level have read: more replicates need not go as far."""
        for there in self._curve.last.arrivals:
            for point in self.trained.known[there.batch_size]:
                if (there.batch_size, point) != (self._planned, 0):
                    self.trained.cut(there.batch_size, point, LONGEST * math.exp(there.log_steps))

    def _finish(self) -> None:
        """What the last level needs besides: the planned batch, replicates, and the best learning rates."""
        self._replicates.train_plan()
        self._replicates.sharpen(1 + self._precision)
        self._replicates.settle_rates()
        self._replicates.confirm_rates()

    def _move_at_the_end(self) -> bool:
        """Reach the last level once more if B_crit, now that it is known better, lies too near an end of the ladder."""
        fit = self._curve.last.fit
        if fit.log_error > _SURE or not self._ladder.move(fit.log_critical):
            return False
        self._reach(self._curve.steps)
        return True

    def _reach(self, steps: int) -> None:
        """Train until every batch size of the ladder has reached the loss of the largest after `steps`.

        Raises:
            BudgetSpent: also if that is no lower than the last level's, because the rate that reached it has diverged.
        """
        before, last = self._curve.steps, self._curve.loss
        ends = before >= _FEWEST_STEPS and not self._most_steps
        lowest = lowest_loss(self.trained.start_loss) if ends else -math.inf
        for moves in range(1, MOST_MOVES + 1):
            loss = max(self._rates.loss_after(self.ladder[-1], steps), lowest)
            if self._curve.loss == lowest:  # the last level, with other batch sizes
                loss = lowest
            elif 0 < before < steps and loss >= last:
                raise BudgetSpent
            if (
                loss >= self.trained.start_loss
            ):  # it says nothing: momentum of the start can raise the loss first
                self._curve.steps = steps
                return
            fit, is_sure = self._train_ladder(steps, loss)
            if fit is None and self._rates.repeat(self.ladder[-1], _MOST_REPEATS):
                continue
            moved = fit is not None and self._ladder.move(fit.log_critical, is_sure)
            if not moved or before >= _FITTED_FROM or moves == MOST_MOVES:
                self._curve.keep(before, steps, loss, is_lowest=loss == lowest)
            if not moved:
                break
            assert fit is not None
            self._ladder.trim(fit.log_critical)
        if self.levels:
            self._ladder.trim(self._curve.last.fit.log_critical)

    def _train_ladder(self, steps: int, loss: float) -> tuple[StepsFit | None, Callable[[float], bool]]:
        """The law through the steps of every batch size; of the larger ones alone if they say that larger ones lack.

        Returns:
            (fit, whether B_crit surely differs from a limit)
        """
        arrivals: list[StepsTo] = []
        fit: StepsFit | None = None

        def is_sure(log_limit: float) -> bool:
            assert fit is not None
            known = self._curve.steps > 0 and fit.log_error <= _SURE
            return known or excludes(arrivals, fit, log_limit)

        for size in reversed(self.ladder):
            self._rates.to_loss(size, loss, steps)
            if (found := self.trained.steps_to(size, loss)) is not None:
                arrivals.append(found)
            fit = fit_law(arrivals)
            if fit is not None and self._ladder.is_low(fit.log_critical, is_sure):
                break
        return fit, is_sure

    def _stops(self) -> bool:
        """Whether K is doubled no further, with as many replicates as the last interval needs to tell."""
        if (
            self._is_over
            or self._most_steps
            or len(last_changes(self.levels)) < 2
            or surely_moves(self.levels)
        ):
            return self._is_over
        self._replicates.sharpen(KNOWN)
        if self.stands_still:
            self._replicates.sharpen(1 + self._precision)
        return self.stands_still

    @property
    def _is_over(self) -> bool:
        """Whether the asked level is reached; without one, whether the loss is low or the curve stands still."""
        if self._most_steps:
            return self._curve.steps == self._most_steps
        is_low = self._curve.steps >= _FEWEST_STEPS and is_far(self.trained.start_loss, self._curve.loss)
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
        if self._curve.steps:  # a loss, but no law
            return (
                f"smaller batch sizes did not come to the loss of {self.ladder[-1]} after {self._curve.steps} steps, "
                "although they took twice its examples"
            )
        if self._nothing_kept:
            return f"no learning rate that was tried keeps the loss below {start:.3g}, where it starts"
        return None

    def _first_replicates(self, size: int) -> int:
        place = sum(other < size for other in self.ladder)
        return _FIRST_REPLICATES[min(place, len(_FIRST_REPLICATES) - 1)]
