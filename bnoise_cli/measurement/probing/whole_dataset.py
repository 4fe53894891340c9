"""The gradient of the whole dataset, and the best step along it: what no batch exceeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from bnoise_cli.maths import line
from bnoise_cli.maths.analysis import Limit
from bnoise_cli.maths.gradient_noise import noise_given_signal
from bnoise_cli.maths.support import claim_holds
from bnoise_cli.measurement.probing.line_evaluation import DivergedError, loss_changes
from bnoise_cli.measurement.probing.pilot_lines import (
    MOST_RESCALINGS,
    WELL_PLACED,
    Array,
    PilotLines,
    descends_again,
    place,
)
from bnoise_cli.measurement.probing.replicate import GradientSum
from bnoise_cli.measurement.task.draws import Draws
from bnoise_cli.measurement.task.gradients import squared_norms
from bnoise_cli.measurement.task.task import Task

#: A |G|² below this fraction of tr Σ is a zero with the rounding of float32 sums.
_ROUNDING = 1e-10
#: Examples on which the scale of the line is looked for.
_FEW = 64
#: Examples on which a second descent is looked for, at many step sizes: on the whole dataset that alone would cost
#: twice as much as everything else here.
_WHOLE_LINE_EXAMPLES = 512


def measure_limit(task: Task, origin: list[Tensor], draws: Draws) -> Limit | None:
    """The gradient of the whole dataset and the loss of the whole dataset along it: no noise at all.

    The highest point of the line is believed only if the loss at that step, which is evaluated, agrees with it.

    Returns:
        None if that gradient is zero to rounding, or if no scale is found at which claim and loss agree.
    """
    everything, lines = np.arange(task.batches.length), PilotLines(task, origin, draws)
    grown = GradientSum(task)
    grown.add(everything, draws)
    signal, slope = (value / grown.count**2 for value in squared_norms(task, grown.total))
    if signal <= _ROUNDING * noise_given_signal(grown.norms()[0], signal):
        return None

    def changes(steps: Sequence[float]) -> Array:
        return loss_changes(task, origin, grown.total, grown.count, steps, everything, draws)

    few = draws.indices(min(_FEW, len(everything)), len(everything))
    _, scale = place(lambda scale: lines.along(grown, scale, few), slope, 0.0, lines.first_scale(grown))
    limit = _limit_along(changes, slope, signal, scale)
    if limit is None:
        return None
    if len(everything) > _WHOLE_LINE_EXAMPLES:
        sample = draws.indices(_WHOLE_LINE_EXAMPLES, len(everything))
        again = descends_again(
            lambda steps: lines.changes(grown, steps, sample), limit.step_size, is_best=True
        )
    else:
        again = descends_again(lambda steps: changes(steps)[None, :], limit.step_size, is_best=True)
    return replace(limit, lower_at=again)


def _limit_along(
    changes: Callable[[Sequence[float]], Array], slope: float, signal: float, scale: float
) -> Limit | None:
    """The best step along the gradient of the whole dataset, from a scale that is about right.

    Args:
        changes: ΔL over the whole dataset at each of some step sizes.
    """
    too_large = math.inf
    for _ in range(MOST_RESCALINGS):
        steps = [node * scale for node in line.NODES]
        try:
            found = changes(steps)
        except DivergedError:
            too_large, scale = scale, scale / 8
            continue
        curve = line.coefficients_given_slope(found, slope * scale)
        position, top = (float(value) for value in line.best_step(curve))
        if position > WELL_PLACED[1] and found[-1] > 0 and 2 * scale < too_large:
            scale *= 4.0 if 4 * scale < too_large else 2.0
            continue
        if position < WELL_PLACED[0]:
            too_large, scale = scale, scale * max(position, 1 / 8)
            continue
        gain = float(changes([position * scale])[0])
        improvement, step = max([(gain, position * scale), *zip(found[1:], steps[1:], strict=True)])
        if claim_holds(top, gain, float(improvement)):
            return Limit(
                slope=slope,
                signal=signal,
                improvement=float(improvement),
                error=abs(top - gain),
                step_size=step,
                curvature=-2 * float(curve[1]) / scale**2,
            )
        too_large, scale = scale, scale / 4
    return None
