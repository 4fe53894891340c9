"""Pictures of results, drawn from the results alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.maths.tradeoff import steps_ratio
from bnoise_cli.numbers import count, significant
from bnoise_cli.records import Point, ProbeResult, TradeoffRow
from bnoise_cli.report.probe_words import role_words
from bnoise_cli.storage import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
#: Results as they are compared: a name and what was found.
Named = Sequence[tuple[str, ProbeResult]]

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, which the colour-blind can tell apart; markers and dashes say the same in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS, _DASHES = "os^Dv<>", ("-", "--", "-.", ":")
_GREY, _MARK = "#777777", "#D55E00"
_ROLE_MARKERS = ("*", "D", "s", "^", "v")
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.edgecolor": "none",
}
_PANEL = (4.4, 3.8)  # inches


def require_plot_format(path: Path) -> None:
    """Find out before measuring that a picture can be drawn.

    Raises:
        CallError: unknown ending.
    """
    if path.suffix.lower() not in FORMATS:
        raise CallError(f"--plot needs a file ending in {', '.join(FORMATS)}; found {path.name!r}.")


def plot_results(results: Named, path: Path) -> None:
    """Draw the measurement, the trade-off and the training speed, several results over one another.

    Raises:
        RunError: nothing was measured, or the file cannot be written.
    """
    figure = draw(results)
    write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=150))


def svg(results: Named) -> str:
    """The same pictures as an SVG element to put into a page.

    Raises:
        RunError: nothing was measured.
    """
    file = io.StringIO()
    draw(results).savefig(file, format="svg")
    text = file.getvalue()
    return text[text.index("<svg") :]


def draw(results: Named) -> Figure:
    """The panels that the results have something for, side by side.

    Raises:
        RunError: nothing was measured.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not any(_measured(result) for _, result in results):
        raise RunError("there is nothing to draw: no batch size gave a measurable improvement.")
    panels = [_draw_improvement]
    if any(result.tradeoff for _, result in results):
        panels += [_draw_tradeoff, _draw_speed]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_PANEL[0] * len(panels), _PANEL[1]), layout="constrained")
        for letter, axes, panel in zip(
            "abc", np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=False
        ):
            axes.set_title(f"({letter}) {panel(axes, results)}", loc="left", fontsize=10)
            axes.grid(which="major", alpha=0.2, lw=0.6)
    return figure


def _draw_improvement(axes: Axes, results: Named) -> str:
    for i, (name, result) in enumerate(results):
        points = _measured(result)
        if not points:
            continue
        colour, alone = _COLOURS[i % len(_COLOURS)], len(results) == 1
        sizes = np.array([point.batch_size for point in points], dtype=np.float64)
        axes.errorbar(
            sizes,
            [point.improvement for point in points],
            yerr=[2 * point.std_error for point in points],
            fmt=_MARKERS[i % len(_MARKERS)],
            color=colour,
            capsize=3,
            ms=5,
            label="measured ± 2 standard errors" if alone else name,
        )
        noise, limit = result.noise_scale, result.max_improvement.value
        if noise.value is None or noise.high is None or limit is None:
            continue
        grid = np.geomspace(sizes[0] / 2, max(sizes[-1] * 2, 4 * noise.value), 200)
        law = limit / (1 + noise.value / grid)
        axes.plot(
            grid,
            law,
            _DASHES[i % 4],
            color=colour,
            lw=1.4,
            label="law ΔL_max/(1 + B_noise/B)" if alone else None,
        )
        low, high = _band(result, limit, grid)
        axes.fill_between(grid, low, high, color=colour, alpha=0.15, lw=0)
        words = (
            f"B_noise = {significant(noise.value)}, 95% {significant(noise.low)}–{significant(noise.high)}"
        )
        axes.axvline(
            noise.value, color=_MARK if alone else colour, ls="--", lw=1.2, label=words if alone else None
        )
        if alone:
            axes.axvspan(noise.low, noise.high, color=_MARK, alpha=0.12, lw=0)
    axes.set(xscale="log", yscale="log", xlabel="batch size B (examples)")
    axes.set_ylabel("ΔL_opt, loss improvement (nats)")
    _plain_ticks(axes)
    axes.legend(loc="lower right", fontsize=8)
    return "what one best step gains"


