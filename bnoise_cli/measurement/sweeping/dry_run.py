"""What a sweep would do and how long it would take, from a few steps at each batch size."""

from __future__ import annotations

import math
import time

from bnoise_cli.maths.batch_range import first_batch_sizes
from bnoise_cli.maths.crossing import WINDOW
from bnoise_cli.measurement.building.build import device_name
from bnoise_cli.measurement.outcome import SweepPlan
from bnoise_cli.measurement.sweeping.branches import evaluations_of_a_branch
from bnoise_cli.measurement.sweeping.sweep import SweepSession
from bnoise_cli.measurement.sweeping.training_runs import evaluations_of_a_run
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.timing.mean_seconds import mean_seconds

#: Batch sizes of a range that is not given, and at each the runs of the first look, with one seed, and the learning
#: rates of the second, with all seeds: the means of the sweeps of configs/.
_USUAL_SIZES, _COARSE_RUNS, _FINE_RATES = 6, 4, 4.5
#: The planned run is trained this long to find out how many steps a named goal takes.
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
        evaluation_examples=len(session.shared.evaluation),
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
        self.steps, self.arrived = self._plan.steps, False  # of the planned run to a named goal

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
        if not isinstance(self._plan.goal, str):
            self._look_for(self._plan.goal)
        seconds = []
        for size in sizes:
            # Between a goal that takes as many examples at every batch size, and one that takes as many steps.
            steps = WINDOW * self.steps * math.sqrt(self._planned / size)
            seconds.append(self._seconds(size, steps, evaluations_of_a_run(steps)))
        return sizes, round(runs), runs * math.fsum(seconds) / len(seconds)

    def _look_for(self, goal: float) -> None:
        """Train the planned run for a while, towards the goal."""
        lane, begun, steps = (
            self._shared.lane(self._planned, self._shared.base_rate, 0),
            time.perf_counter(),
            0,
        )
        while time.perf_counter() - begun < _LOOK_SECONDS:
            for _ in range(max(1, steps // 5)):
                lane.step((0,))
                steps += 1
            [loss] = lane.losses((0,))
            if loss <= goal:
                self.steps, self.arrived = steps, True
                return
        self.steps = max(self.steps, steps)

    def _seconds(self, batch_size: int, steps: float, evaluations: int) -> float:
        """The time of a run of `steps` steps and `evaluations` evaluations."""
        lane = self._shared.lane(batch_size, self._shared.base_rate, 0)
        return steps * mean_seconds(lambda: lane.step((0,))) + evaluations * mean_seconds(
            lambda: lane.losses((0,))
        )
