"""`--plot`: the pictures in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bnoise_cli.report.export.export import Results, into_file

#: Endings of a picture's file.
FORMATS = (".png", ".svg", ".pdf")


def _draw(results: Results, path: Path, _written: Sequence[Path]) -> str:
    from bnoise_cli.report.plots.draw import plot_results

    plot_results(results, path)
    return f"The picture is in {path}."


PLOT = into_file(
    "--plot", FORMATS, help="Draw the pictures into a png, svg or pdf.", what="picture", write=_draw
)