def _band(result: ProbeResult, limit: float, grid: Array) -> tuple[Array, Array]:
    """The law at both limits of B_noise.

    With the whole dataset's gradient ΔL_max is exact; otherwise ΔL_max/B_noise, the gain of small batches, is
    what is known far better than either.
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


def _draw_tradeoff(axes: Axes, results: Named) -> str:
    timed = all(row.relative_time is not None for _, result in results for row in result.tradeoff)
    for i, (name, result) in enumerate(results):
        rows = result.tradeoff
        if not rows:
            continue
        alone, colour = len(results) == 1, _COLOURS[i % len(_COLOURS)]
        x = [row.examples_ratio for row in rows]
        axes.plot(
            x, [_time(row, timed) for row in rows], "-", color=_GREY if alone else colour, lw=1, zorder=1
        )
        front = [row for row in rows if row.pareto or not timed]
        axes.plot(
            [row.examples_ratio for row in front],
            [_time(row, timed) for row in front],
            _MARKERS[i % len(_MARKERS)] + _DASHES[i % 4],
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
    _plain_ticks(axes)
    axes.legend(loc="upper right", fontsize=8)
    return "time against compute"


def _mark_choices(axes: Axes, result: ProbeResult, timed: bool) -> None:
    by_size = {row.batch_size: row for row in result.tradeoff}
    world = result.config["training"]["world_size"]
    marks = [
        (role_words(found.roles), found.batch_size)
        for found in (result.recommendation, *result.alternatives)
        if found is not None and found.world_size == world
    ]
    marks.append(("planned", result.config["training"]["batch_size"]))
    for j, (words, size) in enumerate(marks):
        if size not in by_size:
            continue
        row = by_size[size]
        axes.plot(
            row.examples_ratio,
            _time(row, timed),
            _ROLE_MARKERS[j % len(_ROLE_MARKERS)],
            color=_COLOURS[(j + 1) % len(_COLOURS)],
            ms=13 - 2 * j,
            mec="white",
            mew=0.8,
            ls="none",
            label=f"{words}: B = {count(size)}",
            zorder=3 + j,
        )


def _draw_speed(axes: Axes, results: Named) -> str:
    grid = np.geomspace(1 / 64, 64, 300)
    axes.plot(grid, grid / (1 + grid), color="black", lw=1.2, label="1/(1 + B_noise/B)")
    axes.axvline(1, color=_MARK, ls="--", lw=1.2, label="turning point: half the speed")
    axes.axvspan(grid[0], 1, color="#009E73", alpha=0.06, lw=0)
    axes.text(1 / 50, 0.35, "more examples:\nmore speed", fontsize=8, color="#006B4F")
    axes.text(50, 0.12, "more examples:\nhardly more speed", fontsize=8, ha="right", color="#A04000")
    for i, (name, result) in enumerate(results):
        scale, limit = result.noise_scale.value, result.max_improvement.value
        if scale is None or limit is None:
            continue
        inside = [p for p in _measured(result) if grid[0] <= (p.batch_size or 0) / scale <= grid[-1]]
        axes.errorbar(
            [(point.batch_size or 0) / scale for point in inside],
            [point.improvement / limit for point in inside],
            yerr=[2 * point.std_error / limit for point in inside],
            fmt=_MARKERS[i % len(_MARKERS)],
            color=_COLOURS[i % len(_COLOURS)],
            capsize=3,
            ms=5,
            label="measured ΔL_opt/ΔL_max" if len(results) == 1 else name,
        )
        if len(results) == 1:
            planned = result.config["training"]["batch_size"]
            if grid[0] <= planned / scale <= grid[-1]:
                speed = 1 / steps_ratio(planned, scale)
                axes.plot(
                    planned / scale,
                    speed,
                    "^",
                    color=_COLOURS[2],
                    ms=8,
                    mec="white",
                    label=f"planned: B = {count(planned)}",
                )
    axes.set(xscale="log", xlim=(grid[0], grid[-1]), ylim=(0, 1.6))
    axes.set_xlabel("B / B_noise")
    axes.set_ylabel("gain of one step / the greatest")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.legend(loc="upper left", fontsize=8)
    _plain_ticks(axes, y=False)
    return "training speed"


def _plain_ticks(axes: Axes, *, y: bool = True) -> None:
    """Plain numbers instead of powers of ten, as many as the range has room for."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis)[: 2 if y else 1]:
        low, high = axis.get_view_interval()
        decades = np.log10(high / low)
        subs = (1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
        axis.set_major_locator(LogLocator(base=10, subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())


def _time(row: TradeoffRow, timed: bool) -> float:
    return row.relative_time if timed and row.relative_time is not None else row.steps_ratio


def _measured(result: ProbeResult) -> list[Point]:
    return [point for point in result.points if point.batch_size is not None and point.improvement > 0]
