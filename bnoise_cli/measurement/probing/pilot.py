"""The pilot: which batch sizes and step sizes are worth measuring.

Its draws choose the design and nothing else: they are not used again, so that choosing cannot bias what
is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnoise_cli.errors import RunError
from bnoise_cli.maths import law, line
from bnoise_cli.maths.analysis import Design, Limit, limit_curvature
from bnoise_cli.maths.gradient_noise import noise_given_signal, signal_and_noise
from bnoise_cli.maths.pass_plan import Stage, batch_sizes_up_to, plan_pass
from bnoise_cli.measurement.probing.line_evaluation import DivergedError, evaluate_line
from bnoise_cli.measurement.probing.replicate import GradientSum
from bnoise_cli.measurement.task.batches import Draws
from bnoise_cli.measurement.task.gradients import add_gradient, squared_norms
from bnoise_cli.measurement.task.losses import mean_loss
from bnoise_cli.measurement.task.task import Task

#: The first updates: this many of this many examples each; where groups are drawn, of one group.
_FIRST_BLOCKS, _FIRST_SIZE = 8, 4
#: Evaluation examples for each of the pilot's lines; of groups of examples an eighth as many, and as few at least where
#: time is short.
_EVALUATION_EXAMPLES, _FEWEST_EVALUATED = 64, 8
#: The largest batch is at least this many times the noise scale, by the pilot's estimate.
_MARGIN = 6.0
#: The largest batch is no smaller than this, so that there are batch sizes to compare.
_SMALLEST = 16
#: The pilot's fit counts from so many batch sizes on.
_FEWEST_SIZES = 3
#: The pilot's fit is believed when it says so this many times; a single line is mostly noise.
_TIMES_BRACKETED = 2
#: Positions of the best step, over the line's scale, at which its polynomial can be trusted.
WELL_PLACED = (0.4, 1.7)
#: First guess of a step: it changes the loss by this part, to first order along its own gradient.
_FIRST_CHANGE = 0.05
_MOST_RESCALINGS = 8
#: |G|² below this part of tr Σ is what float32 sums leave of a zero.
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


def make_plan(batch_sizes: Sequence[int], scales: Sequence[float], slope: float, limit: Limit | None) -> Plan:
    """A pass over these batch sizes with evaluation examples in proportion to its gradients.

    A fixed split of the time is never far from the best one, whatever the two variances are: at three to
    two at most two and a half times as costly.
    """
    stages = plan_pass(batch_sizes)
    affordable = int(_EVALUATION_SHARE * batch_sizes[-1] * _BACKWARD_COST / (len(stages) * _LINE_COST))
    design = Design(
        batch_sizes=np.array(batch_sizes, dtype=np.float64),
        scales=np.array(scales, dtype=np.float64),
        blocks=np.array([stage.blocks for stage in stages]),
        limit=limit,
    )
    return Plan(design=design, stages=stages, evaluation_examples=max(affordable, 8), slope=slope)


def measure_limit(task: Task, origin: list[Tensor], draws: Draws) -> Limit | None:
    """The gradient of the whole dataset and the loss of the whole dataset along it: no noise at all.

    Returns:
        None where that gradient is zero to rounding.
    """
    everything = np.arange(task.batches.length)
    grown = GradientSum(task)
    grown.add(everything, draws)
    signal, slope = (value / grown.count**2 for value in squared_norms(task, grown.total))
    if signal <= _ROUNDING * noise_given_signal(grown.norms()[0], signal):
        return None

    def curve_of(examples: NDArray[np.int64]) -> Callable[[float], Array]:
        return lambda scale: evaluate_line(task, origin, grown.total, grown.count, scale, examples, draws)

    few = draws.indices(min(_EVALUATION_EXAMPLES, len(everything)), len(everything))
    _, scale, _ = _place(curve_of(few), slope, _first_scale(task, grown, draws))
    _, scale, found = _place(curve_of(everything), slope, scale)
    return Limit(slope=slope, signal=signal, curve=found, scale=scale)


def scout(
    task: Task,
    origin: list[Tensor],
    draws: Draws,
    *,
    limit: Limit | None,
    batch_sizes: Sequence[int] | None,
    most_examples: int,
    out_of_time: Callable[[], bool],
    haste: float = 1.0,
) -> Plan:
    """Find the range of batch sizes that brackets the noise scale, and the step sizes to evaluate there.

    Doubles one batch until it is well above the noise scale that the curvatures along its mean gradient
    show, or until `most_examples` or the time are spent.

    Args:
        limit: where known, the doubling is not needed.
        batch_sizes: the user's choice, or None.
        most_examples: the largest batch that leaves the budget enough replicates.
        haste: the part of the usual evaluation examples that there is time for.
    """
    evaluated = _evaluated(task, haste)
    length = task.batches.length
    grown = GradientSum(task)
    first = _first_size(task)
    for _ in range(_FIRST_BLOCKS):
        grown.draw(first, draws)
    scale = _first_scale(task, grown, draws)

    def slope() -> float:
        """GᵀPG, or where it is lost in noise about its standard error: the steps are placed by it."""
        if limit is not None:
            return limit.slope
        signal, noise = signal_and_noise(grown.norms()[1])
        return max(signal, 0.5 * noise / grown.count)

    def along_sum(scale: float) -> Array:
        indices = draws.indices(evaluated, length)
        return evaluate_line(task, origin, grown.total, grown.count, scale, indices, draws)

    part, scale = _noise_curvature(task, origin, draws, evaluated, slope(), scale)
    if limit is not None:
        flat = limit_curvature(limit)
        noise = float(law.fit_noise(np.array([float(first)]), np.array([part]), flat))
    else:
        seen, times_bracketed = {first: part}, 0
        while True:
            seen[grown.count], scale, _ = _place(along_sum, slope(), scale)
            flat, noise = (float(value) for value in law.fit_curvature(*_columns(seen)))
            wanted = batch_sizes[-1] if batch_sizes is not None else math.inf
            times_bracketed += len(seen) >= _FEWEST_SIZES and grown.count * flat >= _MARGIN * noise
            enough = (
                times_bracketed == _TIMES_BRACKETED
                or grown.count >= wanted
                or 2 * grown.count > most_examples
                or out_of_time()
            )
            if task.ranks.share(enough):
                break
            grown.draw(grown.count, draws)
        seen[first], _ = _noise_curvature(task, origin, draws, evaluated, slope(), scale)
        flat, noise = (float(value) for value in law.fit_curvature(*_columns(seen)))
    # Where the loss falls without end no curvature is positive; the replicates will say so.
    noise = max(noise, 0.05 * abs(part) * first, 1e-30)
    flat = max(flat, 0.2 * noise / grown.count)
    if batch_sizes is None:
        wanted = _MARGIN * noise / flat
        # Without the limit `wanted` is rough, and too large a batch costs less than too small a one.
        rough = max((wanted * grown.count) ** 0.5, grown.count / 2)
        largest = wanted if limit is not None else rough
        batch_sizes = batch_sizes_up_to(
            max(_SMALLEST, min(_power_of_two(largest), _power_of_two(most_examples)))
        )
    scales = [slope() / (flat + noise / size) for size in batch_sizes]
    return make_plan(batch_sizes, scales, slope(), limit)


def _columns(seen: dict[int, float]) -> tuple[Array, Array]:
    """Batch sizes and curvatures; a curvature that noise made negative counts as small."""
    sizes, curvatures = np.array(list(seen), dtype=np.float64), np.array(list(seen.values()))
    return sizes, np.maximum(curvatures, 1e-3 * curvatures.max() / sizes)


def _noise_curvature(
    task: Task, origin: list[Tensor], draws: Draws, evaluated: int, slope: float, scale: float
) -> tuple[float, float]:
    """Curvature along updates of a few examples, averaged over several; and its step-size scale.

    Each call of the curve draws its own updates, so that one of them is in memory at a time.
    """
    block, first = task.zeros(), _first_size(task)
    each = evaluated // _FIRST_BLOCKS

    def curve(scale: float) -> Array:
        lines = []
        for _ in range(_FIRST_BLOCKS):
            torch._foreach_zero_(block)
            add_gradient(task, block, draws.indices(first, task.batches.length), draws)
            indices = draws.indices(each, task.batches.length)
            lines.append(evaluate_line(task, origin, block, first, scale, indices, draws))
        average: Array = np.mean(lines, axis=0)
        return average

    value, scale, _ = _place(curve, slope, scale)
    return value, scale


def _place(curve: Callable[[float], Array], slope: float, scale: float) -> tuple[float, float, Array]:
    """Move a line's scale until the best step lies well inside it.

    Returns:
        (effective curvature, scale, the curve at that scale).
    """
    measured = None
    for _ in range(_MOST_RESCALINGS):
        try:
            found = curve(scale)
        except DivergedError:
            scale /= 8
            continue
        kappa, best = line.effective_curvature(found[None, :], np.asarray(slope), np.array([scale]))
        measured = float(kappa[0]), scale, found
        position = float(best[0]) / scale
        if WELL_PLACED[0] <= position <= WELL_PLACED[1]:
            break
        if position > WELL_PLACED[1] and line.turns_before(found, slope, scale, WELL_PLACED[0]):
            scale /= 8
            continue
        scale *= max(position, 1 / 8) if position < WELL_PLACED[0] else 4.0
    if measured is None:
        raise RunError(
            f"the loss is not finite along an update, not even at a step size of {scale:.3g}. "
            "The loss surface is too steep here to measure: warm up longer or start from a checkpoint."
        )
    return measured


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


def _power_of_two(value: float) -> int:
    """The nearest power of two, by ratio."""
    exponent = round(math.log2(max(value, 1.0)))
    return 1 << exponent
