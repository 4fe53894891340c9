"""The horizon of a probed point: whether there is room for one, and where to look for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from bnoise_cli.errors import OutOfTimeError, RunError
from bnoise_cli.measurement.building.build import make_optimizer
from bnoise_cli.measurement.horizon.measure import HorizonSettings, measure_horizon
from bnoise_cli.measurement.outcome import HorizonFound, HorizonProgress, Measurement, StopReason
from bnoise_cli.measurement.task.memory import available_bytes
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.user_code import enough_memory
from bnoise_cli.spec.load import Spec

#: Part of a point's time that the one-step measurement may take, if a horizon follows. Of a budget in examples it takes
#: what it needs.
ONE_STEP_SHARE = 1 / 3
#: The horizon's interval of B_crit may be this many times as wide as the one that is asked of the noise scale: it
#: costs as many times more.
_WIDER = 2.0
#: The first guess of B_crit over the simple noise scale.
_BELOW = 0.5
#: Gradient examples of a horizon's first level over B_crit; half as many may be less than it takes.
_FIRST_LEVEL = 500.0
#: B_crit is seldom smaller than this; merely chosen.
_SMALL = 8
#: Runs that are kept, each with weights and optimizer state, and the part of the host's memory that they may take.
_KEPT_RUNS, _MEMORY = 80, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What is left for the horizon of one point."""

    seconds: float
    examples: float


def look_ahead(
    task: Task,
    optimizer: torch.optim.Optimizer,
    spec: Spec,
    measured: Measurement,
    budget: Budget,
    on_progress: Callable[[HorizonProgress], None],
) -> Measurement:
    """The same measurement with a horizon, or with the reason why there is none."""
    config = spec.config
    rate = float(optimizer.param_groups[0].get("lr") or 0.0)
    guess = _guess(measured, config.training.batch_size)
    reason = _no_room(task, optimizer, measured, guess, rate, budget)
    if reason is not None:
        return replace(measured, no_horizon=reason)
    settings = HorizonSettings(
        batch_size=config.training.batch_size,
        base_rate=rate,
        max_grad_norm=config.training.max_grad_norm,
        guess=guess,
        steps=None if config.probe.horizon == "auto" else int(config.probe.horizon),
        precision=_WIDER * config.probe.precision,
        budget_seconds=budget.seconds,
        max_examples=budget.examples,
        seed=config.probe.seed,
        step=measured.step,
    )
    try:
        with enough_memory("training short runs"), preserved(task.model, config.probe.seed):
            found = measure_horizon(
                task, optimizer, partial(make_optimizer, spec), settings, on_progress=on_progress
            )
    except KeyboardInterrupt:
        return replace(measured, stop=StopReason.INTERRUPTED, no_horizon="it was interrupted")
    except OutOfTimeError:
        return replace(measured, no_horizon="its budget ended before the first run")
    except RunError as error:
        error = task.ranks.publish(error)
        return replace(
            measured, stop=StopReason.FAILED, failure=error, no_horizon=str(error).removesuffix(".")
        )
    stop, failure = measured.stop, found.failure
    if found.interrupted:
        stop = StopReason.INTERRUPTED
    elif failure is not None:
        stop = StopReason.FAILED
    return replace(
        measured,
        stop=stop,
        failure=measured.failure or failure,
        horizon=found if found.levels else None,
        no_horizon=None if found.levels else _why_none(found),
        seconds=measured.seconds + found.seconds,
        gradient_examples=measured.gradient_examples + found.gradient_examples,
        evaluation_examples=measured.evaluation_examples + found.evaluation_examples,
    )


def fewest_examples(group: int) -> float:
    """Gradient examples that nearly every horizon takes."""
    return _FIRST_LEVEL / 2 * max(group, _SMALL)


def _why_none(found: HorizonFound) -> str:
    """Why the runs reached no level."""
    if found.interrupted:
        return "it was interrupted"
    if found.failure is not None:
        return str(found.failure).removesuffix(".")
    return found.obstacle or "its budget ended before the first level was reached"


def _guess(measured: Measurement, planned: int) -> float:
    """Where B_crit is looked for first: training showed 0.15 to 3 times the simple noise scale on nine tasks."""
    if measured.analysis is None:
        return float(planned)
    scales = (measured.analysis.simple_noise_scale, measured.analysis.noise_scale)
    known = [scale.value for scale in scales if scale.value is not None]
    return max(_BELOW * next(iter(known), float(planned)), 1.0)


def _no_room(
    task: Task,
    optimizer: torch.optim.Optimizer,
    measured: Measurement,
    guess: float,
    rate: float,
    budget: Budget,
) -> str | None:
    """Why a horizon is out of reach, or None."""
    if not rate > 0 or not math.isfinite(rate):
        return f"short runs need a positive learning rate to start from, and optimizer.lr is {rate:g}"
    kept = sum(p.nbytes for p in task.parameters)
    kept += sum(
        value.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    of_ranks = task.ranks.all_gather((kept, available_bytes(torch.device("cpu"))))
    if any(most is not None and _KEPT_RUNS * held > _MEMORY * most for held, most in of_ranks):
        return "the host's memory does not hold the weights of its runs"
    examples = measured.gradient_examples + measured.evaluation_examples / 3
    needed = _FIRST_LEVEL * min(guess, task.batches.length)
    each = task.ranks.broadcast(measured.seconds / examples if examples else 0.0)
    if needed / 2 * each > budget.seconds:
        return (
            f"its first level needs about {needed:.0f} gradient examples, {needed * each:.0f} s, and "
            f"{max(budget.seconds, 0):.0f} s of probe.budget are left"
        )
    if budget.examples < needed / 2:
        return (
            f"its first level needs about {needed:.0f} gradient examples, and {max(budget.examples, 0):.0f} of "
            "probe.max_examples are left"
        )
    return None
