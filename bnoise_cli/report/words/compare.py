"""Several results beside one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnoise_cli.numbers import count, seconds, significant
from bnoise_cli.records import Estimate
from bnoise_cli.report.document import Grid, Part, Section, Sentence, Tone
from bnoise_cli.report.words.advice import remarks
from bnoise_cli.report.words.related import overlap, stretch
from bnoise_cli.results.probe import ProbeResult
from bnoise_cli.results.result import Result

_IN_TOKENS = ("critical\nin tokens", "recommended\nin tokens", "planned\nin tokens")


def comparison_sections(results: Sequence[tuple[str, Result]]) -> list[Section]:
    """One table, then the doubts about each."""
    grid = Grid(
        columns=(
            "result", "by", "critical\nbatch size", "critical\nin tokens", "95%\ninterval", "simple\nnoise scale",
            "recommended\nbatch", "recommended\nin tokens", "step\ntime", "planned\nbatch", "planned\nin tokens",
            "dataset", "device",
        ),
        rows=tuple((name, *_row(result)) for name, result in results),
        spare=("dataset", "device", "step\ntime", "simple\nnoise scale", *_IN_TOKENS[::-1]),
        words=frozenset({"result", "by", "device"}),
    ).without_empty(*_IN_TOKENS)  # fmt: skip
    parts: list[Part] = [grid, *_ratios(results)]
    parts += [Sentence(f"{name} {stretch(result)}.", Tone.DETAIL) for name, result in results]
    sections = [Section(title="Comparison", parts=parts)]
    return sections + [
        Section(title=f"Reasons for doubt: {name}", parts=remarks(result.doubts))
        for name, result in results
        if result.doubts
    ]


def _ratios(results: Sequence[tuple[str, Result]]) -> Iterator[Sentence]:
    """How far the critical batch sizes are from that of the first result."""
    (first, base), *others = results
    known = base.critical_batch_size
    for name, result in others:
        found = result.critical_batch_size
        if known.value is None or known.high is None or found.value is None or found.high is None:
            continue
        ratio = (
            f"{name} finds {significant(found.value / known.value)} times the critical batch size of {first}"
        )
        yield Sentence(f"{ratio}; the intervals {'overlap' if overlap(found, known) else 'do not overlap'}.")


def _row(result: Result) -> tuple[str, ...]:
    critical, advice, amounts = result.critical_batch_size, result.recommendation, result.amounts
    planned = result.plan.training.batch_size
    return (
        result.kind,
        significant(critical.value),
        amounts.tokens(critical.value),
        _limits(critical),
        significant(result.simple_noise_scale.value) if isinstance(result, ProbeResult) else "",
        "?" if advice is None else count(advice.batch_size),
        "" if advice is None else amounts.tokens(advice.batch_size),
        "?" if advice is None or advice.row.step_seconds is None else seconds(advice.row.step_seconds),
        count(planned),
        amounts.tokens(planned),
        count(result.provenance.dataset_length),
        result.provenance.device,
    )


def _limits(estimate: Estimate) -> str:
    if estimate.high is None:
        return f"at least {significant(estimate.low)}"
    return f"{significant(estimate.low)}–{significant(estimate.high)}"
