"""The program: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from bnoise_cli import __version__
from bnoise_cli.cli.own_process import hand_over
from bnoise_cli.cli.streams import tell, tell_unforeseen
from bnoise_cli.cli.torchrun import join_ranks
from bnoise_cli.errors import BnoiseError, ExitCode, RunError, reason
from bnoise_cli.results.kinds import COMMANDS


class _PlainFlags:
    """A command whose help shows no type behind a flag; typer writes <bool>."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = " "
        return parameters


class _Command(_PlainFlags, TyperCommand):
    pass


class _Group(_PlainFlags, TyperGroup):
    pass


app = typer.Typer(
    name="bnoise",
    cls=_Group,
    help="Which batch size? Measures the critical batch size of your model on your data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


#: Packages that a light installation may lack, and those of them that a report takes.
_DEPENDENCIES = {"torch", "numpy", "scipy", "matplotlib"}
_LIGHT = ("numpy", "scipy", "matplotlib")


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command; inside it, SystemExit comes from user code, and would end the program with any exit code."""

    @wraps(command)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except BrokenPipeError as error:  # typer would take it for a reader of the help who has gone
            raise RunError(f"a pipe was closed while it was written to ({error}).") from error
        except SystemExit as end:
            raise RunError(
                f"the user's code ended the program (SystemExit: {end.code}). Look for sys.exit or argparse in the "
                "code that the config names."
            ) from end

    return guarded


# Each command is the function of its name in the module of its name; the kinds of result name those that measure.
for _name in (*COMMANDS, "check", "report", "init", "explain"):
    _module = importlib.import_module(f"bnoise_cli.cli.{_name}")
    app.command(
        cls=_Command,
        epilog=f"Example: bnoise {_name} {_module.EXAMPLE}",
        context_settings={"help_option_names": ["-h", "--help"]},
    )(_guarded(getattr(_module, _name)))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"bnoise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  its callback acts
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand in COMMANDS:  # all others ignore torchrun's variables
        hand_over()
        join_ranks()


def run() -> int:
    """Run the program; returns its exit code."""
    _leave_out_odd_widths()
    try:
        app()
    except SystemExit as end:
        # typer ends with 1, which means "check failed" here, if the reader of the help has gone.
        if isinstance(end.__context__, BrokenPipeError):
            return ExitCode.DONE
        code = end.code if isinstance(end.code, int) else ExitCode.RUN_FAILED if end.code else 0
        return ExitCode.RUN_FAILED if code == 1 and not isinstance(code, ExitCode) else code
    except BnoiseError as error:
        tell(f"bnoise: {error}")
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name not in _DEPENDENCIES:
            return _unforeseen(error)
        named = " ".join([error.name, *(name for name in _LIGHT if name != error.name and _is_missing(name))])
        tell(
            f"bnoise: this command needs what is not installed for {sys.executable}: {named}. "
            f"Install it: {sys.executable} -m pip install {named}"
        )
        return ExitCode.RUN_FAILED
    except KeyboardInterrupt:
        raise
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            return _unforeseen(error)
        tell(f"bnoise: standard output could not be written ({reason(error)}).")  # help, which typer prints
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  it would be flushed again at the end
        return ExitCode.RUN_FAILED
    except BaseException as error:  # a class of user code need not be derived from Exception
        return _unforeseen(error)
    return ExitCode.DONE


def _leave_out_odd_widths() -> None:
    """Widths that no terminal has stop typer, which reads them as numbers, or fill the memory with spaces."""
    for name in ("TERMINAL_WIDTH", "COLUMNS"):
        if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(name, "80"), re.ASCII):
            del os.environ[name]


def _is_missing(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is None
    except ValueError:  # a module that was put out of reach
        return True


def _unforeseen(error: BaseException) -> ExitCode:
    """Never exit code 1, which says that a check failed."""
    tell_unforeseen(error)
    return ExitCode.RUN_FAILED
