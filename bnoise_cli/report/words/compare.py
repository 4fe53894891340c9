"""Several results beside one another."""

from __future__ import annotations

from collections.abc import Sequence

from bnoise_cli.numbers import count, seconds, significant
from bnoise_cli.records import Estimate
from bnoise_cli.report.document import Grid, Part, Section
from bnoise_cli.report.words.advice import remarks
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
    parts: list[Part] = [grid]
    sections = [Section(title="Comparison", parts=parts)]
    return sections + [
        Section(title=f"Reasons for doubt: {name}", parts=remarks(result.doubts))
        for name, result in results
        if result.doubts
    ]


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
