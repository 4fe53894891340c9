"""What a sweep would do and how long it would take, from a few steps at each batch size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from bnoise_cli.maths.batch_range import first_batch_sizes
from bnoise_cli.measurement.building.build import device_name
from bnoise_cli.measurement.outcome import SweepPlan
from bnoise_cli.measurement.sweeping.branches import evaluations_of_a_branch
from bnoise_cli.measurement.sweeping.sweep import SweepSession
from bnoise_cli.measurement.task.preserve import preserved

#: Batch sizes of a range that is not given, and at each the runs of the first look, with one seed, and the learning
#: rates of the second, with all seeds.
_USUAL_SIZES, _COARSE_RUNS, _FINE_RATES = 6, 4, 3
#: Evaluations of a run to the goal; they follow one another in proportion to its steps.
_EVALUATIONS = 40
#: Steps and evaluations that are timed at each batch size, after one to warm up.
_TIMED = 3


def plan_sweep(session: SweepSession) -> SweepPlan:
    """The plan of a sweep. How many steps a goal takes is not known before: the time assumes `sweep.steps`.

    A few steps are trained at each batch size, and nothing is kept.
    """
    config, shared = session.config, session.shared
    branch = config.sweep.branch
    with preserved(session.task.model, config.probe.seed):
        start_loss = shared.start_loss
        if branch is not None:
            sizes = [multiple * config.training.batch_size for multiple in branch.multiples]
            runs = len(sizes) * config.sweep.seeds
            seconds = config.sweep.seeds * math.fsum(
                _run_seconds(
                    session,
                    size,
                    math.ceil(branch.examples / size),
                    evaluations_of_a_branch(branch.examples, size),
                )
                for size in sizes
            )
        else:
            given, planned = config.sweep.batch_sizes, config.training.batch_size
            sizes = (
                first_batch_sizes(planned, session.task.batches.length) if isinstance(given, str) else given
            )
            each = _COARSE_RUNS + _FINE_RATES * config.sweep.seeds
            number = _USUAL_SIZES if isinstance(given, str) else len(sizes)
            runs = number * each
            # Between a goal that takes as many examples at every batch size, and one that takes as many steps.
            steps = {size: config.sweep.steps * math.sqrt(planned / size) for size in sizes}
            seconds = (runs / len(sizes)) * math.fsum(
                _run_seconds(session, size, steps[size], _EVALUATIONS) for size in sizes
            )
    return SweepPlan(
        device=device_name(shared.device, session.ranks),
        parameters=sum(p.numel() for p in session.task.trainable),
        dataset_length=session.task.batches.length,
        evaluation_examples=len(shared.evaluation),
        start_loss=start_loss,
        goal=None if isinstance(config.sweep.goal, str) else config.sweep.goal,
        batch_sizes=tuple(sizes),
        runs=runs,
        steps=config.sweep.steps,
        seconds=seconds,
        branch_examples=branch.examples if branch is not None else None,
    )


def _run_seconds(session: SweepSession, batch_size: int, steps: float, evaluations: int) -> float:
    """The time of a run of so many steps and evaluations."""
    lane = session.shared.lane(batch_size, session.shared.base_rate, 0)
    evaluate = _seconds(lambda: lane.losses((0,)))
    return steps * _seconds(lambda: lane.step((0,))) + evaluations * evaluate


def _seconds(work: Callable[[], object]) -> float:
    """The least of a few times."""
    times = []
    for _ in range(1 + _TIMED):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times[1:])
