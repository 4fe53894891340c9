"""Results of one task beside one another: why they differ, and what was measured when."""

from __future__ import annotations

from collections.abc import Sequence

from bnoise_cli.amounts import EXAMPLES
from bnoise_cli.numbers import count, significant
from bnoise_cli.report.document import Grid, Section, Sentence, Tone
from bnoise_cli.report.kinds import Stretch, report_kind
from bnoise_cli.results.result import Result

#: How sweeps and horizons choose learning rates, for a `Stretch`.
AT_BEST_RATES = ", each batch size at its best learning rate"


def beside_section(result: Result, others: Sequence[tuple[str, Result]]) -> Section:
    """One sentence on every other stored measurement of the same task."""
    parts = []
    for name, other in others:
        its, own, this = stretch(other), stretch(result), f"this {result.kind}"
        why = f"it {its}; {this} {own}"
        if its[1:] == own[1:] and any(own[1:]):
            why = f"it {its.what}, and {this} {own.what}, both{own.start}{own.rates}"
        elif its.rates == own.rates != "":
            why = f"it {its.what}{its.start}; {this} {own.what}{own.start};{own.rates[1:]}"
        found = f"A {other.kind} in {name} found {EXAMPLES.interval(other.critical_batch_size)}"
        parts.append(Sentence(f"{found}: {why}.", Tone.DETAIL))
    return Section(title="Other measurements", parts=parts)


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
