"""The sections of a report on one result or several."""

from __future__ import annotations

from collections.abc import Sequence

from bnoise_cli.report.document import Section
from bnoise_cli.report.kinds import report_kind
from bnoise_cli.report.words.compare import comparison_sections
from bnoise_cli.report.words.related import beside_section
from bnoise_cli.results.result import Result


def report_sections(
    results: Sequence[tuple[str, Result]],
    *,
    drawing_width: int | None = None,
    beside: Sequence[tuple[str, Result]] = (),
) -> list[Section]:
    """What to say about results that have names.

    Args:
        drawing_width: columns for a chart in characters; None for no chart.
        beside: other stored results of the same task as a single result.
    """
    if len(results) > 1:
        return comparison_sections(results)
    [(_, result)] = results
    kind = report_kind(result.kind)
    sections = kind.sections(result)
    if drawing_width is not None and kind.chart is not None and (chart := kind.chart(result, drawing_width)):
        last = next(i for i, section in enumerate(sections) if section.title in ("Measured", "One step"))
        sections.insert(last + 1, Section(title="Chart", parts=[chart], detail=True))
    if beside:
        closing = next(
            i for i, section in enumerate(sections) if section.title in ("Reasons for doubt", "Cost")
        )
        sections.insert(closing, beside_section(result, beside))
    return sections
