"""Where results and messages go: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import typer

from bnoise_cli.errors import RunError
from bnoise_cli.report.document import Section
from bnoise_cli.report.terminal import can_show, layout, render, to_ascii

#: Width of output that no terminal shows.
_PLAIN_WIDTH = 100


def is_watched() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def terminal_width() -> int:
    """Columns of the terminal that shows stdout; a fixed number where none does."""
    return max(shutil.get_terminal_size().columns, 40) if is_watched() else _PLAIN_WIDTH


def show_sections(sections: Sequence[Section]) -> None:
    """Print a report to stdout as its terminal, pipe or file can show it."""
    if sys.stdout is None:
        return
    color = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
    width = terminal_width()
    _write(render(layout(sections, width), width=width, color=color, encoding=sys.stdout.encoding or "ascii"))


def show_json(data: Any) -> None:
    """Print a result and nothing else on stdout."""
    if sys.stdout is None:
        return
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    _write(json.dumps(data, indent=1, ensure_ascii=ascii_only) + "\n")


def show_text(text: str) -> None:
    """Print lines to paste, and nothing else, on stdout."""
    if sys.stdout is not None:
        _write(text if can_show(text, sys.stdout.encoding or "ascii") else to_ascii(text))


def _write(text: str) -> None:
    """Write to stdout; a reader who has gone is no failure.

    Raises:
        RunError: stdout cannot be written for another reason.
    """
    encoding = sys.stdout.encoding or "ascii"
    text = text.encode(encoding, "backslashreplace").decode(encoding)  # a name on disk may hold anything
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise RunError(f"standard output could not be written ({error.strerror or error}).") from error


def tell(text: str, *, quiet: bool = False) -> None:
    """A line on stderr; where that is gone or full, nobody is there to be told."""
    if not quiet:
        try:
            typer.echo(text, err=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
