"""What every export of results has: an option, a check before the measurement, and a writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from bnoise_cli.errors import CallError
from bnoise_cli.results.result import Result

T = TypeVar("T")
#: Results and their short names.
Results = Sequence[tuple[str, Result]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Export(Generic[T]):
    """A form of results besides the report, as an option of the commands. `T` is the type of the option's value."""

    #: As in "--log-to".
    option: str
    #: typer makes the option from it: a path, an enum whose members are the choices, or bool.
    type: type[T]
    #: What the help calls the value; None: its choices.
    metavar: str | None = None
    help: str
    #: Raises `CallError` before the measurement if there can be no export with this value.
    require: Callable[[T], None] = lambda _: None


@dataclass(frozen=True, kw_only=True, eq=False)
class Written(Export[T]):
    """An export into a file or a tracker, besides the report. A failure costs this export alone."""

    #: What was not made, in the message of a failure.
    what: str
    #: Takes the results, the value and the files that this call has written; returns a sentence on what was made.
    write: Callable[[Results, T, Sequence[Path]], str]
    #: Whether every result is exported by itself.
    apart: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Printed(Export[T]):
    """An export to standard output, instead of the report."""

    #: Whether it takes one result only.
    single: bool = False
    #: Takes the results and the value; returns a text, or data to print as JSON.
    content: Callable[[Results, T], Any]


def into_file(
    option: str,
    endings: Sequence[str],
    *,
    help: str,
    what: str,
    write: Callable[[Results, Path, Sequence[Path]], str],
) -> Written[Path]:
    """An export into one file, whose ending is checked before the measurement."""

    def require(path: Path) -> None:
        if path.suffix.lower() not in endings:
            raise CallError(f"{option} needs a file ending in {', '.join(endings)}; found {path.name!r}.")

    return Written(
        option=option, type=Path, metavar="FILE", help=help, require=require, what=what, write=write
    )
