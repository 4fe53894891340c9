"""Pictures of results. They use nothing but the stored results."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from html import escape
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from bnoise_cli.errors import BnoiseError, RunError
from bnoise_cli.report.kinds import report_kind
from bnoise_cli.report.plots.style import STYLE, Named, Panel
from bnoise_cli.results.result import Result
from bnoise_cli.spec.targets import is_target, target_name
from bnoise_cli.storage import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Width and height of a panel in inches, and panels in a row.
_PANEL, _PER_ROW = (4.6, 4.2), 3
#: A panel and the results that it shows.
Chosen = tuple[Panel[Any], list[tuple[str, Result]]]


def plot_results(results: Named[Result], path: Path) -> None:
    """Draw the measurement, the trade-off and the training speed into a file. Several results share the axes.

    Raises:
        RunError: nothing was measured, the numbers are too extreme for the axes, or the file cannot be written.
    """
    with _drawable():
        figure = draw(results)
        with _style():
            write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=150))


def svgs(results: Named[Result]) -> list[str]:
    """The panels of `plot_results` as SVG elements for an HTML page, one for each, with a text for screen readers.

    Raises:
        RunError: nothing was measured, or the numbers are too extreme for the axes.
    """
    return [_svg([panel]) for panel in _chosen(results)]


def _svg(panels: Sequence[Chosen]) -> str:
    file = io.StringIO()
    with _drawable():
        figure = _figure(panels)
        with _style():
            figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    name = "; ".join(axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left"))
    # ids of groups would clash with the ids of the next panel; nothing refers to them
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(name)}" ', 1)


def draw(results: Named[Result]) -> Figure:
    """The panels for which the results have something to show, in rows of at most three.

    Raises:
        RunError: nothing was measured.
    """
    figure = _figure(_chosen(results))
    if len(results) == 1:
        figure.suptitle(_title(results[0][1]), fontsize=10, x=0.01, ha="left")
    return figure


def _chosen(results: Named[Result]) -> list[Chosen]:
    chosen: dict[Panel[Any], list[tuple[str, Result]]] = {}
    for name, result in results:
        for panel in report_kind(result.kind).panels:
            if panel.shows(result):
                chosen.setdefault(panel, []).append((_label(name), result))
    if all(panel.derived for panel in chosen):
        raise RunError(f"there is nothing to draw: no {report_kind(results[0][1].kind).missing}.")
    return list(chosen.items())


def _figure(panels: Sequence[Chosen]) -> Figure:
    from matplotlib.figure import Figure

    rows = math.ceil(len(panels) / _PER_ROW)
    columns = math.ceil(len(panels) / rows)
    with _style():
        figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows), layout="constrained")
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for letter, axes, (panel, named) in zip(ascii_lowercase, places, panels, strict=False):
            front = f"({letter}) " if len(panels) > 1 else ""
            axes.set_title(f"{front}{panel.draw(axes, named)}", loc="left", fontsize=10)
            axes.grid(which="major", alpha=0.2, lw=0.6)
        for axes in places[len(panels) :]:
            axes.remove()
    return figure


def _title(result: Result) -> str:
    """What was measured, on which device and when."""
    targets = [result.config[key] for key in ("model", "dataset") if is_target(result.config.get(key))]
    names = [re.split(r"[.:]", str(target_name(target)))[-1] for target in targets]
    made = result.provenance
    return _label(", ".join([*names, made.device, made.time[:10]]))


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


@contextmanager
def _drawable() -> Iterator[None]:
    """Turn a failure of matplotlib into a RunError, so that it costs the picture and nothing else.

    A damaged file may hold numbers near the largest float; a matplotlibrc may ask for LaTeX where there is none.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # matplotlib warns if a long name does not fit
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
