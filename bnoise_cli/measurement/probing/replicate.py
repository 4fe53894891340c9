"""One replicate: a pass over fresh examples that makes updates at every batch size and evaluates each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnoise_cli.maths.gradient_noise import SumNorms, noise_given_signal, signal_and_noise
from bnoise_cli.maths.pass_plan import Stage
from bnoise_cli.measurement.probing.line_evaluation import evaluate_line
from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.gradients import Block, add_gradient, squared_norms
from bnoise_cli.measurement.task.passes import prefetch
from bnoise_cli.measurement.task.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """The measurements of one pass."""

    curves: NDArray[np.float64]  # p₁ … p₄ averaged over each batch size's updates, shape (K, 4)
    slope: float  # GᵀPG
    signal: float  # |G|²
    noise: float  # tr Σ


class GradientSum:
    """A growing sum of example gradients with the norms of its micro-batches."""

    def __init__(self, task: Task) -> None:
        self.total = task.zeros()
        self.count = 0
        self._task = task
        self._blocks: list[Block] = []

    def draw(self, count: int, draws: Draws, into: list[Tensor] | None = None) -> None:
        """Add the gradients of `count` fresh examples, here or to a block that is added later."""
        indices = draws.indices(count, self._task.batches.length)
        self.add(indices, draws, into)

    def add(self, indices: NDArray[np.int64], draws: Draws, into: list[Tensor] | None = None) -> None:
        """Add the gradients of the examples at `indices`."""
        target = self.total if into is None else into
        self._blocks += add_gradient(self._task, target, indices, draws)
        self.count += len(indices)

    def norms(self) -> tuple[SumNorms, SumNorms]:
        """Norms for A = 1 and for A = P."""
        plain, weighted = squared_norms(self._task, self.total)
        sizes = sum(block.examples**2 for block in self._blocks)

        def norms(of_total: float, of_blocks: float) -> SumNorms:
            return SumNorms(of_total=of_total, of_blocks=of_blocks, examples=self.count, squared_sizes=sizes)

        return (
            norms(plain, sum(block.squared_norm for block in self._blocks)),
            norms(weighted, sum(block.preconditioned for block in self._blocks)),
        )


def measure_replicate(
    task: Task,
    origin: list[Tensor],
    stages: Sequence[Stage],
    scales: Sequence[float],
    evaluation_examples: int,
    draws: Draws,
    known_signal: float | None = None,
) -> Replicate:
    """Draw the examples of the largest batch, and evaluate the updates of the smaller batches on the way.

    Every batch size has the same number of evaluation examples, divided among its updates, all drawn
    independently of the gradients. Two copies of the parameters are held besides `origin`.

    Args:
        stages: from `plan_pass`.
        scales: step size of x = 1 at each stage.
        evaluation_examples: at each batch size.
        known_signal: |G|² where the gradient of the whole dataset was computed.
    """
    grown, block = GradientSum(task), task.zeros()
    drawn = _draw(stages, evaluation_examples, draws, task.batches.length)
    coming = [indices for stage in drawn for line in stage for indices in line]
    curves = []
    for stage, scale, of_stage in zip(stages, scales, drawn, strict=True):
        lines = []
        for gradient, evaluation in of_stage:
            prefetch(task, *coming)
            coming = coming[2:]
            if stage.blocks:
                torch._foreach_zero_(block)
                grown.add(gradient, draws, into=block)
                update, count = block, len(gradient)
            else:
                grown.add(gradient, draws)
                update, count = grown.total, grown.count
            lines.append(evaluate_line(task, origin, update, count, scale, evaluation, draws))
            if stage.blocks:
                torch._foreach_add_(grown.total, block)
        curves.append(np.mean(lines, axis=0))
    plain, weighted = grown.norms()
    signal, noise = signal_and_noise(plain)
    slope, _ = signal_and_noise(weighted)
    if known_signal is not None:
        noise = noise_given_signal(plain, known_signal)
    return Replicate(curves=np.array(curves), slope=slope, signal=signal, noise=noise)


def _draw(
    stages: Sequence[Stage], evaluation_examples: int, draws: Draws, length: int
) -> list[list[tuple[Indices, Indices]]]:
    """For each line of each stage the examples that its update gains and those that it is evaluated on."""
    drawn, count = [], 0
    for stage in stages:
        each = max(1, evaluation_examples // stage.lines)
        gained = [stage.batch_size] * stage.blocks or [stage.batch_size - count]
        drawn.append([(draws.indices(size, length), draws.indices(each, length)) for size in gained])
        count += sum(gained)
    return drawn
