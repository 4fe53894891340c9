"""More runs where they decide: narrower intervals, the planned batch size, and the recommended learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable

from bnoise_cli.measurement.horizon.curve import Curve
from bnoise_cli.measurement.horizon.ladder import MOST_MOVES, Ladder
from bnoise_cli.measurement.horizon.learning_rates import LearningRates
from bnoise_cli.measurement.horizon.nearby import around_recommended, most_useful
from bnoise_cli.measurement.horizon.trained import Trained

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


class Replicates:
    """Trains on for the last level.

    Args:
        planned: the planned batch size; its learning rate is grid point 0.
        rates: searches the learning rates that the law rests on.
        safe_rates: those at which no run diverged, which are recommended.
        move: trains the last level with a ladder that reaches further, if it has to; whether it had to.
    """

    def __init__(
        self,
        curve: Curve,
        trained: Trained,
        ladder: Ladder,
        *,
        planned: int,
        rates: LearningRates,
        safe_rates: LearningRates,
        move: Callable[[], bool],
    ) -> None:
        self._curve, self._trained, self._ladder, self._planned = curve, trained, ladder, planned
        self._rates, self._safe_rates, self._move = rates, safe_rates, move

    def sharpen(self, factor: float) -> None:
        """Add replicates until the limits of the last B_crit lie within a factor of it, or they hardly help."""
        for point in self._curve.last.arrivals:
            self._replicate(point.batch_size, _LEAST_REPLICATES)
        self._curve.derive()
        moves = 0
        while self._curve.last.fit.log_error > math.log(factor):
            size = most_useful(self._curve.last, self._rates, self._trained)
            if size is None:
                return
            self._replicate(size, 2 * self._trained.most_replicates(size))
            self._curve.derive()
            moves += moves < MOST_MOVES and self._move()

    def train_plan(self) -> None:
        """Train the planned batch size too: at its best learning rate, and at the planned one."""
        level, size = self._curve.last, self._planned
        if abs(math.log(size) - level.fit.log_critical) > math.log(_FAR):
            return
        if size not in self._ladder.sizes:
            self._rates.to_loss(size, level.loss, level.steps)
        best = self._trained.best(size, level.loss)
        if best is not None:
            self._rates.arrivals(size, [0], level.loss, best=math.exp(best.log_steps), late=_LATE_PLAN)
        self._curve.derive()

    def settle_rates(self) -> None:
        """Train more replicates of the planned batch size and of those near B_crit, and rates given up too early."""
        level = self._curve.last
        for size in level.sizes:
            distance = math.log(size) - level.fit.log_critical
            if size == self._planned or -math.log(_BELOW) <= distance <= math.log(_ABOVE):
                self._replicate(size, _SETTLED)
                while self._rates.reconsider(size, level.loss):
                    self._replicate(size, _SETTLED)
        self._curve.derive()

    def confirm_rates(self) -> None:
        """Make sure of the learning rates that a recommended one lies between; more runs can move B_crit to others."""
        level, confirmed = self._curve.last, set[int]()
        while True:
            self._train_between()
            lacking = [size for size in around_recommended(self._curve.last) if size not in confirmed]
            if not lacking:
                return
            for size in lacking:
                self._safe_rates.confirm(size, level.loss, level.steps, _SETTLED, _CONFIRMED)
            confirmed.update(lacking)
            self._curve.derive()

    def _train_between(self) -> None:
        """Train a batch size between those around which one is recommended, if they lie far apart."""
        level = self._curve.last
        around = around_recommended(level)
        if around[-1] > _GAP * around[0]:
            middle = self._ladder.allowed(math.sqrt(around[0] * around[-1]))
            if middle not in around:
                self._rates.to_loss(middle, level.loss, level.steps)
                self._curve.derive()

    def _replicate(self, size: int, count: int) -> None:
        level = self._curve.last
        if self._rates.fill(size, level.loss, count):
            self._rates.to_loss(size, level.loss, level.steps)
