"""The pilot: which batch sizes and step sizes are worth measuring.

Its draws choose the design and nothing else: they are not used again, so that choosing cannot bias what
is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnoise_cli.errors import OutOfTimeError, RunError
from bnoise_cli.maths import design, law, line
from bnoise_cli.maths.analysis import Design, Limit
from bnoise_cli.maths.gradient_noise import noise_given_signal, signal_and_noise
from bnoise_cli.maths.pass_plan import Stage, plan_pass
from bnoise_cli.maths.support import claim_holds, lines_are_supported, second_descent
from bnoise_cli.measurement.probing.line_evaluation import DivergedError, loss_changes
from bnoise_cli.measurement.probing.replicate import GradientSum
from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.gradients import add_gradient, squared_norms
from bnoise_cli.measurement.task.losses import mean_loss
from bnoise_cli.measurement.task.task import Task

#: The first updates: this many of this many examples each, or of one group each.
_FIRST_BLOCKS, _FIRST_SIZE = 8, 4
#: Evaluation examples for each of the pilot's lines; and the fewest, for groups of examples or if time is short.
_EVALUATION_EXAMPLES, _FEWEST_EVALUATED = 64, 8
#: The pilot's fit counts from this many batch sizes on.
_FEWEST_SIZES = 3
#: Stop doubling after the fit has bracketed the noise scale this many times; one line alone is mostly noise.
_TIMES_BRACKETED = 2
#: Positions of the best step, over the line's scale, at which its polynomial can be trusted.
WELL_PLACED = (0.4, 1.7)
#: First guess of a step: it changes the loss by this part, to first order along its own gradient.
_FIRST_CHANGE = 0.05
_MOST_RESCALINGS = 10
#: The slope at the start of a line is the central difference at plus and minus this part of its scale.
_CLOSE = 1 / 8
#: Lines along one update are evaluated on this many parts of the examples, whose scatter is the noise.
_PARTS = 4
#: A line is evaluated again at these multiples of its best step, from a quarter to 15 times, to see a second descent.
#: The dip before it may be narrow.
_WHOLE_LINE = tuple(1.25**power for power in range(-6, 13))
#: A |G|² below this part of tr Σ is a zero with the rounding of float32 sums.
_ROUNDING = 1e-10
#: Time for evaluations over time for gradients. At a fixed number of gradients, 2 gave 0.70 of the variance
#: that 1 gave on a linear regression with 10,000 inputs, and 0.9 on a small GPT, for 1.5 times the time.
_EVALUATION_SHARE = 1.5
#: A forward and backward pass in forward passes, and what one evaluation example costs on a line.
_BACKWARD_COST, _LINE_COST = 3, 1 + len(line.NODES)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What each replicate does."""

    design: Design
    stages: tuple[Stage, ...]
    evaluation_examples: int  # at each batch size
    slope: float  # GᵀPG, as far as it was known

    @property
    def largest(self) -> int:
        """Gradient examples of one replicate."""
        return self.stages[-1].batch_size


def make_plan(
    batch_sizes: Sequence[int],
    scales: Sequence[float],
    slope: float,
    limit: Limit | None,
    lower_at: float | None,
) -> Plan:
    """A pass over these batch sizes with evaluation examples in proportion to its gradients.

    A fixed split of the time is never far from the best one, whatever the two variances are: at three to
    two at most two and a half times as costly.
    """
    stages = plan_pass(batch_sizes)
    affordable = int(_EVALUATION_SHARE * batch_sizes[-1] * _BACKWARD_COST / (len(stages) * _LINE_COST))
    made = Design(
        batch_sizes=np.array(batch_sizes, dtype=np.float64),
        scales=np.array(scales, dtype=np.float64),
        blocks=np.array([stage.blocks for stage in stages]),
        limit=limit,
        lower_at=lower_at,
    )
    return Plan(design=made, stages=stages, evaluation_examples=max(affordable, 8), slope=slope)


def measure_limit(task: Task, origin: list[Tensor], draws: Draws) -> Limit | None:
    """The gradient of the whole dataset and the loss of the whole dataset along it: no noise at all.

    The highest point of the line is believed only if the loss at that step, which is evaluated, agrees with it.

    Returns:
        None if that gradient is zero to rounding, or if no scale is found at which claim and loss agree.
    """
    everything = np.arange(task.batches.length)
    grown = GradientSum(task)
    grown.add(everything, draws)
    signal, slope = (value / grown.count**2 for value in squared_norms(task, grown.total))
    if signal <= _ROUNDING * noise_given_signal(grown.norms()[0], signal):
        return None

    def changes(steps: Sequence[float]) -> Array:
        return loss_changes(task, origin, grown.total, grown.count, steps, everything, draws)

    few = draws.indices(min(_EVALUATION_EXAMPLES, len(everything)), len(everything))
    _, scale = _place(
        lambda scale: _lines_of(task, origin, grown, scale, few, draws),
        slope,
        0.0,
        _first_scale(task, grown, draws),
    )
    return _limit_along(changes, slope, signal, scale)


