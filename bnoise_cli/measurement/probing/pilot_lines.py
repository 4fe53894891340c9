"""Lines of the pilot: the loss along one update, on several parts of the examples, at a scale that has to be found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bnoise_cli.errors import OutOfTimeError, RunError
from bnoise_cli.maths import line
from bnoise_cli.maths.support import lines_are_supported, second_descent
from bnoise_cli.measurement.probing.line_evaluation import DivergedError, loss_changes
from bnoise_cli.measurement.probing.replicate import GradientSum
from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.gradients import squared_norms
from bnoise_cli.measurement.task.losses import mean_loss
from bnoise_cli.measurement.task.task import Task

#: Positions of the best step, over the line's scale, at which its polynomial can be trusted.
WELL_PLACED = (0.4, 1.7)
MOST_RESCALINGS = 10
#: First guess of a step: it changes the loss by this fraction, to first order along its own gradient; that loss is the
#: mean over this number of examples.
_FIRST_CHANGE, _FIRST_EXAMPLES = 0.05, 8
#: The slope at the start of a line is the central difference at plus and minus this fraction of its scale.
_CLOSE = 1 / 8
#: Lines along one update are evaluated on this many parts of the examples, whose scatter is the noise.
_PARTS = 4
#: A line is evaluated again at these multiples of its best step, from a quarter to 15 times, to see a second descent.
#: The dip before it may be narrow.
_SHORTER, _LONGER = 6, 12
_WHOLE_LINE = tuple(1.25**power for power in range(-_SHORTER, _LONGER + 1))

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PilotLines:
    """Evaluates lines of a task that is at the weights `origin`, with draws of one stream."""

    task: Task
    origin: list[Tensor]
    draws: Draws

    def one(self, total: list[Tensor], count: int, scale: float, indices: Indices) -> Array:
        """p₁ … p₄ along total/count, and the slope close to the start on the same examples; shape (5,)."""
        steps = [x * scale for x in (*line.NODES, -_CLOSE, _CLOSE)]
        changes = loss_changes(self.task, self.origin, total, count, steps, indices, self.draws)
        start = (changes[-1] - changes[-2]) / (2 * _CLOSE)
        return np.append(line.coefficients(changes[:-2]), start)

    def along(self, grown: GradientSum, scale: float, indices: Indices) -> Array:
        """The same on each of several parts of the examples, so that their scatter is seen; shape (n, 5)."""
        return np.array([self.one(grown.total, grown.count, scale, part) for part in _parts(indices)])

    def changes(self, grown: GradientSum, steps: Sequence[float], indices: Indices) -> Array:
        """ΔL along an update on each of several parts of the examples; shape (n, steps)."""
        total, count = grown.total, grown.count
        return np.array(
            [
                loss_changes(self.task, self.origin, total, count, steps, part, self.draws)
                for part in _parts(indices)
            ]
        )

    def first_scale(self, grown: GradientSum) -> float:
        """A guess of the step size of x = 1.

        Raises:
            RunError: the gradient is zero.
        """
        indices = self.draws.indices(_FIRST_EXAMPLES, self.task.batches.length)
        loss = abs(mean_loss(self.task, indices, self.draws))
        own = squared_norms(self.task, grown.total)[1] / grown.count**2
        if own == 0:
            raise RunError(
                f"the gradient of {grown.count} examples is exactly zero. "
                "Check that the loss depends on the trainable parameters."
            )
        return _FIRST_CHANGE * max(loss, 1e-6) / own


def _parts(indices: Indices) -> list[Indices]:
    return np.array_split(indices, min(_PARTS, len(indices)))


def place(
    lines: Callable[[float], Array], slope: float, slope_error: float, scale: float
) -> tuple[float, float]:
    """Move the scale of lines until the best step lies well inside them and the measured losses support it.

    Args:
        lines: p₁ … p₄ and the slope close to the start of several lines at a scale, shape (n, 5).
        slope: GᵀPG, with its standard error.

    Returns:
        (effective curvature, scale), of the last scale that the losses support, or else of the last one.

    Raises:
        OutOfTimeError: before the first curvature; a later end of the time ends the search.
        RunError: the loss is not finite at any scale.
    """
    measured, supported, first, too_large = None, None, None, math.inf
    for _ in range(MOST_RESCALINGS):
        try:
            found = lines(scale)
        except DivergedError:
            too_large, scale = scale, scale / 8
            continue
        except OutOfTimeError:
            if measured is None:
                raise
            break
        curve = found[:, :4].mean(axis=0)
        kappa, best = line.effective_curvature(curve[None, :], np.asarray(slope), np.array([scale]))
        measured = float(kappa[0]), scale
        position = float(best[0]) / scale
        if position < WELL_PLACED[0]:
            too_large, scale = scale, scale * max(position, 1 / 8)
            continue
        if not lines_are_supported(found[:, :4], found[:, 4], slope * scale, slope_error * scale):
            too_large, scale = scale, scale / 4
            continue
        supported, first = measured, first or measured
        if position <= WELL_PLACED[1] or 2 * scale >= too_large:
            break
        scale *= 4.0 if 4 * scale < too_large else 2.0
    else:
        supported = first  # no scale holds the best step, so that larger ones have shown nothing
    if measured is None:
        raise RunError(
            f"the loss is not finite along an update, not even at a step size of {scale:.3g}. "
            "The loss surface is too steep here to measure: warm up longer or start from a checkpoint."
        )
    return supported or measured


def descends_again(
    changes: Callable[[Sequence[float]], Array], step: float, *, is_best: bool = False
) -> float | None:
    """The step size of a second descent along a line whose best step is about `step`; None if there is none.

    Args:
        changes: ΔL at each of some step sizes, on one or more sets of examples, shape (n, steps).
        is_best: whether `step` is known as the best one, so that a much higher gain elsewhere is a second descent.
    """
    steps = [times * step for times in _WHOLE_LINE]
    while len(steps) > _SHORTER:
        try:
            return second_descent(np.array(steps), changes(steps), _SHORTER if is_best else None)
        except DivergedError:  # the loss is not finite at the longest step at least
            steps = steps[:-1]
    return None
