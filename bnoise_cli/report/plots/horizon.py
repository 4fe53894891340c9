"""The panel of a horizon: the critical batch size against the length of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnoise_cli.numbers import significant
from bnoise_cli.records import HorizonPoint
from bnoise_cli.report.plots.style import GREY, Named, Panel, beside, curves, draw_chosen_sizes, finish
from bnoise_cli.results.probe import ProbeResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_horizon(axes: Axes, results: Named[ProbeResult]) -> str:
    """B_crit against steps ahead with its interval; for one result also the losses, one step and the plan."""
    alone = len(results) == 1
    for curve in curves(results):
        points = known_points(curve.result)
        found = [point.critical_batch_size.value or 0.0 for point in points]
        curve.draw_measured(
            axes,
            [point.steps for point in points],
            found,
            beside(found, [point.critical_batch_size for point in points]),
            "B_crit of training, 95%",
            joined=True,
            elinewidth=0.8,
            lw=1.4,
            zorder=4,
        )
        if alone:
            _draw_one_step(axes, curve.result)
            draw_chosen_sizes(axes, curve.result)
            _write_losses(axes, points)
    axes.set(xscale="log", yscale="log")
    axes.margins(0.14)
    low, high = axes.get_ylim()
    for curve in curves(results):
        points = known_points(curve.result)
        axes.fill_between(
            [point.steps for point in points],
            [max(point.critical_batch_size.low, low / 10) for point in points],
            # Without an upper limit the band goes on beyond the axes.
            [point.critical_batch_size.high or high * 100 for point in points],
            color=curve.colour,
            alpha=0.15,
            lw=0,
        )
    axes.set_ylim(low, high)
    y = "batch size (examples)" if alone else "B_crit (examples)"
    finish(axes, results, y, x="steps ahead, of a large batch")
    return "critical batch size of the training ahead"


def known_points(result: ProbeResult) -> list[HorizonPoint]:
    """The points of the curve at which B_crit is known."""
    curve = result.horizon.curve if result.horizon is not None else ()
    return [point for point in curve if point.critical_batch_size.value is not None]


def _draw_one_step(axes: Axes, result: ProbeResult) -> None:
    noise = result.noise_scale
    if noise.value is None:
        return
    axes.errorbar(
        [1],
        [noise.value],
        yerr=[[noise.value - noise.low], [(noise.high or noise.value) - noise.value]],
        fmt="D",
        color=GREY,
        mfc="white",
        capsize=3,
        ms=6,
        label=f"one step: B_noise = {significant(noise.value)}",
        zorder=4,
    )


def _write_losses(axes: Axes, points: list[HorizonPoint]) -> None:
    for i, point in enumerate(points):
        axes.annotate(
            f"loss {significant(point.loss)}" if i == 0 else significant(point.loss),
            (point.steps, point.critical_batch_size.value or 0.0),
            xytext=(4, 7),
            textcoords="offset points",
            ha="left",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
            zorder=5,
        )


HORIZON = Panel(draw=draw_horizon, shows=lambda result: bool(known_points(result)))
