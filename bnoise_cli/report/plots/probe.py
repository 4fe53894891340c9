"""Panels of a probe: the gain of one best step, and the training speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnoise_cli.numbers import count, significant
from bnoise_cli.records import Point
from bnoise_cli.report.plots.style import (
    MARK,
    PLANNED,
    Array,
    Named,
    Panel,
    curves,
    finish,
    legend_below,
    plain_ticks,
)
from bnoise_cli.results.probe import ProbeResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_improvement(axes: Axes, results: Named[ProbeResult]) -> str:
    """The gain of the best step against batch size: measured, and the law with its interval."""
    for curve in curves(results):
        points, result = measured_points(curve.result), curve.result
        sizes = np.array([point.batch_size for point in points], dtype=np.float64)
        gains, errors = [point.improvement for point in points], [2 * point.std_error for point in points]
        curve.draw_measured(axes, sizes, gains, errors, "measured ± 2 standard errors")
        noise, limit = result.noise_scale, result.max_improvement.value
        if noise.value is None or noise.high is None or limit is None:
            continue
        grid = np.geomspace(sizes[0] / 2, max(sizes[-1] * 2, 4 * noise.value), 200)
        law, label = limit / (1 + noise.value / grid), curve.beside("law ΔL_max/(1 + B_noise/B)")
        axes.plot(grid, law, curve.dashes, color=curve.colour, lw=1.4, label=label)
        axes.fill_between(grid, *_band(result, limit, grid), color=curve.colour, alpha=0.15, lw=0)
        interval = f"95% {significant(noise.low)}–{significant(noise.high)}"
        curve.draw_scale(axes, noise, f"B_noise = {significant(noise.value)}, {interval}")
    finish(axes, results, "ΔL_opt, loss improvement (nats)")
    return "what one best step gains"


def _band(result: ProbeResult, limit: float, grid: Array) -> tuple[Array, Array]:
    """The law at both limits of B_noise.

    If the gradient of the whole dataset was measured, ΔL_max is exact. Otherwise the ratio ΔL_max/B_noise, which is
    the gain of small batches, is known far better than either of the two.
    """
    noise = result.noise_scale
    assert noise.value is not None
    assert noise.high is not None
    exact = any(point.batch_size is None for point in result.points)
    curves = [
        (limit if exact else limit * scale / noise.value) / (1 + scale / grid)
        for scale in (noise.low, noise.high)
    ]
    return np.minimum(*curves), np.maximum(*curves)


def draw_speed(axes: Axes, results: Named[ProbeResult]) -> str:
    """The gain of a step over the greatest possible one, against B/B_noise."""
    grid = np.geomspace(1 / 64, 64, 300)
    axes.plot(grid, grid / (1 + grid), color="black", lw=1.2, label="1/(1 + B_noise/B)")
    axes.axvline(1, color=MARK, ls="--", lw=1.2, label="turning point: half the speed")
    axes.axvspan(grid[0], 1, color="#009E73", alpha=0.06, lw=0)
    axes.text(1 / 50, 0.35, "more examples:\nmore speed", fontsize=8, color="#006B4F")
    axes.text(50, 0.12, "more examples:\nhardly more speed", fontsize=8, ha="right", color="#A04000")
    for curve in curves(results):
        result = curve.result
        scale, limit = result.noise_scale.value, result.max_improvement.value
        if scale is None or limit is None:
            continue
        inside = [p for p in measured_points(result) if grid[0] <= (p.batch_size or 0) / scale <= grid[-1]]
        if not inside:
            continue
        curve.draw_measured(
            axes,
            [(point.batch_size or 0) / scale for point in inside],
            [point.improvement / limit for point in inside],
            [2 * point.std_error / limit for point in inside],
            "measured ΔL_opt/ΔL_max",
        )
        if curve.alone:
            planned = result.plan.training.batch_size
            if grid[0] <= planned / scale <= grid[-1]:
                speed = 1 / (1 + scale / planned)
                axes.plot(
                    planned / scale,
                    speed,
                    PLANNED[0],
                    color=PLANNED[1],
                    ms=8,
                    mec="white",
                    label=f"planned: B = {count(planned)}",
                )
    axes.set(xscale="log", xlim=(grid[0], grid[-1]), ylim=(0, 1.05))
    axes.set_xlabel("B / B_noise")
    axes.set_ylabel("gain of one step / the greatest")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    legend_below(axes)
    plain_ticks(axes, y=False)
    return "training speed"


def measured_points(result: ProbeResult) -> list[Point]:
    """The measured points whose improvement is positive."""
    return [point for point in result.points if point.batch_size is not None and point.improvement > 0]


IMPROVEMENT = Panel(draw=draw_improvement, shows=lambda result: bool(measured_points(result)))
SPEED = Panel(
    draw=draw_speed,
    # with a horizon, the law is not that of one step
    shows=lambda result: bool(measured_points(result) and result.tradeoff and result.horizon is None),
    derived=True,
)
