"""A result in Python: the fields that its JSON has, as text, as a picture, in a notebook and in a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bnoise_cli.errors import RunError
from bnoise_cli.result_file import ResultFile, default_path
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions

    from bnoise_cli.report.terminal import Line

R = TypeVar("R", bound=Result)
#: Columns of a report that no terminal shows.
_WIDTH = 100
#: Height of the view in a notebook, in pixels; it scrolls.
_HEIGHT = 640


@dataclass(frozen=True, repr=False)
class Measured(Generic[R]):
    """A result and its views. The fields of the result are attributes: `measured.noise_scale.value`."""

    result: R
    #: What the result is of, as file names and titles have it.
    name: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("result", "name"):  # asked for while a copy is made
            raise AttributeError(name)
        return getattr(self.result, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.result)})

    def __repr__(self) -> str:
        found = self.result.critical_batch_size
        value = "unresolved" if found.value is None else f"{found.value:.4g} examples"
        high = "no upper limit" if found.high is None else f"{found.high:.4g}"
        return f"<bnoise {self.result.kind}: critical batch size {value}, {found.low:.4g} to {high}>"

    def __str__(self) -> str:
        return self.report()

    def report(self, *, width: int = _WIDTH) -> str:
        """What `bnoise report` prints, as text of this width."""
        from bnoise_cli.report.terminal import render

        return render(self._lines(width), width=width, color=False, encoding="utf-8")

    def plot(self, path: str | Path | None = None) -> Figure | Path:
        """The pictures: a figure, or the file (png, svg or pdf) that they were drawn into.

        Raises:
            CallError: the ending of the file is unknown.
            RunError: there is nothing to draw, or the file cannot be written.
        """
        from bnoise_cli.report.export.plot import PLOT
        from bnoise_cli.report.plots.draw import draw, plot_results

        named = [(self.name, self.result)]
        if path is None:
            return draw(named)
        PLOT.require(Path(path))
        plot_results(named, Path(path))
        return Path(path)

    def save(self, path: str | Path | None = None) -> str:
        """Store the result as JSON, by default where the command does; an earlier one there goes to the history.

        Returns:
            A sentence that says where the result is.

        Raises:
            CallError: the file is not a result of bnoise, or cannot be written.
            RunError: writing failed.
        """
        usual = default_path(Path(self.name), KINDS[self.result.kind].command)
        file = ResultFile(usual if path is None else Path(path))
        file.require()
        return file.store(self.result.to_json())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Line]:
        yield from self._lines(options.max_width)

    def _repr_html_(self) -> str:
        """The page of `--page` in a frame of its own, so that its styles and those of the notebook stay apart."""
        from bnoise_cli.report.export.page import html
        from bnoise_cli.report.plots.draw import svgs
        from bnoise_cli.report.sections import report_sections

        named = [(self.name, self.result)]
        try:
            drawn = svgs(named)
        except RunError:  # nothing to draw
            drawn = []
        page = html(f"bnoise: {self.name}", report_sections(named), drawn)
        style = f"width: 100%; height: {_HEIGHT}px; border: 0"
        return f'<iframe srcdoc="{escape(page)}" style="{style}" title="bnoise"></iframe>'

    def _lines(self, width: int) -> list[Line]:
        from bnoise_cli.report.sections import report_sections
        from bnoise_cli.report.terminal import layout

        return layout(report_sections([(self.name, self.result)]), width)
