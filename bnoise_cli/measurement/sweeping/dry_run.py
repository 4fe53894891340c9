"""What a sweep would do and how long it would take, from a few steps at each batch size."""

from __future__ import annotations

import math

from bnoise_cli import clock
from bnoise_cli.maths.batch_range import first_batch_sizes
from bnoise_cli.maths.crossing import WINDOW
from bnoise_cli.maths.rate_search import PER_DOUBLING, fastest, next_rate
from bnoise_cli.measurement.building.build import device_name
from bnoise_cli.measurement.outcome import SweepPlan
from bnoise_cli.measurement.sweeping.along_a_run import PLACES
from bnoise_cli.measurement.sweeping.branches import evaluations_of_a_branch
from bnoise_cli.measurement.sweeping.sweep import FEWEST_PROBE_EXAMPLES, SweepSession
from bnoise_cli.measurement.sweeping.training_runs import evaluations_of_a_run
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.timing.mean_seconds import mean_seconds

#: Batch sizes of a range that is not given, and at each the runs of the first look, with one seed, and the learning
#: rates of the second, with all seeds: the means of the sweeps of configs/.
_USUAL_SIZES, _COARSE_RUNS, _FINE_RATES = 6, 4, 4.5
#: Learning rates at which the planned batch is trained to find out the goal "auto".
_GOAL_RUNS = 4
#: A probe along the best run takes about as long as so many times its gradient examples, trained in batches of so many.
_PROBE_COST, _PROBE_BATCH = 4, 16
#: The planned batch is trained this long to find out how many steps a named goal takes.
_LOOK_SECONDS = 5.0


def plan_sweep(session: SweepSession) -> SweepPlan:
    """The plan of a sweep, from a few steps at each batch size; nothing is kept."""
    config = session.config
    with preserved(session.task.model, config.probe.seed):
        start_loss = session.shared.start_loss
        plan = _Plan(session)
        sizes, runs, seconds = plan.of_branches() if config.sweep.branch is not None else plan.of_runs()
    return SweepPlan(
        device=device_name(session.shared.device, session.ranks),
        parameters=sum(p.numel() for p in session.task.trainable),
        dataset_length=session.task.batches.length,
        evaluation_examples=session.shared.evaluated,
        start_loss=start_loss,
        goal=None if isinstance(config.sweep.goal, str) else config.sweep.goal,
        batch_sizes=tuple(sizes),
        runs=runs,
        steps=plan.steps,
        arrived=plan.arrived,
        seconds=seconds,
        branch_examples=config.sweep.branch.examples if config.sweep.branch is not None else None,
    )


class _Plan:
    """The batch sizes, runs and seconds of a sweep."""

    def __init__(self, session: SweepSession) -> None:
        self._shared, self._plan = session.shared, session.config.sweep
        self._planned = session.config.training.batch_size
        self._length = session.task.batches.length
        # Steps of the planned batch to the goal at its best rate, and whether they were trained.
        self.steps, self.arrived = self._plan.steps, False

    def of_branches(self) -> tuple[list[int], int, float]:
        branch = self._plan.branch
        assert branch is not None
        sizes = [multiple * self._planned for multiple in branch.multiples]
        seconds = [
            self._seconds(
                size, math.ceil(branch.examples / size), evaluations_of_a_branch(branch.examples, size)
            )
            for size in sizes
        ]
        return sizes, len(sizes) * self._plan.seeds, self._plan.seeds * math.fsum(seconds)

    def of_runs(self) -> tuple[list[int], int, float]:
        given = self._plan.batch_sizes
        sizes = first_batch_sizes(self._planned, self._length) if isinstance(given, str) else list(given)
        number = _USUAL_SIZES if isinstance(given, str) else len(sizes)
        runs = number * (_COARSE_RUNS + _FINE_RATES * self._plan.seeds)
        if isinstance(self._plan.goal, str):
            before = _GOAL_RUNS * self._seconds(self._planned, WINDOW * self.steps, evaluations=50)
        else:
            before = 0.0
            self._look_for(self._plan.goal)
        seconds = []
        for size in sizes:
            # Between a goal that takes as many examples at every batch size, and one that takes as many steps.
            steps = WINDOW * self.steps * math.sqrt(self._planned / size)
            seconds.append(self._seconds(size, steps, evaluations_of_a_run(steps)))
        steps_of_a_probe = _PROBE_COST * FEWEST_PROBE_EXAMPLES / _PROBE_BATCH
        after = len(PLACES) * self._seconds(_PROBE_BATCH, steps_of_a_probe, evaluations=0)
        return sizes, round(runs), before + runs * math.fsum(seconds) / len(seconds) + after

    def _look_for(self, goal: float) -> None:
        """Look for the fewest steps of the planned batch to the goal, over learning rates a factor of 2 apart."""
        until = clock.perf_counter() + _LOOK_SECONDS
        found: dict[int, float | None] = {}
        longest = 0
        while clock.perf_counter() < until and (point := next_rate(found, 0, {}, PER_DOUBLING)) is not None:
            fewest = min((steps for steps in found.values() if steps is not None), default=math.inf)
            taken, arrived = self._train(point, goal, fewest, until)
            longest = max(longest, taken)
            found[point] = taken if arrived else None
        best = fastest(found)
        self.arrived = best is not None
        self.steps = round(found[best] or 0) if best is not None else max(self.steps, longest)

    def _train(self, point: int, goal: float, most: float, until: float) -> tuple[int, bool]:
        """Train towards the goal at a learning rate. Returns the steps, and whether the last one arrived."""
        lane, steps = self._shared.lane(self._planned, self._shared.rate(point), 0), 0
        while clock.perf_counter() < until and steps < most:
            for _ in range(max(1, steps // 5)):
                lane.step((0,))
                steps += 1
            [loss] = lane.losses((0,))
            if loss <= goal or not math.isfinite(loss):
                return steps, loss <= goal
        return steps, False

    def _seconds(self, batch_size: int, steps: float, evaluations: int) -> float:
        """The time of a run of `steps` steps and `evaluations` evaluations."""
        lane = self._shared.lane(batch_size, self._shared.base_rate, 0)
        return steps * mean_seconds(lambda: lane.step((0,))) + evaluations * mean_seconds(
            lambda: lane.losses((0,))
        )
