"""The fewest steps to a goal at one batch size: its best learning rate, found with few and short runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from bnoise_cli.errors import RunError
from bnoise_cli.maths.rate_search import PER_DOUBLING, fastest, is_steep, next_rate
from bnoise_cli.measurement.sweeping.known_runs import COARSE, FINE, Key, KnownRuns, mean_steps
from bnoise_cli.measurement.sweeping.sweep_task import SweepTask
from bnoise_cli.measurement.sweeping.training_runs import Arrival, Goal, train_to_goal
from bnoise_cli.measurement.training.lanes import Lanes
from bnoise_cli.measurement.training.stacking import stacking_pays
from bnoise_cli.records import TrainingRun

#: Distances of neighbouring rates on the grid: a factor of 2 with one seed; with all seeds √2, 2^(1/4) and, in a steep
#: valley, 2^(1/8). Large batches are fastest near the edge of stability; there 2^(1/4) would cost a tenth of the steps.
_DISTANCES = {COARSE: (PER_DOUBLING,), FINE: (PER_DOUBLING // 2, PER_DOUBLING // 4, PER_DOUBLING // 8)}
_IF_STEEP = _DISTANCES[FINE][-1]
#: In the second look a run has lost when it takes `_HOPELESS` times the steps of the best mean so far. As long as there
#: is none, it has lost at `_UNLUCKY` times the steps of the first look, whose one seed may have been lucky.
_HOPELESS, _UNLUCKY = 1.5, 3.0


class Tuner:
    """Trains at one batch size after another; no finished run is trained again.

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
            while (point := next_rate(found, first, losses, distance)) is not None:
                keys = [Key(batch_size, point, seed, stage) for seed in seeds]
                runs = self._train(keys, beaten_at)
                found[point] = mean_steps(runs) if len(runs) == len(keys) else None
                lowest = [run.lowest_loss for run in runs if run.outcome != "diverged"]
                if len(lowest) == len(runs) and None not in lowest:
                    losses[point] = max(loss for loss in lowest if loss is not None)
                arrived = [steps for steps in found.values() if steps is not None]
                if arrived:
                    beaten_at = min(arrived) * (1 if stage == COARSE else _HOPELESS)
        return fastest(found)

    def _train(self, keys: Sequence[Key], beaten_at: float | None) -> list[TrainingRun]:
        """The runs of one learning rate, trained where they are not known; fewer when one of them has lost."""
        if any(key in self._known and self._known[key].steps is None for key in keys):
            return [self._known[key] for key in keys if key in self._known]
        missing = [key for key in keys if key not in self._known]
        if len(missing) > 1 and self._stacks(keys[0].batch_size, len(keys)):
            try:
                self._known.add(missing, self._together(missing, beaten_at))
            except RunError:
                raise
            except RuntimeError:  # what fitted the memory in the trial need not fit it now
                self._known.add_stacks(keys[0].batch_size, False)
        for key in missing:
            if key not in self._known:
                self._known.add([key], self._alone(key, beaten_at))
                if self._known[key].steps is None:
                    break
        return [self._known[key] for key in keys if key in self._known]

    def _together(self, keys: Sequence[Key], beaten_at: float | None) -> list[Arrival]:
        size = keys[0].batch_size
        rates, seeds = [self._shared.rate(key.point) for key in keys], [key.seed for key in keys]
        lanes = self._shared.stack(size, rates, seeds)
        return self._to_goal(lanes, len(keys), size, beaten_at)

    def _alone(self, key: Key, beaten_at: float | None) -> list[Arrival]:
        lane = self._shared.lane(key.batch_size, self._shared.rate(key.point), key.seed)
        return self._to_goal(lane, 1, key.batch_size, beaten_at)

    def _to_goal(self, lanes: Lanes, count: int, size: int, beaten_at: float | None) -> list[Arrival]:
        return train_to_goal(
            lanes, count, self._goal, beaten_at=beaten_at, on_step=lambda step: self._on_step(size, step)
        )

    def _stacks(self, batch_size: int, runs: int) -> bool:
        if self._shared.task.ranks.size > 1:  # whatever a process by itself found out
            return False
        if batch_size not in self._known.stacks:
            self._known.add_stacks(
                batch_size,
                stacking_pays(self._shared.runner, batch_size, runs, lambda: self._shared.draws(0)),
            )
        return self._known.stacks[batch_size]