def _limit_along(
    changes: Callable[[Sequence[float]], Array], slope: float, signal: float, scale: float
) -> Limit | None:
    """The best step along the gradient of the whole dataset, from a scale that is about right.

    Args:
        changes: ΔL over the whole dataset at each of some step sizes.
    """
    too_large = math.inf
    for _ in range(_MOST_RESCALINGS):
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
                lower_at=_second_descent(lambda steps: changes(steps)[None, :], step, float(improvement)),
            )
        too_large, scale = scale, scale / 4
    return None


def _second_descent(
    changes: Callable[[Sequence[float]], Array], step: float, claimed: float = math.inf
) -> float | None:
    """The step size of a second descent along a line whose best step is about `step`; None if there is none.

    Args:
        changes: ΔL at each of some step sizes, on one or more sets of examples, shape (n, steps).
        claimed: the gain of the best step, if it is known without noise.
    """
    steps = [times * step for times in _WHOLE_LINE]
    while steps:
        try:
            return second_descent(np.array(steps), changes(steps), claimed)
        except DivergedError:  # the loss is not finite at the longest step at least
            steps = steps[:-1]
    return None


def scout(
    task: Task,
    origin: list[Tensor],
    draws: Draws,
    *,
    limit: Limit | None,
    batch_sizes: Sequence[int] | None,
    most_examples: int,
    in_time: Callable[[int], bool],
    haste: float = 1.0,
) -> Plan:
    """Find the range of batch sizes that brackets the noise scale, and the step sizes to evaluate there.

    Doubles one batch until it is well above the noise scale that the curvatures along its mean gradient
    show, or until `most_examples` or the time are spent. If the time ends later (`Task.within`), what has been found by
    then makes the plan.

    Args:
        limit: if it is known, nothing is doubled.
        batch_sizes: the user's choice, or None.
        most_examples: the largest batch that leaves the budget enough replicates.
        in_time: whether there is time for the gradient of so many more examples.
        haste: the part of the usual evaluation examples for which there is time.

    Raises:
        OutOfTimeError: the time ended before a single curvature was known.
    """
    evaluated = _evaluated(task, haste)
    length = task.batches.length
    grown = GradientSum(task)
    first = _first_size(task)
    for _ in range(_FIRST_BLOCKS):
        grown.draw(first, draws)
    scale = _first_scale(task, grown, draws)

    slopes: dict[int, tuple[float, float]] = {}

    def slope() -> tuple[float, float]:
        """GᵀPG and about its standard error, which replaces it if it is lost in noise: it places the steps.

        Kept for each size of the update: one that the end of the time has left half drawn is not asked.
        """
        if limit is not None:
            return limit.slope, 0.0
        if grown.count not in slopes:
            signal, noise = signal_and_noise(grown.norms()[1])
            slopes[grown.count] = max(signal, 0.5 * noise / grown.count), 0.5 * noise / grown.count
        return slopes[grown.count]

    def along_sum(scale: float) -> Array:
        return _lines_of(task, origin, grown, scale, draws.indices(evaluated, length), draws)

    part, scale = _noise_curvature(task, origin, draws, evaluated, *slope(), scale)
    lower_at = limit.lower_at if limit is not None else None
    if limit is not None:
        flat = limit.effective_curvature
        noise = float(law.fit_noise(np.array([float(first)]), np.array([part]), flat))
    else:
        seen, wanted = {first: part}, batch_sizes[-1] if batch_sizes is not None else math.inf
        scale = _double(
            task,
            grown,
            draws,
            seen,
            scale,
            place=lambda scale: _place(along_sum, *slope(), scale),
            enough=lambda drawn: drawn >= wanted or 2 * drawn > most_examples or not in_time(drawn),
        )
        with suppress(OutOfTimeError):
            seen[first], _ = _noise_curvature(task, origin, draws, evaluated, *slope(), scale)
        flat, noise = _fit(seen)
        changes = partial(_changes, task, origin, grown, draws.indices(evaluated, length), draws)
        with suppress(OutOfTimeError):
            lower_at = _second_descent(changes, slope()[0] / max(seen[max(seen)], 1e-30))
    flat, noise = design.positive_curvatures(
        flat, noise, first_curvature=part, first=first, drawn=grown.count
    )
    if batch_sizes is None:
        batch_sizes = design.choose_batch_sizes(
            flat, noise, drawn=grown.count, most=most_examples, exact=limit is not None
        )
    a, _ = slope()
    scales = design.step_scales(a, flat, noise, batch_sizes)
    return make_plan(batch_sizes, scales, a, limit, lower_at)


