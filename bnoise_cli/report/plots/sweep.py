"""Panels of a sweep: steps and best learning rates at every batch size, and branches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnoise_cli.maths.tradeoff import steps_ratio
from bnoise_cli.numbers import significant
from bnoise_cli.report.plots.style import (
    COLOURS,
    DASHES,
    MARK,
    MARKERS,
    Array,
    Named,
    Panel,
    beside,
    legend_below,
    plain_ticks,
    tokens_above,
)
from bnoise_cli.results.sweep import BatchOutcome, SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_steps(axes: Axes, results: Named[SweepResult]) -> str:
    """Draw steps against batch size: the measurement with the range of its seeds, the hyperbola and the prediction."""
    for i, (name, result) in enumerate(results):
        batches = arrived(result)
        alone, colour = len(results) == 1, COLOURS[i % len(COLOURS)]
        sizes = np.array([batch.batch_size for batch in batches], dtype=np.float64)
        steps = [batch.steps or 0.0 for batch in batches]  # every batch size here reached the goal
        axes.errorbar(
            sizes,
            steps,
            yerr=beside(steps, [batch.steps_limits for batch in batches]),
            fmt=MARKERS[i % len(MARKERS)],
            color=colour,
            capsize=3,
            ms=5,
            label="measured, range of the seeds" if alone else name,
        )
        critical, fewest = result.critical_batch_size, result.min_steps.value
        grid = np.geomspace(sizes[0] / 1.5, sizes[-1] * 1.5, 200)
        if critical.value is not None and fewest is not None:
            curve = fewest * (1 + critical.value / grid)
            axes.plot(
                grid,
                curve,
                DASHES[i % 4],
                color=colour,
                lw=1.4,
                label="S_min·(1 + B_crit/B)" if alone else None,
            )
            words = f"B_crit = {significant(critical.value)}"
            axes.axvline(
                critical.value,
                color=MARK if alone else colour,
                ls="--",
                lw=1.2,
                label=words if alone else None,
            )
            if alone and critical.high is not None:
                axes.axvspan(critical.low, critical.high, color=MARK, alpha=0.12, lw=0)
        if alone:
            _draw_predicted(axes, result, grid)
    axes.set(xscale="log", yscale="log", xlabel="batch size B (examples)")
    axes.set_ylabel("steps to the goal")
    plain_ticks(axes)
    tokens_above(axes, results)
    legend_below(axes)
    return "steps at the best learning rate"


def _draw_predicted(axes: Axes, result: SweepResult, grid: Array) -> None:
    known = [batch for batch in result.batches if batch.predicted is not None]
    if not known or result.predicted is None or result.predicted.critical_batch_size.value is None:
        return
    critical = result.predicted.critical_batch_size.value
    at = known[0]
    scale = (at.predicted or 0.0) / steps_ratio(at.batch_size, critical)
    axes.plot(
        grid, scale * (1 + critical / grid), ":", color=COLOURS[2], lw=1.6, label="predicted by the probe"
    )


def draw_rates(axes: Axes, results: Named[SweepResult]) -> str:
    """Draw the best learning rate against batch size."""
    for i, (name, result) in enumerate(results):
        batches = [batch for batch in arrived(result) if batch.learning_rate is not None]
        axes.plot(
            [batch.batch_size for batch in batches],
            [batch.learning_rate or 0.0 for batch in batches],
            MARKERS[i % len(MARKERS)] + DASHES[i % 4],
            color=COLOURS[i % len(COLOURS)],
            ms=5,
            label=name,
        )
    axes.set(xscale="log", yscale="log", xlabel="batch size B (examples)", ylabel="best learning rate")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, high / 4), max(high, 4 * low))  # one step of the search must not look like a cliff
    plain_ticks(axes)
    tokens_above(axes, results)
    if len(results) > 1:
        legend_below(axes)
    return "best learning rate"


def arrived(result: SweepResult) -> list[BatchOutcome]:
    """Batch sizes at which some learning rate reached the goal."""
    return [batch for batch in result.batches if batch.steps is not None]


STEPS = Panel(draw=draw_steps, shows=lambda result: bool(arrived(result)))
RATES = Panel(draw=draw_rates, shows=lambda result: bool(arrived(result)))
