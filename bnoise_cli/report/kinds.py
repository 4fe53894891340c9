"""How every kind of result is told: sections, pictures, curves for trackers, words of its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from bnoise_cli.report.chart import improvement_chart
from bnoise_cli.report.document import Drawing, Section
from bnoise_cli.report.plots.branch import BRANCHES
from bnoise_cli.report.plots.horizon import HORIZON
from bnoise_cli.report.plots.probe import IMPROVEMENT, SPEED
from bnoise_cli.report.plots.style import Panel
from bnoise_cli.report.plots.sweep import RATES, STEPS
from bnoise_cli.report.plots.tradeoff import TRADEOFF
from bnoise_cli.report.plots.trajectory import TRAJECTORY
from bnoise_cli.report.words.branch import branch_sections
from bnoise_cli.report.words.probe import probe_progress, probe_sections
from bnoise_cli.report.words.sweep import sweep_progress, sweep_sections
from bnoise_cli.results.branch import BranchResult
from bnoise_cli.results.probe import ProbeResult
from bnoise_cli.results.result import Result
from bnoise_cli.results.sweep import SweepResult

R = TypeVar("R", bound=Result)
#: Batch size → name → value; None: unknown.
Curves = Iterator[tuple[int, dict[str, float | None]]]


class Stage(Protocol):
    """What a measurement in progress tells."""

    @property
    def kind(self) -> str:
        """The kind of result that it will have."""


@dataclass(frozen=True, kw_only=True)
class ReportKind(Generic[R]):
    """How one kind of result is told."""

    sections: Callable[[R], list[Section]]
    panels: tuple[Panel[R], ...]
    #: What was measured at each batch size, for an experiment tracker.
    curves: Callable[[R], Curves]
    #: What a picture would need and a result without pictures lacks.
    missing: str
    #: A chart in characters of a given width, to follow the section "Measured".
    chart: Callable[[R, int], Drawing | None] | None = None
    progress: Callable[[Any], str]


def _probe_curves(result: ProbeResult) -> Curves:
    for point in result.points:
        if point.batch_size is not None:
            names = ("improvement", "std_error", "fitted")
            yield point.batch_size, {f"points/{name}": getattr(point, name) for name in names}


def _sweep_curves(result: SweepResult) -> Curves:
    for batch in result.batches:
        names = ("steps", "examples", "fitted", "predicted", "learning_rate")
        yield batch.batch_size, {f"batches/{name}": getattr(batch, name) for name in names}


def _branch_curves(result: BranchResult) -> Curves:
    for batch in result.batches:
        names = ("steps", "examples", "learning_rate", "loss")
        yield batch.batch_size, {f"batches/{name}": getattr(batch, name) for name in names}


REPORTS: dict[str, ReportKind[Any]] = {
    "probe": ReportKind[ProbeResult](
        sections=probe_sections,
        chart=improvement_chart,
        panels=(HORIZON, TRADEOFF, IMPROVEMENT, SPEED, TRAJECTORY),
        curves=_probe_curves,
        missing="batch size gave a measurable improvement",
        progress=probe_progress,
    ),
    "sweep": ReportKind[SweepResult](
        sections=sweep_sections,
        panels=(STEPS, RATES, TRADEOFF),
        curves=_sweep_curves,
        missing="run arrived",
        progress=sweep_progress,
    ),
    "branch": ReportKind[BranchResult](
        sections=branch_sections,
        panels=(BRANCHES,),
        curves=_branch_curves,
        missing="run arrived",
        progress=sweep_progress,
    ),
}
