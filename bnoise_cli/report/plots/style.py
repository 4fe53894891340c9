"""Colours, markers, axes and legends of all pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bnoise_cli.numbers import count, tokens
from bnoise_cli.records import Estimate, Limits
from bnoise_cli.results.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
R = TypeVar("R", bound=Result)
R_contra = TypeVar("R_contra", bound=Result, contravariant=True)
#: Results to compare, each with its name.
Named = Sequence[tuple[str, R]]

# The palette of Okabe and Ito, which colour-blind people can tell apart. In print, markers and dashes differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS, DASHES = "os^Dv<>", ("-", "--", "-.", ":")
GREY, MARK = "#777777", "#D55E00"
#: Marker and colour of the recommended and the planned batch size, the same in all panels.
RECOMMENDED, PLANNED = ("*", "#CC79A7"), ("^", "#009E73")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.edgecolor": "none",
    "legend.fontsize": 8,
    # text stays text: it can be searched and copied
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel(Generic[R_contra]):
    """One picture of some results of a kind."""

    #: Draws into axes and returns the title.
    draw: Callable[[Axes, Named[R_contra]], str]
    #: Whether a result has something to draw here.
    shows: Callable[[R_contra], bool]
    #: Whether it shows conclusions. Such panels are drawn only beside panels that show measurements.
    derived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve(Generic[R]):
    """One of the results of a panel, and how it is drawn there."""

    name: str
    result: R
    #: Whether it is the only result. Then the legend names what is drawn; otherwise it names the result.
    alone: bool
    colour: str
    marker: str
    dashes: str

    def label(self, words: str | None) -> str | None:
        """What the legend says of the measured points (`words`), or of a line beside them."""
        return words if self.alone else self.name

    def beside(self, words: str) -> str | None:
        """What the legend says of something that is drawn beside the measured points."""
        return words if self.alone else None

    def draw_measured(
        self, axes: Axes, x: Any, values: Any, errors: Any, words: str, *, joined: bool = False, **style: Any
    ) -> None:
        """Draw measured values with error bars, in the form that matplotlib takes, under `words` in the legend."""
        fmt = self.marker + (self.dashes if joined else "")
        style = {"capsize": 3, "ms": 5, "label": self.label(words), **style}
        axes.errorbar(x, values, yerr=errors, fmt=fmt, color=self.colour, **style)

    def draw_scale(self, axes: Axes, scale: Estimate, words: str) -> None:
        """Draw a batch size as a vertical line, for a single result with its interval."""
        if scale.value is not None:
            colour = MARK if self.alone else self.colour
            axes.axvline(scale.value, color=colour, ls="--", lw=1.2, label=self.beside(words))
        if self.alone and scale.high is not None:
            axes.axvspan(scale.low, scale.high, color=MARK, alpha=0.12, lw=0)


def curves(results: Named[R]) -> Iterator[Curve[R]]:
    """The results of a panel, each with a colour, a marker and a line of its own."""
    for i, (name, result) in enumerate(results):
        yield Curve(
            name=name,
            result=result,
            alone=len(results) == 1,
            colour=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            dashes=DASHES[i % len(DASHES)],
        )


def finish(axes: Axes, results: Named[R], y: str, *, x: str | None = None) -> None:
    """Scales, labels, ticks and legend of a panel of `y` against `x`; None: the batch size, in tokens along the top."""
    axes.set(xscale="log", yscale="log", xlabel=x or "batch size B (examples)", ylabel=y)
    plain_ticks(axes)
    if x is None:
        tokens_above(axes, results)
    legend_below(axes)


def plain_ticks(axes: Axes, *, x: bool = True, y: bool = True) -> None:
    """Label an axis with plain numbers instead of powers of ten, as many as fit the range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for axis in [axis for axis, wanted in ((axes.xaxis, x), (axes.yaxis, y)) if wanted]:
        low, high = axis.get_view_interval()
        decades = np.log10(high / low)
        if decades < 0.1:  # A short range may hold no round number of a decade.
            axis.set_major_locator(MaxNLocator(5))
        else:
            subs: tuple[float, ...] = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
            if decades >= 0.5:
                subs = (1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
            axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=7))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())


def legend_below(axes: Axes) -> None:
    """The legend below the axes, so that it covers no data."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1.2, handlelength=1.6
        )


def draw_chosen_sizes(axes: Axes, result: Result) -> None:
    """Draw the planned and the recommended batch size as horizontal lines, on axes whose y is a batch size."""
    chosen = [("planned", result.plan.training.batch_size, PLANNED)]
    if result.recommendation is not None:
        chosen.append(("recommended", result.recommendation.batch_size, RECOMMENDED))
    for words, size, (_, colour) in chosen:
        dashes = "-." if words == "planned" else "--"
        axes.axhline(size, color=colour, ls=dashes, lw=1.2, label=f"{words}: B = {count(size)}")


def beside(values: Sequence[float], limits: Sequence[Limits | Estimate | None]) -> list[list[float]]:
    """Distances of the limits below and above each value, for error bars; 0 if there are no limits."""
    pairs = list(zip(values, limits, strict=True))
    below = [max(0.0, value - (found.low if found else value)) for value, found in pairs]
    above = [max(0.0, (found.high or value if found else value) - value) for value, found in pairs]
    return [below, above]


def tokens_above(axes: Axes, results: Named[R]) -> None:
    """Batch sizes in tokens along the top, if all results have the same number of tokens per example."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    factors = {result.amounts.tokens_per_example for _, result in results}
    factor = factors.pop() if len(factors) == 1 else None
    if factor is None:
        return
    in_tokens: Any = (lambda examples: examples * factor, lambda amount: amount / factor)
    above = axes.secondary_xaxis("top", functions=in_tokens)
    above.set_xlabel("tokens", fontsize=8)
    low, high = axes.get_xlim()
    subs = (1.0, 3.0) if np.log10(high / low) < 2 else (1.0,)
    above.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=5))
    above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tokens(value)))
    above.xaxis.set_minor_formatter(NullFormatter())
    above.tick_params(labelsize=8)
