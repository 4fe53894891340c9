"""The outputs of a call: the report, and the exports that its options ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from bnoise_cli.cli.options import OUTPUT
from bnoise_cli.errors import CallError, RunError
from bnoise_cli.launch import here
from bnoise_cli.report.export.as_json import JSON
from bnoise_cli.report.export.emit import EMIT
from bnoise_cli.report.export.export import Export, Printed, Results, Written
from bnoise_cli.report.export.page import PAGE
from bnoise_cli.report.export.plot import PLOT
from bnoise_cli.report.export.trackers import LOG_TO
from bnoise_cli.result_file import ResultFile
from bnoise_cli.results.kinds import COMMANDS
from bnoise_cli.results.result import Result
from bnoise_cli.storage import real, require_apart, require_writable

T = TypeVar("T")
#: Every export: an option of `bnoise probe`, `sweep` and `report`, in the order of the help and of the writing.
EXPORTS: tuple[Export[Any], ...] = (PLOT, PAGE, EMIT, LOG_TO, JSON)


class Outputs:
    """The exports that a call asks for."""

    def __init__(self, values: Mapping[Export[Any], Any]) -> None:
        """
        Args:
            values: the value of each option; None or False if it is not given.
        """
        self._values = {export: value for export, value in values.items() if value not in (None, False)}

    def value(self, export: Export[T]) -> T | None:
        """The value of an option; None if it is not given."""
        return self._values.get(export)

    @property
    def printed(self) -> bool:
        """Whether something is printed instead of the report."""
        return any(isinstance(export, Printed) for export in self._values)

    def require(
        self, result: ResultFile | None = None, *others: Path, inputs: Sequence[Path] = (), results: int = 1
    ) -> None:
        """Find out before measuring that all of it can be made.

        Args:
            result: the file of the result, if one is stored.
            others: files that are written besides.
            inputs: files that are read, which no output may replace.
            results: number of results to export.

        Raises:
            CallError: an unknown ending, a file that cannot be written, is named twice or is an input.
        """
        if here().is_follower:  # it makes none
            return
        printed = [export for export in self._values if isinstance(export, Printed)]
        if len(printed) > 1:
            named = " and ".join(export.option for export in printed)
            raise CallError(f"{named} both print on standard output; choose one.")
        if results > 1 and any(export.single for export in printed):
            raise CallError(
                f"{printed[0].option} takes one result; found {results} results. Name one of them."
            )
        for export, value in self._values.items():
            export.require(value)
        files = [*others, *(value for value in self._values.values() if isinstance(value, Path))]
        for path in files:
            require_writable(path)
        require_apart(files, inputs)
        if result is not None:
            result.require(inputs)
            files.append(result.path)
        if len({real(path) for path in files}) < len(files):
            raise CallError(f"every output needs a file of its own; found {', '.join(map(str, files))}.")

    def write(self, results: Results) -> tuple[list[str], list[str]]:
        """Make the files and log. A failure here is told and loses no result.

        Returns:
            A sentence on each that was made, and one on each that was not.
        """
        made: list[str] = []
        failed: list[str] = []
        written: list[Path] = []
        for export, value in self._values.items():
            if isinstance(export, Written):
                for part in [[each] for each in results] if export.apart else [results]:
                    try:
                        made.append(export.write(part, value, written))
                        written += [value] if isinstance(value, Path) else []
                    except RunError as error:
                        failed.append(f"No {export.what}: {error}")
        return made, failed

    def print(
        self, results: Results, *, beside: Results = (), quiet: bool = False, short: bool = False
    ) -> bool:
        """Print what the call asks for on standard output; at a terminal the verdict stands last once more.

        Args:
            beside: other stored results of the same task.
            quiet: of a report its first section alone, the verdict.
            short: of a report what is not marked as a detail.

        Returns:
            Whether the whole report has more than what was printed.

        Raises:
            NoAdviceError: there is nothing to emit.
        """
        from bnoise_cli.cli.streams import is_watched, show_content, show_sections, terminal_width
        from bnoise_cli.report.document import in_short
        from bnoise_cli.report.sections import report_sections

        for export, value in self._values.items():
            if isinstance(export, Printed):
                show_content(export.content(results, value))
                return False
        width = terminal_width() if is_watched() else None
        whole = report_sections(results, drawing_width=width, beside=beside)
        shown = in_short(whole) if short else whole
        again = whole[:1] if is_watched() and len(results) == 1 else []
        show_sections(whole[:1] if quiet else [*shown, *again])
        return shown != whole


def with_exports(
    command: Callable[..., None], further: Sequence[inspect.Parameter] = ()
) -> Callable[..., None]:
    """Give a command an option for each export instead of its parameter `outputs`.

    Args:
        further: parameters instead of the command's keywords of any name.
    """

    @wraps(command)
    def exporting(**options: Any) -> None:
        command(outputs=Outputs({each: options.pop(_parameter(each).name) for each in EXPORTS}), **options)

    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            parameters += [each.replace(kind=each.KEYWORD_ONLY) for each in further]
        else:
            parameters += map(_parameter, EXPORTS) if parameter.name == "outputs" else [parameter]
    vars(exporting)["__signature__"] = signature.replace(parameters=parameters)  # typer reads both
    exporting.__annotations__ = {each.name: each.annotation for each in parameters}
    return exporting


def _parameter(export: Export[Any]) -> inspect.Parameter:
    """An option as typer takes it from a function."""
    is_flag = export.type is bool
    option = typer.Option(
        export.option,
        metavar=None if is_flag else export.metavar,
        help=export.help,
        rich_help_panel=OUTPUT,
    )
    kind: Any = bool if is_flag else export.type | None
    return inspect.Parameter(
        export.option.removeprefix("--").replace("-", "_"),
        inspect.Parameter.KEYWORD_ONLY,
        default=False if is_flag else None,
        annotation=Annotated[kind, option],
    )


def result_name(path: Path) -> str:
    """A short name for what is stored in a file."""
    name = path.name.encode("utf-8", "replace").decode().removesuffix(".json")
    stem, _, command = name.rpartition(".")
    return stem if command in COMMANDS else name


def tell_unmet(results: Sequence[Result]) -> bool:
    """Say on stderr which of the user's own limits cannot be met; whether there are any."""
    from bnoise_cli.advice.limits import IMPOSSIBLE
    from bnoise_cli.cli.streams import tell

    unmet = [doubt for result in results for doubt in result.doubts if doubt.code in IMPOSSIBLE]
    for doubt in unmet:
        tell(f"bnoise: advice.{doubt.code}: {doubt.finding}. {doubt.remedy}")
    return bool(unmet)