def _double(
    task: Task,
    grown: GradientSum,
    draws: Draws,
    seen: dict[int, float],
    scale: float,
    *,
    place: Callable[[float], tuple[float, float]],
    enough: Callable[[int], bool],
) -> float:
    """Double an update until the fit brackets the noise scale, or until it has `enough` examples.

    Args:
        seen: batch size → curvature; the curvature along every update is added.
        place: from a scale to the curvature along the present update and a better scale.

    Returns:
        The last scale.
    """
    times_bracketed = 0
    while True:
        try:
            seen[grown.count], scale = place(scale)
        except OutOfTimeError:
            return scale
        flat, noise = _fit(seen)
        times_bracketed += len(seen) >= _FEWEST_SIZES and design.is_bracketed(flat, noise, grown.count)
        if task.ranks.broadcast(times_bracketed == _TIMES_BRACKETED or enough(grown.count)):
            return scale
        try:
            grown.draw(grown.count, draws)
        except OutOfTimeError:
            return scale


def _fit(seen: dict[int, float]) -> tuple[float, float]:
    """α and β of curvatures by batch size; a curvature that noise made negative counts as small.

    A single curvature is taken for noise alone.
    """
    if len(seen) == 1:
        [(size, curvature)] = seen.items()
        return 0.0, size * curvature
    sizes, curvatures = np.array(list(seen), dtype=np.float64), np.array(list(seen.values()))
    flat, noise = law.fit_curvature(sizes, np.maximum(curvatures, 1e-3 * curvatures.max() / sizes))
    return float(flat), float(noise)


def _lines_of(
    task: Task, origin: list[Tensor], grown: GradientSum, scale: float, indices: Indices, draws: Draws
) -> Array:
    """Lines along one update, each on a part of the examples, so that their scatter is seen; shape (n, 5)."""
    parts = np.array_split(indices, min(_PARTS, len(indices)))
    return np.array([_line(task, origin, grown.total, grown.count, scale, part, draws) for part in parts])


def _changes(
    task: Task,
    origin: list[Tensor],
    grown: GradientSum,
    indices: Indices,
    draws: Draws,
    steps: Sequence[float],
) -> Array:
    """ΔL along one update, on each of several parts of the examples; shape (n, steps)."""
    parts = np.array_split(indices, min(_PARTS, len(indices)))
    return np.array(
        [loss_changes(task, origin, grown.total, grown.count, steps, part, draws) for part in parts]
    )


def _line(
    task: Task,
    origin: list[Tensor],
    total: list[Tensor],
    count: int,
    scale: float,
    indices: Indices,
    draws: Draws,
) -> Array:
    """p₁ … p₄ of one line, and its slope close to the start on the same examples; shape (5,)."""
    steps = [x * scale for x in (*line.NODES, -_CLOSE, _CLOSE)]
    changes = loss_changes(task, origin, total, count, steps, indices, draws)
    start = (changes[-1] - changes[-2]) / (2 * _CLOSE)
    return np.append(line.coefficients(changes[:-2]), start)


def _noise_curvature(
    task: Task,
    origin: list[Tensor],
    draws: Draws,
    evaluated: int,
    slope: float,
    slope_error: float,
    scale: float,
) -> tuple[float, float]:
    """Curvature along updates of a few examples, averaged over several; and its step-size scale.

    Each call of `lines` draws its own updates, so that one update is in memory at a time.
    """
    block, first = task.zeros(), _first_size(task)
    each = evaluated // _FIRST_BLOCKS

    def lines(scale: float) -> Array:
        found = []
        for _ in range(_FIRST_BLOCKS):
            torch._foreach_zero_(block)
            add_gradient(task, block, draws.indices(first, task.batches.length), draws)
            indices = draws.indices(each, task.batches.length)
            found.append(_line(task, origin, block, first, scale, indices, draws))
        return np.array(found)

    return _place(lines, slope, slope_error, scale)


def _place(
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
    for _ in range(_MOST_RESCALINGS):
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


def _first_scale(task: Task, grown: GradientSum, draws: Draws) -> float:
    indices = draws.indices(_FIRST_BLOCKS, task.batches.length)
    loss = abs(mean_loss(task, indices, draws))
    own = squared_norms(task, grown.total)[1] / grown.count**2
    if own == 0:
        raise RunError(
            f"the gradient of {grown.count} examples is exactly zero. "
            "Check that the loss depends on the trainable parameters."
        )
    return _FIRST_CHANGE * max(loss, 1e-6) / own


def _first_size(task: Task) -> int:
    return _FIRST_SIZE if task.batches.group == 1 else 1


def _evaluated(task: Task, haste: float) -> int:
    """Evaluation examples, or groups, of one line of the pilot."""
    if task.batches.group > 1:
        return _FEWEST_EVALUATED
    return max(_FEWEST_EVALUATED, min(_EVALUATION_EXAMPLES, int(haste * _EVALUATION_EXAMPLES)))
