"""The sections of a report on one result or several."""

from __future__ import annotations

from collections.abc import Sequence

from bnoise_cli.records import ProbeResult, Result, SweepResult
from bnoise_cli.report.chart import improvement_chart
from bnoise_cli.report.document import Section
from bnoise_cli.report.words.compare import comparison_sections
from bnoise_cli.report.words.probe import probe_sections
from bnoise_cli.report.words.sweep import sweep_sections


def report_sections(
    results: Sequence[tuple[str, Result]], *, drawing_width: int | None = None
) -> list[Section]:
    """What to say about results that have names.

    Args:
        drawing_width: columns for a chart in characters; None for no chart.
    """
    if len(results) > 1:
        return comparison_sections(results)
    [(_, result)] = results
    if isinstance(result, SweepResult):
        return sweep_sections(result)
    assert isinstance(result, ProbeResult)
    sections = probe_sections(result)
    if drawing_width is not None and (chart := improvement_chart(result, drawing_width)):
        last = next(i for i, section in enumerate(sections) if section.title == "Measured")
        sections.insert(last + 1, Section(title="Chart", parts=[chart]))
    return sections
