"""The program: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import traceback
from typing import Annotated

import typer

from bnoise_cli import __version__
from bnoise_cli.cli.check import check
from bnoise_cli.cli.explain import explain
from bnoise_cli.cli.init import init
from bnoise_cli.cli.probe import probe
from bnoise_cli.cli.report import report
from bnoise_cli.cli.streams import tell
from bnoise_cli.cli.sweep import sweep
from bnoise_cli.cli.torchrun import join_ranks
from bnoise_cli.errors import BnoiseError, ExitCode
from bnoise_cli.results.kinds import COMMANDS

app = typer.Typer(
    name="bnoise",
    help="Which batch size? Measures the gradient noise scale of your model on your data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(probe)
app.command()(sweep)
app.command()(check)
app.command()(report)
app.command()(init)
app.command()(explain)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"bnoise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  its callback acts
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand in COMMANDS:  # all others ignore torchrun's variables
        join_ranks()


def run() -> int:
    """Run the program; returns its exit code."""
    try:
        app()
    except SystemExit as end:
        # typer ends a broken pipe and an aborted prompt with 1, which means "check failed" here.
        code = end.code if isinstance(end.code, int) else 0
        return ExitCode.RUN_FAILED if code == 1 and not isinstance(code, ExitCode) else code
    except BnoiseError as error:
        tell(f"bnoise: {error}")
        return error.exit_code
    except Exception:
        tell(traceback.format_exc())
        tell("bnoise: this is a mistake in bnoise; please report it with the lines above.")
        return ExitCode.RUN_FAILED
    return ExitCode.DONE
