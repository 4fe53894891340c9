"""Where results and messages go: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

import typer

from bnoise_cli.errors import RunError, harmless, reason
from bnoise_cli.report.document import Section
from bnoise_cli.report.terminal import can_show, layout, render, to_ascii
from bnoise_cli.storage import absolute

#: Width of output that no terminal shows.
_PLAIN_WIDTH = 100


def is_watched() -> bool:
    """Whether stdout is a terminal."""
    stdout = _results()
    return stdout is not None and stdout.isatty()


def terminal_width() -> int:
    """Columns of the terminal that shows stdout; a fixed number if none does."""
    return max(shutil.get_terminal_size().columns, 40) if is_watched() else _PLAIN_WIDTH


#: Standard output, kept for results once user code runs. None: `sys.stdout` is.
_kept: TextIO | None = None


def _results() -> TextIO | None:
    """Where results are written; None if standard output is closed."""
    return _kept if _kept is not None else sys.stdout


@contextmanager
def around_user_code() -> Iterator[None]:
    """Keep standard output for the result, and the current folder for the paths of the call.

    User code prints to stderr, also if it or a child process writes to descriptor 1, or one of its threads writes
    later. A change of the current folder is undone.
    """
    _keep_stdout()
    folder = absolute(Path())
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with suppress(OSError):
            os.chdir(folder)


def _keep_stdout() -> None:
    """If descriptor 1 is the standard output, point it to stderr and keep a copy."""
    global _kept
    with suppress(OSError, ValueError, AttributeError):  # closed, or not a file
        if _kept is None and sys.stdout.fileno() == 1:
            sys.stdout.flush()
            copy = os.dup(1)
            os.dup2(2, 1)
            _kept = os.fdopen(copy, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
            sys.stdout = sys.stderr


def show_sections(sections: Sequence[Section]) -> None:
    """Print a report to stdout as its terminal, pipe or file can show it."""
    stdout = _results()
    if stdout is None:
        return
    color = stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
    width = terminal_width()
    _write(
        stdout, render(layout(sections, width), width=width, color=color, encoding=stdout.encoding or "ascii")
    )


def show_content(content: Any) -> None:
    """Print a text as it is, anything else as JSON."""
    if isinstance(content, str):
        show_text(content)
    else:
        show_json(content)


#: Control characters that JSON leaves as they are, and the beginning of a command of a CI runner.
_STEERING = re.compile(r"##(?=\w*\[)|[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def show_json(data: Any) -> None:
    """Print a result and nothing else on stdout."""
    stdout = _results()
    if stdout is not None:
        ascii_only = not (stdout.encoding or "").lower().startswith("utf")
        text = json.dumps(data, indent=1, ensure_ascii=ascii_only)
        _write(stdout, _STEERING.sub(_escaped, text) + "\n")


def _escaped(found: re.Match[str]) -> str:
    """As JSON escapes it: what steers a terminal, and what a CI runner takes for a command."""
    return "".join(f"\\u{ord(c):04x}" for c in found[0])


def show_text(text: str) -> None:
    """Print lines to paste, and nothing else, on stdout."""
    stdout = _results()
    if stdout is not None:
        _write(stdout, text if can_show(text, stdout.encoding or "ascii") else to_ascii(text))


def _write(stdout: TextIO, text: str) -> None:
    """Write to standard output. A reader that has gone is not a failure.

    Raises:
        RunError: it cannot be written for another reason.
    """
    encoding = stdout.encoding or "ascii"
    text = text.encode(encoding, "backslashreplace").decode(encoding)  # a name on disk may hold anything
    try:
        stdout.write(text)
        stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    except (OSError, ValueError) as error:  # ValueError: user code has closed it
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise RunError(f"standard output could not be written ({reason(error)}).") from error


def tell(text: str, *, quiet: bool = False) -> None:
    """Print a line to stderr. If stderr is closed or full, the line is dropped."""
    if not quiet:
        try:
            typer.echo("\n".join(map(harmless, text.splitlines())), err=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def tell_unforeseen(error: BaseException) -> None:
    """Print the traceback of what nobody foresaw."""
    tell("".join(traceback.format_exception(error)))
    tell("bnoise: this is a mistake in bnoise; please report it with the lines above.")
