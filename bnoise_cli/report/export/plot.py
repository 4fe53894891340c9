"""`--plot`: the pictures in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bnoise_cli.errors import CallError
from bnoise_cli.report.export.export import Results, Written

#: Endings of a picture's file.
FORMATS = (".png", ".svg", ".pdf")


def require_plot_format(path: Path) -> None:
    """Check before the measurement that the format of the picture is known.

    Raises:
        CallError: the ending of the file is unknown.
    """
    if path.suffix.lower() not in FORMATS:
        raise CallError(f"--plot needs a file ending in {', '.join(FORMATS)}; found {path.name!r}.")


def _draw(results: Results, path: Path, _written: Sequence[Path]) -> str:
    from bnoise_cli.report.plots.draw import plot_results

    plot_results(results, path)
    return f"The picture is in {path}."


PLOT = Written(
    option="--plot",
    type=Path,
    metavar="FILE",
    help="Draw the pictures into a png, svg or pdf.",
    require=require_plot_format,
    what="picture",
    write=_draw,
)
