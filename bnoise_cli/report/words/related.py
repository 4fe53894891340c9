"""Results of one task beside one another: why they differ, and what was measured when."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bnoise_cli.amounts import EXAMPLES
from bnoise_cli.numbers import count, significant
from bnoise_cli.records import Estimate
from bnoise_cli.report.document import Grid, Section, Sentence, Tone
from bnoise_cli.report.kinds import Stretch, report_kind
from bnoise_cli.results.result import Result

#: How sweeps and horizons choose learning rates, for a `Stretch`.
AT_BEST_RATES = ", each batch size at its best learning rate"


def beside_section(result: Result, others: Sequence[tuple[str, Result]]) -> Section:
    """One sentence on every other stored measurement of the same task; a detail if all of them agree."""
    parts = []
    for name, other in others:
        its, own = stretch(other), stretch(result)
        known = f"A {other.kind} in {name} found {EXAMPLES.interval(other.critical_batch_size)}"
        why = f"it {its.beside(own)}; this {result.kind} {own.beside(its)}"
        parts.append(Sentence(f"{known}: {why}.", Tone.DETAIL))
    found = result.critical_batch_size
    agree = all(overlap(other.critical_batch_size, found) for _, other in others)
    return Section(title="Other measurements", parts=parts, detail=agree)


def overlap(one: Estimate, other: Estimate) -> bool:
    """Whether two intervals overlap."""
    ends = [math.inf if each.high is None else each.high for each in (one, other)]
    return one.low <= ends[1] and other.low <= ends[0]


def stretch(result: Result) -> Stretch:
    """From where a result looks how far, and at which learning rates."""
    return report_kind(result.kind).stretch(result)


def after(steps: int | None) -> str:
    """The training before a measurement; nothing if that is not known."""
    if steps is None:
        return ""
    return f" after {count(steps)} steps of training" if steps else " from the start"


def history_section(results: Sequence[tuple[str, Result]]) -> Section:
    """What was measured when, the newest first.

    Args:
        results: with the names of their files.
    """
    rows = tuple(
        (
            result.provenance.time.removesuffix("+00:00").replace("T", " "),
            result.kind,
            _limits(result),
            "?" if result.recommendation is None else count(result.recommendation.batch_size),
            result.provenance.device,
            name,
        )
        for name, result in sorted(results, key=lambda each: each[1].provenance.time, reverse=True)
    )
    columns = ("made (UTC)", "by", "critical batch size", "recommended", "device", "file")
    words = frozenset({"made (UTC)", "by", "device", "file"})
    return Section(title="History", parts=[Grid(columns=columns, rows=rows, words=words, spare=("device",))])


def _limits(result: Result) -> str:
    critical = result.critical_batch_size
    if critical.value is None or critical.high is None:
        return f"at least {significant(critical.low)}"
    return EXAMPLES.within(critical.value, critical.low, critical.high)
