"""Where results and messages go: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from bnoise_cli.errors import BnoiseError
from bnoise_cli.report.terminal import render
from bnoise_cli.storage import write_json

#: Width of output that no terminal shows.
_PLAIN_WIDTH = 100


def show(lines: Iterable[Text | Table]) -> None:
    """Print to stdout what its terminal, pipe or file can show."""
    watched = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PLAIN_WIDTH
    color = watched and not os.environ.get("NO_COLOR")
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(render(lines, width=max(width, 40), color=color, encoding=encoding))
    sys.stdout.flush()


def show_json(data: dict[str, Any]) -> None:
    """Print a result and nothing else on stdout."""
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(data, indent=1, ensure_ascii=ascii_only) + "\n")
    sys.stdout.flush()


def tell(text: str, *, quiet: bool = False) -> None:
    """A line on stderr."""
    if not quiet:
        typer.echo(text, err=True)


def store(path: Path, data: dict[str, Any], *, printed: bool) -> BnoiseError | None:
    """Keep a result; where the disk refuses, print it rather than lose it, and return the error."""
    try:
        write_json(path, data)
    except BnoiseError as error:
        if not printed:
            show_json(data)
        return error
    return None
