"""The panel of the trade-off: run time against compute."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, cycle
from typing import TYPE_CHECKING

import numpy as np

from bnoise_cli.numbers import count
from bnoise_cli.records import TradeoffRow
from bnoise_cli.report.plots.style import (
    COLOURS,
    GREY,
    PLANNED,
    RECOMMENDED,
    Named,
    Panel,
    curves,
    legend_below,
    plain_ticks,
)
from bnoise_cli.report.words.advice import role_words
from bnoise_cli.results.probe import ProbeResult
from bnoise_cli.results.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Markers and colours of alternatives to the recommendation.
_OTHERS = (("D", COLOURS[1]), ("s", COLOURS[5]), ("v", COLOURS[6]))


def draw_tradeoff(axes: Axes, results: Named[Result]) -> str:
    """Run time (without step times: steps) against examples, with the named batch sizes of a single result."""
    timed = all(row.relative_time is not None for _, result in results for row in result.tradeoff)
    for curve in curves(results):
        result, rows, alone = curve.result, curve.result.tradeoff, curve.alone
        x = [row.examples_ratio for row in rows]
        axes.plot(
            x, [_time(row, timed) for row in rows], "-", color=GREY if alone else curve.colour, lw=1, zorder=1
        )
        front = [row for row in rows if row.pareto or not timed]
        axes.plot(
            [row.examples_ratio for row in front],
            [_time(row, timed) for row in front],
            curve.marker + curve.dashes,
            color=curve.colour,
            ms=4,
            lw=1.6,
            label=curve.label("Pareto front"),
        )
        if alone:
            _mark_trained(axes, result, timed)
            _mark_choices(axes, result, timed)
            _write_sizes(axes, result, timed)
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("compute: examples / fewest")
    axes.set_ylabel("run time / fastest" if timed else "steps / fewest")
    axes.margins(0.08)
    plain_ticks(axes)
    legend_below(axes)
    return "time against compute" if timed else "steps against examples"


def trained(result: Result, timed: bool) -> Iterator[tuple[int, float, float]]:
    """Batch sizes that the horizon trained: size, examples over the fewest, and time over the fastest (or steps).

    The step time of a size without a row of its own is interpolated between the rows. A size beyond the rows has no
    time.
    """
    horizon = result.horizon if isinstance(result, ProbeResult) else None
    if horizon is None or not horizon.curve:
        return
    last, rows = horizon.curve[-1], result.tradeoff
    logs = np.log([row.batch_size for row in rows])
    # Relative time of one step: a run of the fewest steps counts as one step.
    times = np.log([_time(row, timed) / row.steps_ratio for row in rows])
    for batch in horizon.batches:
        size, steps = batch.batch_size, batch.steps / last.min_steps
        if timed and not rows[0].batch_size <= size <= rows[-1].batch_size:
            continue
        step_time = float(np.exp(np.interp(np.log(size), logs, times)))
        yield size, batch.steps * size / last.min_examples, steps * step_time


def _mark_trained(axes: Axes, result: Result, timed: bool) -> None:
    points = list(trained(result, timed))
    if points:
        _, x, y = zip(*points, strict=True)
        axes.plot(x, y, "o", color="black", mfc="none", ms=11, mew=1, ls="none", label="trained", zorder=2)


def _mark_choices(axes: Axes, result: Result, timed: bool) -> None:
    world, planned = result.plan.training.world_size, result.plan.training.batch_size
    marks: list[tuple[str, TradeoffRow, tuple[str, str]]] = []
    looks = chain([RECOMMENDED], cycle(_OTHERS))
    for look, found in zip(looks, (result.recommendation, *result.alternatives), strict=False):
        if found is not None:
            on = (
                ""
                if found.world_size == world
                else f" on {count(found.world_size)} of {count(world)} devices"
            )
            name = "recommended" if found is result.recommendation else role_words(found.roles)
            marks.append((name + on, found.row, look))
    marks += [("planned", row, PLANNED) for row in result.tradeoff if row.batch_size == planned]
    for j, (words, row, (marker, colour)) in enumerate(marks):
        hollow = words == "planned"
        axes.plot(
            row.examples_ratio,
            _time(row, timed),
            marker,
            color=colour,
            ms=13 if marker == "*" else 9,
            mfc="none" if hollow else colour,  # hollow, because it may lie on the marker of another point
            mec=colour if hollow else "white",
            mew=1.8 if hollow else 0.8,
            ls="none",
            label=f"{words}: B = {count(row.batch_size)}",
            zorder=3 + j,
        )


def _write_sizes(axes: Axes, result: Result, timed: bool) -> None:
    """The batch size at each point, above the curve on either side of its lowest point."""
    fastest = min(result.tradeoff, key=lambda row: _time(row, timed))
    for row in result.tradeoff:
        rises = row.batch_size > fastest.batch_size
        axes.annotate(
            count(row.batch_size),
            (row.examples_ratio, _time(row, timed)),
            xytext=(-3, 5) if rises else (4, 4),
            ha="center" if rises else "left",
            textcoords="offset points",
            fontsize=7,
            color=GREY,
        )


def _time(row: TradeoffRow, timed: bool) -> float:
    return row.relative_time if timed and row.relative_time is not None else row.steps_ratio


TRADEOFF = Panel(draw=draw_tradeoff, shows=lambda result: bool(result.tradeoff), derived=True)
