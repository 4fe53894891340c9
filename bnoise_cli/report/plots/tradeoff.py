"""The panel of the trade-off: run time against compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnoise_cli.numbers import count
from bnoise_cli.records import TradeoffRow
from bnoise_cli.report.plots.style import (
    COLOURS,
    DASHES,
    GREY,
    MARKERS,
    ROLE_MARKERS,
    Named,
    Panel,
    plain_ticks,
)
from bnoise_cli.report.words.advice import role_words
from bnoise_cli.results.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_tradeoff(axes: Axes, results: Named[Result]) -> str:
    """Run time (without step times: steps) against examples, with the named batch sizes of a single result."""
    timed = all(row.relative_time is not None for _, result in results for row in result.tradeoff)
    for i, (name, result) in enumerate(results):
        rows = result.tradeoff
        alone, colour = len(results) == 1, COLOURS[i % len(COLOURS)]
        x = [row.examples_ratio for row in rows]
        axes.plot(
            x, [_time(row, timed) for row in rows], "-", color=GREY if alone else colour, lw=1, zorder=1
        )
        front = [row for row in rows if row.pareto or not timed]
        axes.plot(
            [row.examples_ratio for row in front],
            [_time(row, timed) for row in front],
            MARKERS[i % len(MARKERS)] + DASHES[i % 4],
            color=colour,
            ms=4,
            lw=1.6,
            label="Pareto front" if alone else name,
        )
        if alone:
            _mark_choices(axes, result, timed)
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("compute: examples / fewest")
    axes.set_ylabel("run time / fastest" if timed else "steps / fewest")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.45)  # room for the legend
    plain_ticks(axes)
    axes.legend(loc="upper right", fontsize=8)
    return "time against compute"


def _mark_choices(axes: Axes, result: Result, timed: bool) -> None:
    world, planned = result.plan.training.world_size, result.plan.training.batch_size
    marks: list[tuple[str, TradeoffRow]] = []
    for found in (result.recommendation, *result.alternatives):
        if found is not None:
            on = (
                ""
                if found.world_size == world
                else f" on {count(found.world_size)} of {count(world)} devices"
            )
            marks.append((role_words(found.roles) + on, found.row))
    marks += [("planned", row) for row in result.tradeoff if row.batch_size == planned]
    for j, (words, row) in enumerate(marks):
        colour, hollow = COLOURS[(j + 1) % len(COLOURS)], words == "planned"
        axes.plot(
            row.examples_ratio,
            _time(row, timed),
            ROLE_MARKERS[j % len(ROLE_MARKERS)],
            color=colour,
            ms=13 - 2 * j,
            mfc="none" if hollow else colour,  # hollow, because it may lie on the marker of another point
            mec=colour if hollow else "white",
            mew=1.8 if hollow else 0.8,
            ls="none",
            label=f"{words}: B = {count(row.batch_size)}",
            zorder=3 + j,
        )


def _time(row: TradeoffRow, timed: bool) -> float:
    return row.relative_time if timed and row.relative_time is not None else row.steps_ratio


TRADEOFF = Panel(draw=draw_tradeoff, shows=lambda result: bool(result.tradeoff), derived=True)
