"""The training runs of a horizon: kept where they ended, stacked if that is faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bnoise_cli import clock
from bnoise_cli.errors import OutOfTimeError, RunError
from bnoise_cli.maths.rate_search import rate_at
from bnoise_cli.measurement.horizon.trained import BudgetSpent, stream_of
from bnoise_cli.measurement.task.draws import Draws
from bnoise_cli.measurement.training.lanes import SingleLane, StackedLanes
from bnoise_cli.measurement.training.runner import Runner
from bnoise_cli.measurement.training.stacking import stacking_pays

#: Part of the time that a trial of stacked runs may take.
_TRIAL = 0.05
#: A run: its grid point of the learning rate and its replicate.
Key = tuple[int, int]


class HorizonRuns:
    """Implements `trained.Runs` on a task.

    Args:
        draws: of a batch size and the number of a random stream (`stream_of`).
        stacks: whether runs at a batch size go side by side; found by trying both if left out.
        budget_seconds, budget_examples: of gradients that may be spent, or infinity. With a budget in examples runs go
            side by side wherever they can, whatever the clock says: they repeat exactly.

    Attributes:
        gradient_examples, evaluation_examples: spent so far.
        out_of_time: whether the budget in time ever ended runs, or made them shorter.
    """

    def __init__(
        self,
        runner: Runner,
        draws: Callable[[int, int], Draws],
        *,
        budget_seconds: float,
        budget_examples: float,
        on_step: Callable[[int, int], None],
        stacks: Callable[[int], bool] | None = None,
    ) -> None:
        self._runner, self._draws, self._on_step = runner, draws, on_step
        self._begun, self._budget, self._allowed = clock.monotonic(), (budget_seconds, budget_examples), 1.0
        self._ranks = runner.task.ranks
        self._stacks: dict[int, list[tuple[StackedLanes, dict[Key, int]]]] = {}
        self._singles: dict[int, dict[Key, SingleLane]] = {}
        self._pays: dict[int, bool] = {}
        self._side_by_side = stacks
        self._steps: dict[tuple[int, Key], int] = {}
        self.gradient_examples = 0
        self.evaluation_examples = 0
        self.out_of_time = False

    def extend(
        self, batch_size: int, points: Sequence[int], replicates: range, step: int
    ) -> list[list[float]]:
        keys = [(point, replicate) for point in points for replicate in replicates]
        self._rewind(batch_size, keys, step)
        steps = sum(step - self._steps.get((batch_size, key), 0) for key in keys)
        if self.gradient_examples + batch_size * steps > self._allowed * self._budget[1]:
            raise BudgetSpent
        self.evaluation_examples += len(keys) * len(self._runner.evaluation.indices)
        losses = None
        try:
            if self._stacked(batch_size, len(keys)):
                losses = self._try_stacked(batch_size, keys, step)
            if losses is None:
                losses = self._extend_singly(batch_size, keys, step)
        except OutOfTimeError:
            self.out_of_time = True
            raise BudgetSpent from None
        return [[losses[point, replicate] for replicate in replicates] for point in points]

    def allow(self, part: float) -> None:
        self._allowed = part

    def growth(self, part: float, wanted: float) -> float:
        seconds, examples = self._budget
        by_examples = min(wanted, part * examples / max(self.gradient_examples, 1))
        by_time = part * seconds / max(clock.monotonic() - self._begun, 1e-9)
        if self._ranks.broadcast(by_time < by_examples):
            self.out_of_time = True
            return self._ranks.broadcast(by_time)
        return by_examples

    def _rewind(self, batch_size: int, keys: Sequence[Key], step: int) -> None:
        """Send runs that are beyond `step` back to the start: their loss there can no longer be read.

        That happens if the budget ended while replicates were added, after the runs and before their losses were kept;
        and to runs of a level that was left, whose later losses were left out.
        """
        for key in keys:
            if self._steps.get((batch_size, key), 0) > step:
                del self._steps[batch_size, key]
                self._singles.get(batch_size, {}).pop(key, None)
                for _, places in self._stacks.get(batch_size, []):
                    places.pop(key, None)

    def _stacked(self, batch_size: int, runs: int) -> bool:
        if self._ranks.size > 1:  # whatever a process by itself found out: every rank would take all examples
            return False
        if batch_size not in self._pays:
            self._pays[batch_size] = (
                self._side_by_side(batch_size)
                if self._side_by_side is not None
                else stacking_pays(
                    self._runner,
                    batch_size,
                    min(runs, 16),
                    lambda: self._draws(batch_size, 0),
                    most_seconds=_TRIAL * self._budget[0] if math.isinf(self._budget[1]) else None,
                )
            )
        return self._pays[batch_size]

    def _try_stacked(self, batch_size: int, keys: Sequence[Key], step: int) -> dict[Key, float] | None:
        """Runs side by side; None if that failed, which sends all runs of this size back to the start, one by one."""
        try:
            return self._extend_stacked(batch_size, keys, step)
        except (RunError, BudgetSpent):
            raise
        except Exception:
            # Memory, a batch that torch.func cannot stack, or the user's code: a single run tells.
            self._pays[batch_size] = False
            del self._stacks[batch_size]
            self._steps = {key: done for key, done in self._steps.items() if key[0] != batch_size}
            return None

    def _extend_stacked(self, batch_size: int, keys: Sequence[Key], step: int) -> dict[Key, float]:
        stacks = self._stacks.setdefault(batch_size, [])
        held = {key for _, places in stacks for key in places}
        if fresh := [key for key in keys if key not in held]:
            streams = {
                stream: self._draws(batch_size, stream) for stream in {stream_of(*key) for key in fresh}
            }
            stack = self._runner.stack(
                batch_size,
                [self._rate(point) for point, _ in fresh],
                [streams[stream_of(*key)] for key in fresh],
            )
            stacks.append((stack, {key: place for place, key in enumerate(fresh)}))
        losses: dict[Key, float] = {}
        for stack, places in stacks:
            chosen = [key for key in keys if key in places]
            for done, together in self._by_step(batch_size, chosen).items():
                lanes = [places[key] for key in together]
                for at in range(done, step):
                    self._tick(batch_size, at)
                    stack.step(lanes)
                    self._count(batch_size, together, at + 1)
                losses |= dict(zip(together, stack.losses(lanes), strict=True))
        return losses

    def _extend_singly(self, batch_size: int, keys: Sequence[Key], step: int) -> dict[Key, float]:
        lanes, losses = self._singles.setdefault(batch_size, {}), {}
        for key in keys:
            if key in lanes:
                lanes[key].enter()
            else:
                draws = self._draws(batch_size, stream_of(*key))
                lanes[key] = self._runner.lane(batch_size, self._rate(key[0]), draws)
            try:
                for at in range(self._steps.get((batch_size, key), 0), step):
                    self._tick(batch_size, at)
                    lanes[key].step((0,))
                    self._count(batch_size, [key], at + 1)
                losses[key] = lanes[key].losses((0,))[0]
            finally:
                lanes[key].leave()
        return losses

    def _count(self, batch_size: int, keys: Sequence[Key], step: int) -> None:
        """Note a step at once: the budget may end in the middle of a stretch, and the runs go on from there later."""
        self.gradient_examples += batch_size * len(keys)
        self._steps.update({(batch_size, key): step for key in keys})

    def _by_step(self, batch_size: int, keys: Sequence[Key]) -> dict[int, list[Key]]:
        """Runs by how far they have come: those of one stack share their draws only in step."""
        groups: dict[int, list[Key]] = {}
        for key in keys:
            groups.setdefault(self._steps.get((batch_size, key), 0), []).append(key)
        return groups

    def _rate(self, point: int) -> float:
        return rate_at(self._runner.base_rate, point)

    def _tick(self, batch_size: int, step: int) -> None:
        self._on_step(batch_size, step)
        if self._ranks.broadcast(clock.monotonic() - self._begun > self._allowed * self._budget[0]):
            self.out_of_time = True
            raise BudgetSpent
