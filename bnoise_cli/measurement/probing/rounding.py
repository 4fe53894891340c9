"""How far rounding falsifies small differences between losses, measured at the same weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnoise_cli.measurement.probing.line_evaluation import evaluate_line
from bnoise_cli.measurement.probing.plan import Plan
from bnoise_cli.measurement.task.draws import Draws, Indices, Stream
from bnoise_cli.measurement.task.gradients import add_gradient
from bnoise_cli.measurement.task.losses import mean_values
from bnoise_cli.measurement.task.task import Task

#: Updates on which both precisions are compared, and perturbations by one rounding.
_LINES, _PERTURBATIONS = 8, 4
#: The standard deviation of the difference of two numbers that were each rounded by at most half of 1.
_UNIFORM = 6**-0.5
#: Largest bias that bfloat16 may add to a line, as a fraction of the gain of its best step.
_HARMLESS = 0.03


def choose_line_precision(task: Task, origin: list[Tensor], plan: Plan, draws: Draws) -> None:
    """Compute lines in full precision if autocast falsifies the gain of a step at the smallest batch size.

    Lines of the same updates on the same examples with the same masks are computed both ways. The random part of their
    difference is noise like any other, and is in every interval; its mean must be small.
    """
    task.use_full_lines(False)
    if task.autocast is None:
        return
    size, scale = plan.stages[0].batch_size, float(plan.design.scales[0])
    each = max(1, plan.evaluation_examples // plan.stages[0].lines)
    update, differences = task.zeros(), []
    for number in range(_LINES):
        torch._foreach_zero_(update)
        add_gradient(task, update, draws.indices(size, task.batches.length), draws)
        evaluation, masks = draws.indices(each, task.batches.length), draws.seed()
        gains = []
        for full in (False, True):
            task.use_full_lines(full)
            curve = evaluate_line(
                task, origin, update, size, scale, evaluation, Draws(masks, Stream.COMPARED_LINE, number)
            )
            gains.append(float(curve.sum()))  # at x = 1, about the best step
        differences.append(gains[0] - gains[1])
    mean, error = np.mean(differences), np.std(differences, ddof=1) / _LINES**0.5
    task.use_full_lines(bool(abs(mean) + 2 * error > _HARMLESS * plan.slope * scale / 2))


def rounding_floor(task: Task, origin: list[Tensor], plan: Plan, draws: Draws) -> float:
    """Rounding error of the difference of two losses of one line: root mean square, in nats.

    The loss moves when every weight moves by its last bit, and both losses are rounded. Smaller differences say
    nothing. Computed in the type of the parameters, for as many examples as a line of the smallest batch size has.
    """
    each = max(1, plan.evaluation_examples // plan.stages[0].lines)
    moves, own = [], torch.finfo(task.parameters[0].dtype).eps * _UNIFORM

    def moved(batch: Any, _: Indices) -> list[float]:
        masks = draws.seed()
        losses = [task.loss_value(batch, masks, "evaluation examples")]
        try:
            _move_by_one_bit(task.parameters, draws.seed())
            losses.append(task.loss_value(batch, masks, "evaluation examples"))
        finally:
            with torch.no_grad():
                torch._foreach_copy_(task.parameters, origin)
        found: list[float] = torch.stack(losses).tolist()
        return found

    with task.full_precision():
        for _ in range(_PERTURBATIONS):
            parts = mean_values(task, draws.indices(each, task.batches.length), moved)
            before, after = np.mean([pair for _, pair in parts], axis=0)
            moves.append(math.hypot(after - before, own * before))
    return float(np.sqrt(np.mean(np.square(moves))))


def _move_by_one_bit(parameters: list[Tensor], seed: int) -> None:
    generator = torch.Generator(parameters[0].device).manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            up = torch.empty_like(parameter).bernoulli_(generator=generator)
            parameter.mul_(1 + torch.finfo(parameter.dtype).eps * (2 * up - 1))
