"""A progress line on standard error, where that is a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bnoise_cli.maths.intervals import relative_half_width
from bnoise_cli.measurement.outcome import Progress, SweepProgress, WarmupProgress
from bnoise_cli.numbers import count, percent, seconds, significant
from bnoise_cli.report.terminal import can_show, to_ascii

#: A terminal is written to at most so often, in seconds.
_INTERVAL = 0.1
#: Said before anything else can be.
LOADING = "loading torch, building the model and the dataset"


class ProgressLine:
    """Shows the running estimate; silent when asked to be, or when nobody watches."""

    def __init__(self, *, quiet: bool, precision: float) -> None:
        console = Console(stderr=True)
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._shown = not quiet and console.is_terminal and not console.is_dumb_terminal
        self._precision = precision
        self._encoding = console.encoding  # a live display puts itself in place of stderr
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
            self._last = time.monotonic()

    def __call__(self, progress: Progress | WarmupProgress | SweepProgress) -> None:
        """Show how far a measurement has come, unless something was shown a moment ago."""
        if self._shown and time.monotonic() - self._last >= _INTERVAL:
            self.say(self._words(progress))

    def _words(self, progress: Progress | WarmupProgress | SweepProgress) -> str:
        if isinstance(progress, SweepProgress):
            return _sweep_words(progress)
        if isinstance(progress, WarmupProgress):
            start = f" from {progress.start}" if progress.start is not None else ""
            return f"warm-up training{start}, step {progress.step} of {progress.of}"
        clock = f"{progress.seconds:.0f} s of at most {progress.budget_seconds:.0f} s"
        if progress.analysis is None:
            doing = (
                "looking for the range of batch sizes" if progress.phase == "pilot" else "first replicates"
            )
            return f"{doing}, {clock}"
        scale = progress.analysis.noise_scale
        if scale.value is None:
            running = f"noise scale at least {significant(scale.low)}"
        else:
            running = (
                f"noise scale {significant(scale.value)} ({significant(scale.low)} to {significant(scale.high)}, "
                f"±{percent(relative_half_width(scale))}, wanted ±{percent(self._precision)})"
            )
        return f"{running}, {progress.replicates} replicates, {clock}"


def _sweep_words(progress: SweepProgress) -> str:
    doing = {
        "warm-up": "training to the common start",
        "goal": "looking where the planned run arrives",
        "training": f"batch size {count(progress.batch_size or 0)}",
        "probe": "probing along the best run",
        "branch": f"branch of batch size {count(progress.batch_size or 0)}",
    }[progress.phase]
    step = f", step {count(progress.step)}" if progress.step else ""
    done = f"{progress.sizes_done} of about {progress.sizes_planned} batch sizes, {count(progress.runs)} runs"
    left = ""
    if progress.sizes_done:
        each = progress.seconds / progress.sizes_done
        left = f", about {seconds(each * (progress.sizes_planned - progress.sizes_done))} left"
    return f"{doing}{step}; {done}, {seconds(progress.seconds)}{left}"
