"""What a result is turned into besides the report: files, lines to paste, a tracker's run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.launch import here
from bnoise_cli.result_file import ResultFile
from bnoise_cli.results.kinds import COMMANDS
from bnoise_cli.results.result import Result
from bnoise_cli.storage import require_apart, require_writable


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What the call asks for."""

    plot: Path | None
    page: Path | None
    emit: str | None
    log_to: str | None
    json: bool

    def require(self, result: ResultFile | None = None, *others: Path, inputs: Sequence[Path] = ()) -> None:
        """Find out before measuring that all of it can be made.

        Args:
            result: the file of the result, if one is stored.
            others: files that are written besides.
            inputs: files that are read, which no output may replace.

        Raises:
            CallError: an unknown name or ending, a file that cannot be written, is named twice or is an input.
        """
        if here().is_follower:  # it makes none
            return
        if self.emit is not None:
            from bnoise_cli.report.export.emit import require_framework

            require_framework(self.emit)
            if self.json:
                raise CallError("--emit and --json both print on standard output; choose one.")
        if self.plot is not None:
            from bnoise_cli.report.plots.draw import require_plot_format

            require_plot_format(self.plot)
        if self.page is not None:
            from bnoise_cli.report.export.page import require_page_format

            require_page_format(self.page)
        files = [path for path in (*others, self.plot, self.page) if path is not None]
        for path in files:
            require_writable(path)
        require_apart(files, inputs)
        if result is not None:
            result.require(inputs)
            files.append(result.path)
        if len({path.resolve() for path in files}) < len(files):
            raise CallError(f"every output needs a file of its own; found {', '.join(map(str, files))}.")
        if self.log_to is not None:
            from bnoise_cli.report.export.trackers import require_tracker

            require_tracker(self.log_to)

    def write(self, results: Sequence[tuple[str, Result]]) -> tuple[list[str], list[str]]:
        """Make the files and log. A failure here is told and loses no result.

        Returns:
            A sentence on each that was made, and one on each that was not.
        """
        made: list[str] = []
        failed: list[str] = []

        def attempt(what: str, make: Callable[[], str]) -> None:
            try:
                made.append(make())
            except RunError as error:
                failed.append(f"No {what}: {error}")

        if self.plot is not None:
            attempt("picture", partial(_draw, results, self.plot))
        if self.page is not None:
            attempt("page", partial(_write_page, results, self.page, self.plot))
        if self.log_to is not None:
            for name, result in results:
                attempt("log", partial(_log, name, result, self.log_to))
        return made, failed

    def print(self, results: Sequence[tuple[str, Result]], *, quiet: bool = False) -> None:
        """Print what the call asks for on standard output; at a terminal the verdict stands last once more.

        Args:
            quiet: of a report its first section alone, the verdict.

        Raises:
            NoAdviceError: there is nothing to emit.
        """
        from bnoise_cli.cli.streams import is_watched, show_json, show_sections, show_text, terminal_width
        from bnoise_cli.report.export.emit import emit
        from bnoise_cli.report.sections import report_sections

        if self.emit is not None:
            for _, result in results:
                show_text(emit(result, self.emit))
        elif self.json:
            data = [result.to_json() for _, result in results]
            show_json(data[0] if len(data) == 1 else data)
        else:
            sections = report_sections(results, drawing_width=terminal_width() if is_watched() else None)
            again = sections[:1] if is_watched() and len(results) == 1 else []
            show_sections(sections[:1] if quiet else [*sections, *again])


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


def _draw(results: Sequence[tuple[str, Result]], path: Path) -> str:
    from bnoise_cli.report.plots.draw import plot_results

    plot_results(results, path)
    return f"The picture is in {path}."


def _write_page(results: Sequence[tuple[str, Result]], path: Path, picture: Path | None) -> str:
    from bnoise_cli.report.export.page import write_page

    write_page(results, path, picture if picture is not None and picture.exists() else None)
    return f"The page is in {path}."


def _log(name: str, result: Result, tracker: str) -> str:
    from bnoise_cli.report.export.trackers import log_result

    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        picture = Path(folder) / "bnoise.png"
        try:
            _draw([(name, result)], picture)
        except RunError:  # nothing to draw
            return log_result(result, tracker, {})
        return log_result(result, tracker, {"bnoise": picture})
