"""Pictures of results, drawn from the results alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

import numpy as np

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.records import SweepResult
from bnoise_cli.report.plots.probe import draw_improvement, draw_speed, measured_points
from bnoise_cli.report.plots.style import STYLE, Named
from bnoise_cli.report.plots.sweep import arrived, branched, draw_branches, draw_rates, draw_steps
from bnoise_cli.report.plots.tradeoff import draw_tradeoff
from bnoise_cli.report.plots.trajectory import draw_trajectory, probed_along
from bnoise_cli.storage import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
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
        RunError: nothing was measured, axes have no room for the numbers, or the file cannot be written.
    """
    with _drawable():
        figure = draw(results)
        write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=150))


def svg(results: Named) -> str:
    """The same pictures as an SVG element to put into a page.

    Raises:
        RunError: nothing was measured, or axes have no room for the numbers.
    """
    file = io.StringIO()
    with _drawable():
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

    results = [(_label(name), result) for name, result in results]
    probes = [(name, result) for name, result in results if measured_points(result)]
    sweeps = [(name, result) for name, result in results if arrived(result)]
    advised = [(name, result) for name, result in results if result.tradeoff]
    branches = [(name, result) for name, result in results if branched(result)]
    along = [(name, result) for name, result in results if probed_along(result)]
    shown = [
        *([(draw_improvement, probes)] if probes else []),
        *([(draw_steps, sweeps), (draw_rates, sweeps)] if sweeps else []),
        *([(draw_branches, branches)] if branches else []),
    ]
    if not shown and not along:
        what = (
            "run arrived"
            if isinstance(results[0][1], SweepResult)
            else "batch size gave a measurable improvement"
        )
        raise RunError(f"there is nothing to draw: no {what}.")
    shown += [(draw_tradeoff, advised)] if advised else []
    timed = [(name, result) for name, result in probes if result.tradeoff]
    shown += [(draw_speed, timed)] if timed else []
    shown += [(draw_trajectory, along)] if along else []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_PANEL[0] * len(shown), _PANEL[1]), layout="constrained")
        places = np.atleast_1d(figure.subplots(1, len(shown)))
        for letter, axes, (panel, chosen) in zip(ascii_lowercase, places, shown, strict=False):
            axes.set_title(f"({letter}) {panel(axes, chosen)}", loc="left", fontsize=10)
            axes.grid(which="major", alpha=0.2, lw=0.6)
    return figure


@contextmanager
def _drawable() -> Iterator[None]:
    """Numbers at the ends of what floats hold, as damage leaves them, cost the picture and nothing else."""
    try:
        yield
    except (ArithmeticError, ValueError) as error:
        raise RunError(f"the picture cannot be drawn: {error}.") from error


def _label(name: str) -> str:
    """A name as matplotlib shows it as it is: no formulas, and nothing that hides from the legend."""
    escaped = name.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped
