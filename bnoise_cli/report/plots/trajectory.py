"""The panel of several probed points: noise scales along training, and the batch sizes that they suggest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnoise_cli.numbers import significant
from bnoise_cli.records import TrajectoryPoint
from bnoise_cli.report.plots.style import (
    COLOURS,
    GREY,
    MARK,
    Curve,
    Named,
    Panel,
    beside,
    curves,
    legend_below,
    plain_ticks,
)
from bnoise_cli.results.probe import ProbeResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Length of the arrow of an open interval, as a factor of its lower limit.
_ARROW = 0.6


def draw_trajectory(axes: Axes, results: Named[ProbeResult]) -> str:
    """Draw noise scale against step; for one result also simple noise scale, schedule, B_crit and loss."""
    alone = len(results) == 1
    for curve in curves(results):
        points = probed_along(curve.result)
        known = [point for point in points if point.noise_scale.high is not None]
        scales, steps = [point.noise_scale.value or 0.0 for point in known], [point.step for point in known]
        limits = beside(scales, [point.noise_scale for point in known])
        curve.draw_measured(axes, steps, scales, limits, "B_noise, 95% interval", joined=not alone, zorder=4)
        _draw_open(axes, curve, [point for point in points if point.noise_scale.high is None])
        if alone:
            _draw_suggested(axes, curve.result)
            _draw_loss(axes, points)
    axes.set(
        yscale="log",
        xlabel="training step",
        ylabel="batch size (examples)" if alone else "B_noise (examples)",
    )
    plain_ticks(axes, x=False)
    legend_below(axes)
    return "along training"


def probed_along(result: ProbeResult) -> list[TrajectoryPoint]:
    """The points of training of which the probe knows at least a lower limit."""
    return [point for point in result.trajectory if point.noise_scale.low > 0]


def _draw_open(axes: Axes, curve: Curve[ProbeResult], points: Sequence[TrajectoryPoint]) -> None:
    """Draw lower limits with an arrow, for intervals without an upper limit."""
    if not points:
        return
    lows = [point.noise_scale.low for point in points]
    axes.errorbar(
        [point.step for point in points],
        lows,
        yerr=[_ARROW * low for low in lows],
        lolims=True,
        fmt=curve.marker,
        color=curve.colour,
        mfc="white",
        capsize=3,
        ms=5,
        zorder=4,
        label=curve.beside("B_noise at least"),
    )


def _draw_suggested(axes: Axes, result: ProbeResult) -> None:
    simple = [point for point in result.trajectory if point.simple_noise_scale.value is not None]
    scales = [point.simple_noise_scale.value or 0.0 for point in simple]
    axes.errorbar(
        [point.step for point in simple],
        scales,
        yerr=beside(scales, [point.simple_noise_scale for point in simple]),
        fmt="D",
        color=COLOURS[4],
        mfc="white",
        capsize=2,
        ms=4,
        lw=0.8,
        label="tr(Σ)/|G|²",
    )
    critical = result.critical_batch_size
    if critical.value is not None and critical.basis == "trajectory":
        words = f"B_crit = {significant(critical.value)}"
        axes.axhline(critical.value, color=MARK, ls="--", lw=1.2, label=words)
    batches = [(point.step, point.batch_size) for point in result.trajectory if point.batch_size is not None]
    if result.schedule is not None and batches:
        axes.plot(*zip(*batches, strict=True), "-", color=COLOURS[2], lw=1.6, label="adaptive batch")


def _draw_loss(axes: Axes, points: Sequence[TrajectoryPoint]) -> None:
    known = [(point.step, point.loss) for point in points if point.loss is not None]
    if not known:
        return
    right = axes.twinx()
    right.plot(*zip(*known, strict=True), ":", color=GREY, lw=1.2)
    right.set_ylabel("loss (dotted)", color=GREY)
    right.tick_params(axis="y", colors=GREY)
    right.spines["right"].set_visible(True)
    right.spines["right"].set_color(GREY)


TRAJECTORY = Panel(draw=draw_trajectory, shows=lambda result: bool(probed_along(result)))
