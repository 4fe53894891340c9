"""The loss that the runs of a sweep train to: the one that is named, or what the planned batch size reaches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.maths.crossing import WINDOW, smoothed_at
from bnoise_cli.maths.rate_search import PER_DOUBLING, next_rate
from bnoise_cli.measurement.sweeping.known_runs import KnownRuns
from bnoise_cli.measurement.sweeping.sweep_task import SweepTask
from bnoise_cli.measurement.sweeping.training_runs import Goal

#: How often the loss is read on the way to `sweep.steps`.
_READINGS = 50


def find_goal(shared: SweepTask, known: KnownRuns, on_step: Callable[[int], None]) -> Goal:
    """The goal of the config; the planned batch size is trained to find out "auto".

    Args:
        on_step: told every step of that training.

    Raises:
        CallError: the goal is above the start.
        RunError: the planned batch size diverges at every learning rate.
    """
    plan, start_loss = shared.config.sweep, shared.start_loss
    auto = plan.goal == "auto"
    loss = _loss_of_the_plan(shared, known, on_step) if auto else float(plan.goal)
    if not loss < start_loss:
        remedy = (
            "At no learning rate does the planned batch size train in sweep.steps; raise sweep.steps."
            if auto
            else "Lower sweep.goal."
        )
        raise CallError(
            f"the goal must lie below the loss at the start, {start_loss:.4g}; found {loss:.4g}. {remedy}"
        )
    return Goal(loss=loss, start_loss=start_loss, max_steps=plan.max_steps)


def _loss_of_the_plan(shared: SweepTask, known: KnownRuns, on_step: Callable[[int], None]) -> float:
    """The lowest loss of the planned batch size after `sweep.steps`, over learning rates a factor of 2 apart.

    At the planned rate alone it could be a loss that the best rate reaches in a few steps.
    """
    if (earlier := known.fact("goal")) is not None:
        return float(earlier)
    found: dict[int, float | None] = {}
    while (point := next_rate(found, 0, {}, PER_DOUBLING)) is not None:
        if (tried := known.fact("goal at", point=point)) is None:
            tried = {"loss": _train(shared, point, on_step)}
            known.add_fact("goal at", tried, point=point)
        found[point] = tried["loss"]
    reached = [loss for loss in found.values() if loss is not None]
    if not reached:
        raise RunError(
            f"the planned batch size diverges within {shared.config.sweep.steps} steps at every learning rate from "
            f"{shared.rate(min(found)):.2g} to {shared.rate(max(found)):.2g}. Lower optimizer.lr, or "
            "name a sweep.goal."
        )
    known.add_fact("goal", min(reached))
    return min(reached)


def _train(shared: SweepTask, point: int, on_step: Callable[[int], None]) -> float | None:
    """The smoothed loss of the planned batch size after `sweep.steps` at a learning rate; None if it diverges."""
    wanted = shared.config.sweep.steps
    lane = shared.lane(shared.config.training.batch_size, shared.rate(point), 0)
    steps, losses = [0], [shared.start_loss]
    stride = max(1, wanted // _READINGS)
    while steps[-1] < WINDOW * wanted:
        for _ in range(stride):
            lane.step((0,))
            on_step(steps[-1])
        steps.append(steps[-1] + stride)
        losses += lane.losses((0,))
        if not np.isfinite(losses[-1]):
            return None
    return smoothed_at(steps, losses, wanted)
