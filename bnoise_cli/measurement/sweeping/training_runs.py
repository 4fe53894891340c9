"""Training to a goal: when a run counts as arrived, beaten or diverged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bnoise_cli import clock
from bnoise_cli.maths.crossing import WINDOW, crossing, has_diverged, has_stalled
from bnoise_cli.measurement.training.lanes import Lanes
from bnoise_cli.records import RunEnd

#: Evaluations follow one another at this growth of the step while the goal is far, and at this one near it.
_FAR, _NEAR = 1.15, 1.03
#: Near is where the last losses, extrapolated, arrive before the step has grown by this much: a window and a far step.
_SOON = 1.5
#: A run that has not crossed the goal by this fraction more than the steps to beat has lost.
_LATE = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What became of one run."""

    #: Steps to the goal, interpolated; None: the run did not arrive.
    steps: float | None
    outcome: RunEnd
    #: Training steps.
    taken: int
    evaluations: int
    #: Its share of the time of all runs that were trained side by side.
    seconds: float
    lowest_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Where a run is to arrive."""

    loss: float
    start_loss: float
    max_steps: int


def train_to_goal(
    lanes: Lanes,
    count: int,
    goal: Goal,
    *,
    beaten_at: float | None,
    on_step: Callable[[int], None] = lambda _: None,
) -> list[Arrival]:
    """Train runs of one learning rate side by side until each has arrived, or one diverged or cannot beat the best.

    As their mean counts, all are lost with one.

    Args:
        beaten_at: a run that has not arrived by then has lost; None for no such limit.
    """
    begun = clock.monotonic()
    steps, losses = [0], [[goal.start_loss] for _ in range(count)]
    arrivals: dict[int, Arrival] = {}
    active, step = list(range(count)), 0
    while active:
        soon = any(_is_near(steps, losses[lane], goal.loss) for lane in active)
        target = min(goal.max_steps, max(step + 1, math.floor(step * (_NEAR if soon else _FAR))))
        while step < target:
            lanes.step(active)
            step += 1
            on_step(step)
        steps.append(step)
        for lane, loss in zip(active, lanes.losses(active), strict=True):
            losses[lane].append(loss)
        crossed: dict[int, float] = {}
        for lane in active:
            at, outcome = _judge(steps, losses[lane], goal)
            if at is not None:
                crossed[lane] = at
            if outcome is not None:
                arrivals[lane] = _arrival(at if outcome == "reached" else None, outcome, step, losses[lane])
        for lane in active:
            late = beaten_at is not None and min(step, crossed.get(lane, step)) >= _LATE * beaten_at
            if late and lane not in arrivals:
                arrivals[lane] = _arrival(None, "beaten", step, losses[lane])
        active = [lane for lane in active if lane not in arrivals]
        if any(arrival.steps is None for arrival in arrivals.values()):
            for lane in active:
                arrivals[lane] = _arrival(None, "beaten", step, losses[lane])
            break
    whole = sum(arrival.taken for arrival in arrivals.values())
    seconds = clock.monotonic() - begun
    return [
        Arrival(
            steps=found.steps,
            outcome=found.outcome,
            taken=found.taken,
            evaluations=found.evaluations,
            seconds=seconds * found.taken / whole,
            lowest_loss=found.lowest_loss,
        )
        for _, found in sorted(arrivals.items())
    ]


def evaluations_of_a_run(steps: float) -> int:
    """The number of evaluations of a run that reaches the goal after `steps` steps."""
    number, step = 0, 0
    while step < steps:
        step = max(step + 1, math.floor(step * (_NEAR if _SOON * step >= steps else _FAR)))
        number += 1
    return number


def _judge(steps: Sequence[int], losses: Sequence[float], goal: Goal) -> tuple[float | None, RunEnd | None]:
    """(steps to the goal, how the run ended); None for what is not known yet: steps without an end may change."""
    if has_diverged(steps, losses, goal.start_loss):
        return None, "diverged"
    at = crossing(steps, losses, goal.loss) if min(losses) <= goal.loss else None
    if at is not None and steps[-1] >= WINDOW * at:
        return at, "reached"
    ended = steps[-1] >= goal.max_steps or (at is None and has_stalled(steps, losses))
    return at, "unreached" if ended else None


def _is_near(steps: Sequence[int], losses: Sequence[float], goal: float) -> bool:
    """Whether the goal was once passed, or is close on the line through the last two losses."""
    if len(losses) < 3 or min(losses) <= goal:
        return min(losses) <= goal
    slope = (losses[-1] - losses[-2]) / math.log(steps[-1] / steps[-2])
    return losses[-1] + slope * math.log(_SOON) <= goal


def _arrival(at: float | None, outcome: RunEnd, taken: int, losses: Sequence[float]) -> Arrival:
    finite = [loss for loss in losses if math.isfinite(loss)]
    return Arrival(
        steps=at,
        outcome=outcome,
        taken=taken,
        evaluations=len(losses) - 1,
        seconds=0.0,
        lowest_loss=min(finite) if finite else None,
    )
