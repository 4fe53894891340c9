"""Panels of a sweep: steps and best learning rates at every batch size, and branches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnoise_cli.numbers import significant
from bnoise_cli.records import BatchOutcome
from bnoise_cli.report.plots.style import COLOURS, Array, Named, Panel, beside, curves, finish
from bnoise_cli.results.sweep import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_steps(axes: Axes, results: Named[SweepResult]) -> str:
    """Draw steps against batch size: the measurement with the range of its seeds, the law and the prediction."""
    for curve in curves(results):
        batches, result = arrived(curve.result), curve.result
        sizes = np.array([batch.batch_size for batch in batches], dtype=np.float64)
        steps = [batch.steps or 0.0 for batch in batches]  # every batch size here reached the goal
        limits = beside(steps, [batch.steps_limits for batch in batches])
        curve.draw_measured(axes, sizes, steps, limits, "measured, range of the seeds")
        critical, fewest = result.critical_batch_size, result.min_steps.value
        grid = np.geomspace(sizes[0] / 1.5, sizes[-1] * 1.5, 200)
        if critical.value is not None and fewest is not None:
            law = critical.law(critical.value)
            steps, label = [fewest * law.steps(size) for size in grid], curve.beside("law")
            axes.plot(grid, steps, curve.dashes, color=curve.colour, lw=1.4, label=label)
            curve.draw_scale(axes, critical, f"B_crit = {significant(critical.value)}")
        if curve.alone:
            _draw_predicted(axes, result, grid)
    finish(axes, results, "steps to the goal")
    return "steps at the best learning rate"


def _draw_predicted(axes: Axes, result: SweepResult, grid: Array) -> None:
    known = [batch for batch in result.batches if batch.predicted is not None]
    if not known or result.predicted is None or result.predicted.critical_batch_size.value is None:
        return
    law, at = result.predicted.critical_batch_size.known, known[0]
    assert law is not None
    steps = [(at.predicted or 0.0) * law.steps(size) / law.steps(at.batch_size) for size in grid]
    axes.plot(grid, steps, ":", color=COLOURS[2], lw=1.6, label="predicted by the probe")


def draw_rates(axes: Axes, results: Named[SweepResult]) -> str:
    """Draw the best learning rate against batch size."""
    for curve in curves(results):
        batches = [batch for batch in arrived(curve.result) if batch.learning_rate is not None]
        axes.plot(
            [batch.batch_size for batch in batches],
            [batch.learning_rate or 0.0 for batch in batches],
            curve.marker + curve.dashes,
            color=curve.colour,
            ms=5,
            label=curve.label(None),
        )
    axes.set(yscale="log")
    low, high = axes.get_ylim()
    # A wide range, so that one step of the search does not look like a cliff.
    axes.set_ylim(min(low, high / 4), max(high, 4 * low))
    finish(axes, results, "best learning rate")
    return "best learning rate"


def arrived(result: SweepResult) -> list[BatchOutcome]:
    """Batch sizes at which some learning rate reached the goal."""
    return [batch for batch in result.batches if batch.steps is not None]


STEPS = Panel(draw=draw_steps, shows=lambda result: bool(arrived(result)))
RATES = Panel(draw=draw_rates, shows=lambda result: bool(arrived(result)))
