"""Pictures of results. They use nothing but the stored results."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from bnoise_cli.errors import BnoiseError, CallError, RunError
from bnoise_cli.report.kinds import REPORTS
from bnoise_cli.report.plots.style import STYLE, Named, Panel
from bnoise_cli.results.result import Result
from bnoise_cli.storage import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
_PANEL = (4.4, 3.8)  # inches


def require_plot_format(path: Path) -> None:
    """Check before the measurement that the format of the picture is known.

    Raises:
        CallError: the ending of the file is unknown.
    """
    if path.suffix.lower() not in FORMATS:
        raise CallError(f"--plot needs a file ending in {', '.join(FORMATS)}; found {path.name!r}.")


def plot_results(results: Named[Result], path: Path) -> None:
    """Draw the measurement, the trade-off and the training speed into a file. Several results share the axes.

    Raises:
        RunError: nothing was measured, the numbers are too extreme for the axes, or the file cannot be written.
    """
    with _drawable():
        figure = draw(results)
        write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=150))


def svg(results: Named[Result]) -> str:
    """The pictures of `plot_results` as an SVG element for an HTML page.

    Raises:
        RunError: nothing was measured, or the numbers are too extreme for the axes.
    """
    file = io.StringIO()
    with _drawable():
        draw(results).savefig(file, format="svg")
    text = file.getvalue()
    return text[text.index("<svg") :]


def draw(results: Named[Result]) -> Figure:
    """The panels for which the results have something to show, side by side.

    Raises:
        RunError: nothing was measured.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    chosen: dict[Panel[Any], list[tuple[str, Result]]] = {}
    for name, result in results:
        for panel in REPORTS[result.kind].panels:
            if panel.shows(result):
                chosen.setdefault(panel, []).append((_label(name), result))
    if all(panel.derived for panel in chosen):
        raise RunError(f"there is nothing to draw: no {REPORTS[results[0][1].kind].missing}.")
    shown = list(chosen.items())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_PANEL[0] * len(shown), _PANEL[1]), layout="constrained")
        places = np.atleast_1d(figure.subplots(1, len(shown)))
        for letter, axes, (panel, named) in zip(ascii_lowercase, places, shown, strict=False):
            axes.set_title(f"({letter}) {panel.draw(axes, named)}", loc="left", fontsize=10)
            axes.grid(which="major", alpha=0.2, lw=0.6)
    return figure


@contextmanager
def _drawable() -> Iterator[None]:
    """Whatever goes wrong in matplotlib costs the picture and nothing else.

    A damaged file may hold numbers near the largest float; a matplotlibrc may ask for LaTeX where there is none.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about long names, for which there is no room
            yield
    except (BnoiseError, MemoryError):
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise RunError(f"the picture cannot be drawn: {first}.") from error


def _label(name: str) -> str:
    """A name that matplotlib shows unchanged: it is not read as a formula, and not hidden from the legend."""
    escaped = name.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped
