"""The pilot: which batch sizes and step sizes are worth measuring.

Its draws choose the design and nothing else: they are not used again, so that choosing cannot bias what
is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from bnoise_cli.errors import OutOfTimeError
from bnoise_cli.maths import design, law
from bnoise_cli.maths.analysis import Limit
from bnoise_cli.maths.gradient_noise import signal_and_noise
from bnoise_cli.measurement.probing.pilot_lines import Array, PilotLines, descends_again, place
from bnoise_cli.measurement.probing.plan import Plan, make_plan
from bnoise_cli.measurement.probing.replicate import GradientSum
from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.gradients import add_gradient
from bnoise_cli.measurement.task.task import Task

#: The first updates: this many of this many examples each, or of one group each.
_FIRST_BLOCKS, _FIRST_SIZE = 8, 4
#: Evaluation examples for each of the pilot's lines; and the fewest, for groups of examples or if time is short.
_EVALUATION_EXAMPLES, _FEWEST_EVALUATED = 64, 8
#: The pilot's fit counts from this many batch sizes on.
_FEWEST_SIZES = 3
#: Stop doubling after the fit has bracketed the noise scale this many times; one line alone is mostly noise.
_TIMES_BRACKETED = 2


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
        in_time: whether there is time for the gradient of a given number of further examples.
        haste: the part of the usual evaluation examples for which there is time.

    Raises:
        OutOfTimeError: the time ended before a single curvature was known.
    """
    pilot = _Pilot(task, origin, draws, limit, haste)
    first_curvature = pilot.curvature_of_few()
    if limit is not None:
        flat, lower_at = limit.effective_curvature, limit.lower_at
        noise = float(law.fit_noise(np.array([float(pilot.first)]), np.array([first_curvature]), flat))
    else:
        wanted = batch_sizes[-1] if batch_sizes is not None else math.inf
        pilot.double(lambda drawn: drawn >= wanted or 2 * drawn > most_examples or not in_time(drawn))
        (flat, noise), lower_at = pilot.fit(), pilot.second_descent()
    flat, noise = design.positive_curvatures(
        flat, noise, first_curvature=first_curvature, first=pilot.first, drawn=pilot.grown.count
    )
    if batch_sizes is None:
        batch_sizes = design.choose_batch_sizes(
            flat, noise, drawn=pilot.grown.count, most=most_examples, exact=limit is not None
        )
    slope, _ = pilot.slope()
    return make_plan(batch_sizes, design.step_scales(slope, flat, noise, batch_sizes), slope, limit, lower_at)


class _Pilot:
    """One pilot under way: an update that grows, and the curvatures along it.

    Attributes:
        grown: the update.
        first: examples, or groups, of each of the first updates.
        seen: batch size → curvature.
    """

    def __init__(
        self, task: Task, origin: list[Tensor], draws: Draws, limit: Limit | None, haste: float
    ) -> None:
        self._task, self._draws, self._limit = task, draws, limit
        self._lines, self._evaluated = PilotLines(task, origin, draws), _evaluated(task, haste)
        self.first = _FIRST_SIZE if task.batches.group == 1 else 1
        self.grown, self.seen = GradientSum(task), dict[int, float]()
        for _ in range(_FIRST_BLOCKS):
            self.grown.draw(self.first, draws)
        self._scale = self._lines.first_scale(self.grown)
        self._slopes: dict[int, tuple[float, float]] = {}

    def slope(self) -> tuple[float, float]:
        """GᵀPG and about its standard error, which replaces it if it is lost in noise: it places the steps.

        Kept for each size of the update: one that the end of the time has left half drawn is not asked.
        """
        if self._limit is not None:
            return self._limit.slope, 0.0
        count = self.grown.count
        if count not in self._slopes:
            signal, noise = signal_and_noise(self.grown.norms()[1])
            self._slopes[count] = max(signal, 0.5 * noise / count), 0.5 * noise / count
        return self._slopes[count]

    def curvature_of_few(self) -> float:
        """Curvature along updates of a few examples, averaged over several.

        Each scale that is tried has its own updates, so that one update is in memory at a time.
        """
        block, each = self._task.zeros(), self._evaluated // _FIRST_BLOCKS

        def lines(scale: float) -> Array:
            found = []
            for _ in range(_FIRST_BLOCKS):
                torch._foreach_zero_(block)
                add_gradient(self._task, block, self._examples(self.first), self._draws)
                found.append(self._lines.one(block, self.first, scale, self._examples(each)))
            return np.array(found)

        self.seen[self.first], self._scale = place(lines, *self.slope(), self._scale)
        return self.seen[self.first]

    def double(self, enough: Callable[[int], bool]) -> None:
        """Double the update until the fit brackets the noise scale, it has `enough` examples, or the time ends.

        Then the curvature of few examples is measured again, at the scale that is known by now.
        """
        with suppress(OutOfTimeError):
            times_bracketed = 0
            while True:
                self.seen[self.grown.count], self._scale = place(
                    self._along_update, *self.slope(), self._scale
                )
                count = self.grown.count
                times_bracketed += len(self.seen) >= _FEWEST_SIZES and design.is_bracketed(*self.fit(), count)
                if self._task.ranks.broadcast(times_bracketed == _TIMES_BRACKETED or enough(count)):
                    break
                self.grown.draw(count, self._draws)
        with suppress(OutOfTimeError):
            self.curvature_of_few()

    def fit(self) -> tuple[float, float]:
        """α and β of the curvatures by batch size; a curvature that noise made negative counts as small.

        A single curvature is taken for noise alone.
        """
        if len(self.seen) == 1:
            [(size, curvature)] = self.seen.items()
            return 0.0, size * curvature
        sizes, curvatures = np.array(list(self.seen), dtype=np.float64), np.array(list(self.seen.values()))
        flat, noise = law.fit_curvature(sizes, np.maximum(curvatures, 1e-3 * curvatures.max() / sizes))
        return float(flat), float(noise)

    def second_descent(self) -> float | None:
        """The step size of a second descent along the update; None if there is none or no time to look for it."""
        indices = self._examples(self._evaluated)
        with suppress(OutOfTimeError):
            return descends_again(
                lambda steps: self._lines.changes(self.grown, steps, indices),
                self.slope()[0] / max(self.seen[max(self.seen)], 1e-30),
            )
        return None

    def _along_update(self, scale: float) -> Array:
        return self._lines.along(self.grown, scale, self._examples(self._evaluated))

    def _examples(self, count: int) -> Indices:
        return self._draws.indices(count, self._task.batches.length)


def _evaluated(task: Task, haste: float) -> int:
    """Evaluation examples, or groups, of one line of the pilot."""
    if task.batches.group > 1:
        return _FEWEST_EVALUATED
    return max(_FEWEST_EVALUATED, min(_EVALUATION_EXAMPLES, int(haste * _EVALUATION_EXAMPLES)))
