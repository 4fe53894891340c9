"""How every kind of result is told: sections, pictures, curves for trackers, words of its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from bnoise_cli.report.document import Drawing, Section
from bnoise_cli.report.plots.style import Panel
from bnoise_cli.results.result import Result

R = TypeVar("R", bound=Result)
#: Batch size → name → value; None: unknown.
Curves = Iterator[tuple[int, dict[str, float | None]]]


class Stage(Protocol):
    """The progress of a measurement."""

    @property
    def kind(self) -> str:
        """The kind of result that it will have."""


class Stretch(NamedTuple):
    """From where a measurement looks how far: `looks at one step alone` + ` after 100 steps of training`."""

    what: str
    start: str = ""
    #: At which learning rates, as `, each batch size at its best learning rate`.
    rates: str = ""

    def __str__(self) -> str:
        return "".join(self)

    def beside(self, other: Stretch) -> str:
        """In words, without what another one shares."""
        start = self.start if self.start != other.start else ""
        rates = self.rates if self.rates != other.rates else ""
        return f"{self.what}{start}{rates}"


@dataclass(frozen=True, kw_only=True)
class ReportKind(Generic[R]):
    """How one kind of result is told."""

    sections: Callable[[R], list[Section]]
    stretch: Callable[[R], Stretch]
    panels: tuple[Panel[R], ...]
    #: The measurements at each batch size, for an experiment tracker.
    curves: Callable[[R], Curves]
    #: The measurement without which there is no picture, as in "no … gave a measurable improvement".
    missing: str
    #: A chart in characters of a given width, to follow the section "Measured".
    chart: Callable[[R, int], Drawing | None] | None = None
    progress: Callable[[Any], str]


@cache
def report_kind(name: str) -> ReportKind[Any]:
    """How results of the kind of a name are told: `REPORT` in the module of that name in `report.words`."""
    found: ReportKind[Any] = import_module(f"bnoise_cli.report.words.{name}").REPORT
    return found
