"""A progress line on standard error, if that is a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bnoise_cli import clock
from bnoise_cli.report.kinds import Stage, report_kind
from bnoise_cli.report.terminal import can_show, to_ascii

#: The shortest time between two updates of the line, in seconds.
_INTERVAL = 0.1
#: The first line, before torch is loaded.
LOADING = "loading torch, building the model and the dataset"


class ProgressLine:
    """Shows the running estimate; silent with --quiet, or if standard error is not a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._shown = not quiet and console.is_terminal and not console.is_dumb_terminal
        self._encoding = console.encoding  # read now: the live display replaces stderr
        self._last = 0.0

    def __enter__(self) -> ProgressLine:
        if self._shown:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._live.stop()

    def say(self, text: str) -> None:
        """Show a line now."""
        if self._shown:
            shown = text if can_show(text, self._encoding) else to_ascii(text)
            self._live.update(Text(shown, no_wrap=True, overflow="ellipsis"), refresh=True)
            self._last = clock.monotonic()

    def __call__(self, progress: Stage) -> None:
        """Show the progress of a measurement, unless the line was updated a moment ago."""
        if self._shown and clock.monotonic() - self._last >= _INTERVAL:
            self.say(report_kind(progress.kind).progress(progress))
