"""Short runs from one start: how far each has been trained, and the losses that were read on the way.

Nothing here knows torch: `Runs` trains, and a test puts an exactly known problem in its place.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bnoise_cli.maths.crossing import has_diverged, is_above, smoothed_at
from bnoise_cli.maths.horizon import Best, RateRuns, StepsTo, arrival, best_rate, steps_to
from bnoise_cli.maths.rate_search import PER_DOUBLING

#: So many replicates share their draws with those at other learning rates. Counted on noisy quadratics: with 4 of them
#: the error of B_crit is a sixth smaller than if all share theirs, and a fifth smaller than if none does.
_SHARED = 4
#: A learning rate has diverged if more than this part of its runs did. A few replicates and many then find the same
#: rates too high, so that batch sizes with more of them do not look slower.
_TOLERATED = 1 / 8
#: More grid points than a search can reach.
_POINTS = 2**16


class BudgetSpent(Exception):  # noqa: N818  an event, not a mistake
    """The time or the examples that the horizon may take are spent."""


class NothingKept(BudgetSpent):
    """No learning rate that was tried keeps a loss below the start: to spend more would not help."""


def stream_of(point: int, replicate: int) -> int:
    """The number of a run's random stream.

    The first replicates draw the same examples at every learning rate: few of them compare rates well. Later ones have
    draws of their own at each rate, so that their noise averages over the rates.
    """
    return replicate if replicate < _SHARED else replicate + (point % _POINTS) * 2**32


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
        """Spend no more than a fraction `part` of the budget until told otherwise."""

    def growth(self, part: float, wanted: float) -> float:
        """By which factor all that was spent can grow within a fraction `part` of the budget, at most `wanted`."""


@dataclass
class Rate:
    """What is known of one learning rate at one batch size.

    Attributes:
        steps: where the losses were read, ascending from 0 on.
        losses: of each replicate, one row for each reading.
        diverged: which runs stayed above twice the loss of the start; all if one was not finite.
    """

    steps: list[int] = field(default_factory=lambda: [0])
    losses: list[list[float]] = field(default_factory=list)
    diverged: list[bool] = field(default_factory=list)

    @property
    def replicates(self) -> int:
        return len(self.losses[0])

    @property
    def last(self) -> int:
        """The step that every replicate has reached."""
        return self.steps[-1]

    @property
    def means(self) -> list[float]:
        """The mean loss over replicates at each reading."""
        return [math.fsum(row) / len(row) for row in self.losses]


class Trained:
    """All runs of one start, by batch size and learning rate.

    Attributes:
        known: batch size → grid point of the learning rate → what is known of it.
    """

    def __init__(self, runs: Runs, start_loss: float) -> None:
        self._runs, self.start_loss = runs, start_loss
        self.known: dict[int, dict[int, Rate]] = {}
        self._tolerated = _TOLERATED

    def strict(self) -> Trained:
        """The same runs, of which a learning rate may have none that diverged: a recommended rate is trained once."""
        found = Trained(self._runs, self.start_loss)
        found.known, found._tolerated = self.known, 0.0
        return found

    def has_diverged(self, size: int, point: int) -> bool:
        """Whether too many runs of a learning rate diverged. It then arrives nowhere."""
        diverged = self.known[size][point].diverged
        return sum(diverged) > self._tolerated * len(diverged)

    def is_thrown_up(self, size: int, point: int) -> bool:
        """Whether the mean loss of a learning rate is above twice that of the start at its last reading."""
        return is_above(self.known[size][point].means[-1], self.start_loss)

    def begin(self, size: int, point: int, replicates: int) -> Rate:
        """One learning rate. If it is new, it begins with `replicates` replicates."""
        rates = self.known.setdefault(size, {})
        if point not in rates:
            rates[point] = Rate(losses=[[self.start_loss] * replicates], diverged=[False] * replicates)
        return rates[point]

    def advance(self, size: int, points: Sequence[int], step: int) -> None:
        """Train all replicates of some learning rates on to a step."""
        rates = self.known[size]
        for count in {rates[point].replicates for point in points}:
            chosen = [point for point in points if rates[point].replicates == count]
            losses = self._runs.extend(size, chosen, range(count), step)
            for point, found in zip(chosen, losses, strict=True):
                rates[point].steps.append(step)
                rates[point].losses.append(found)
                rates[point].diverged = self._diverged(rates[point])

    def add_replicates(self, size: int, point: int, count: int) -> None:
        """Bring one learning rate to `count` replicates, trained as far as the others."""
        rate = self.known[size][point]
        added = range(rate.replicates, count)
        fresh = [[self.start_loss] * len(added)]
        for step in rate.steps[1:]:
            fresh += self._runs.extend(size, [point], added, step)
        rate.losses = [old + new for old, new in zip(rate.losses, fresh, strict=True)]
        rate.diverged = self._diverged(rate)

    def cut(self, size: int, point: int, step: float) -> None:
        """Leave out the readings of one learning rate after the first one at a step or beyond it."""
        rate = self.known[size][point]
        kept = bisect_left(rate.steps, step) + 1
        rate.steps, rate.losses = rate.steps[:kept], rate.losses[:kept]
        rate.diverged = self._diverged(rate)

    @property
    def examples(self) -> int:
        """How many gradients of examples the runs have taken to their last readings."""
        return sum(
            size * rate.replicates * rate.last
            for size, rates in self.known.items()
            for rate in rates.values()
        )

    def most_replicates(self, size: int) -> int:
        return max(rate.replicates for rate in self.known[size].values())

    def converging(self, size: int) -> dict[int, Rate]:
        """The learning rates of a batch size that have not diverged."""
        rates = self.known.get(size, {})
        return {point: rate for point, rate in rates.items() if not self.has_diverged(size, point)}

    def arrival_of(self, size: int, point: int, loss: float) -> float | None:
        """Steps of one learning rate to a loss; None if it has not reached it, or has diverged."""
        return arrival(self._as_runs(size, point), loss)

    def best(self, size: int, loss: float) -> Best | None:
        """The fewest steps of one batch size to a loss, and the learning rate that takes them."""
        return best_rate(self._of_size(size), loss)

    def steps_to(self, size: int, loss: float) -> StepsTo | None:
        """S_B(ℓ) with its variance, which takes much longer to derive."""
        return steps_to(size, self._of_size(size), loss)

    def _of_size(self, size: int) -> dict[float, RateRuns]:
        rates = self.known.get(size, {}).items()
        return {point / PER_DOUBLING: self._as_runs(size, point) for point, rate in rates if rate.last}

    def loss_after(self, size: int, point: int, steps: int) -> float | None:
        """The smoothed mean loss of one learning rate after `steps`; None if it diverged or has not come so far."""
        rate = self.known[size][point]
        if self.has_diverged(size, point) or rate.last < steps:
            return None
        return smoothed_at(rate.steps, rate.means, steps)

    def _as_runs(self, size: int, point: int) -> RateRuns:
        rate = self.known[size][point]
        return RateRuns(rate.steps, np.array(rate.losses).T, np.array(rate.diverged), self._tolerated)

    def _diverged(self, rate: Rate) -> list[bool]:
        whole = all(math.isfinite(mean) for mean in rate.means)
        runs = zip(*rate.losses, strict=True)
        return [not whole or has_diverged(rate.steps, losses, self.start_loss) for losses in runs]
