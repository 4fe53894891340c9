"""The fewest steps to a goal at one batch size: its best learning rate, found with few and short runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from bnoise_cli.errors import RunError
from bnoise_cli.maths.rate_search import PER_DOUBLING, is_steep, next_rates
from bnoise_cli.measurement.known_runs import COARSE, FINE, Key, KnownRuns, mean_steps
from bnoise_cli.measurement.stacking import stacking_pays
from bnoise_cli.measurement.sweep_task import SweepTask
from bnoise_cli.measurement.training_runs import Arrival, Goal, train_to_goal

#: Between neighbours on the grid: factors of 2 with one seed; with all, √2, 2^(1/4) and, where the valley is steep,
#: 2^(1/8). Near the edge of stability, where large batches are fastest, 2^(1/4) would cost a tenth of the steps.
_DISTANCES = {COARSE: (PER_DOUBLING,), FINE: (PER_DOUBLING // 2, PER_DOUBLING // 4, PER_DOUBLING // 8)}
_IF_STEEP = PER_DOUBLING // 8
#: In the second look a run has lost when it takes so many times the steps of the best mean so far; before there is
#: one, so many times those of the first look, which one seed may have been lucky in.
_HOPELESS, _UNLUCKY = 1.5, 3.0


class Tuner:
    """Trains at one batch size after another; what is known is not trained again.

    Args:
        on_step: told the batch size and the step of every step; may raise to end it all.
    """

    def __init__(
        self, shared: SweepTask, known: KnownRuns, goal: Goal, on_step: Callable[[int, int], None]
    ) -> None:
        self._shared, self._known, self._goal, self._on_step = shared, known, goal, on_step

    def best_point(self, batch_size: int, chosen: Mapping[int, int | None]) -> int | None:
        """Bracket the best learning rate with the first seed, then more finely by the mean over all seeds.

        Args:
            chosen: the best grid points of other batch sizes; None where nothing arrived.

        Returns:
            The grid point of the best learning rate; None: nothing arrived.
        """
        first = self._first_point(batch_size, chosen)
        coarse = self._search(batch_size, first, COARSE, beaten_at=None)
        if coarse is None:
            return None
        steps = self._known[Key(batch_size, coarse, 0, COARSE)].steps
        assert steps is not None
        return self._search(batch_size, coarse, FINE, beaten_at=_UNLUCKY * steps)

    def _first_point(self, batch_size: int, chosen: Mapping[int, int | None]) -> int:
        """From the nearest batch size that is known, by the square root of the ratio; the search corrects it."""
        known = {size: point for size, point in chosen.items() if point is not None}
        known = known or {self._shared.config.training.batch_size: 0}
        nearest = min(known, key=lambda size: abs(math.log(batch_size / size)))
        return known[nearest] + round(PER_DOUBLING * 0.5 * math.log2(batch_size / nearest))

    def _search(self, batch_size: int, first: int, stage: int, beaten_at: float | None) -> int | None:
        """The best point of one stage; it looks only at what itself asked for, so that it repeats exactly."""
        found: dict[int, float | None] = {}
        losses: dict[int, float] = {}
        seeds = range(1 if stage == COARSE else self._shared.config.sweep.seeds)
        for distance in _DISTANCES[stage]:
            if distance == _IF_STEEP and not is_steep(found, 2 * distance):
                break
            while points := next_rates(found, first, losses, distance):
                arrived = [steps for steps in found.values() if steps is not None]
                if arrived:
                    beaten_at = min(arrived) * (1 if stage == COARSE else _HOPELESS)
                self._train(
                    [Key(batch_size, point, seed, stage) for point in points for seed in seeds], beaten_at
                )
                for point in points:
                    runs = [self._known[Key(batch_size, point, seed, stage)] for seed in seeds]
                    found[point] = mean_steps(runs)
                    lowest = [run.lowest_loss for run in runs if run.outcome != "diverged"]
                    if len(lowest) == len(runs) and None not in lowest:
                        losses[point] = max(loss for loss in lowest if loss is not None)
        arrivals = {point: steps for point, steps in found.items() if steps is not None}
        return min(arrivals, key=lambda point: (arrivals[point], point), default=None)

    def _train(self, wanted: Sequence[Key], beaten_at: float | None) -> None:
        """Train what is not known yet, side by side where that is faster."""
        keys = [key for key in wanted if key not in self._known]
        if len(keys) > self._shared.config.sweep.seeds and self._stacks(keys[0].batch_size):
            try:
                self._known.add(keys, self._together(keys, beaten_at))
            except RunError:
                raise
            except RuntimeError:  # more runs than in the trial may not fit the memory
                self._known.add_stacks(keys[0].batch_size, False)
            else:
                return
        for key in wanted:
            if key not in self._known:
                self._known.add([key], self._alone(key, beaten_at))
            steps = self._known[key].steps
            if key.stage == COARSE and steps is not None:
                beaten_at = steps if beaten_at is None else min(beaten_at, steps)

    def _together(self, keys: Sequence[Key], beaten_at: float | None) -> list[Arrival]:
        size = keys[0].batch_size
        lanes = self._shared.stack(
            size, [self._shared.rate(key.point) for key in keys], [key.seed for key in keys]
        )
        return train_to_goal(
            lanes,
            len(keys),
            self._goal,
            beaten_at=beaten_at,
            rivals=keys[0].stage == COARSE,
            on_step=lambda step: self._on_step(size, step),
        )

    def _alone(self, key: Key, beaten_at: float | None) -> list[Arrival]:
        lane = self._shared.lane(key.batch_size, self._shared.rate(key.point), key.seed)
        return train_to_goal(
            lane,
            1,
            self._goal,
            beaten_at=beaten_at,
            rivals=False,
            on_step=lambda step: self._on_step(key.batch_size, step),
        )

    def _stacks(self, batch_size: int) -> bool:
        if batch_size not in self._known.stacks:
            runs = 2 * self._shared.config.sweep.seeds  # the usual last look: two rates, every seed
            self._known.add_stacks(batch_size, stacking_pays(self._shared, batch_size, runs))
        return self._known.stacks[batch_size]
