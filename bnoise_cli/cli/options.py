"""The options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from bnoise_cli.errors import CallError
from bnoise_cli.spec.schema import Seconds

#: Headings of groups of options in the help.
MEASURING, OUTPUT = "Measuring", "Output"


def seconds(text: str) -> str:
    """The text of a time, as the config takes it.

    Raises:
        CallError: it is not a time; the message names --budget and not the key that it sets.
    """
    try:
        TypeAdapter(Seconds).validate_python(text)
    except ValidationError:
        raise CallError(
            f"--budget needs a time of at least 1s, as in 60s, 30m or 8h; found {text!r}."
        ) from None
    return text


ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML config.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a value of the config; repeatable."),
]
DeviceOption = Annotated[
    str, typer.Option(metavar="auto|cpu|cuda|cuda:N", help="Where to measure.", rich_help_panel=MEASURING)
]
SeedOption = Annotated[
    int | None, typer.Option(metavar="N", help="Seed of all draws.", rich_help_panel=MEASURING)
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Build everything, run one batch, print the plan.",
        rich_help_panel=MEASURING,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Where the result goes. \\[default: .bnoise/NAME.COMMAND.json]",
        rich_help_panel=OUTPUT,
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print the verdict alone; no progress.",
        rich_help_panel=OUTPUT,
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Print the whole report, as `bnoise report` does.",
        rich_help_panel=OUTPUT,
    ),
]
