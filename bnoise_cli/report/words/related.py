"""Results of one task beside one another: why they differ, and what was measured when."""

from __future__ import annotations

from collections.abc import Sequence

from bnoise_cli.amounts import EXAMPLES
from bnoise_cli.numbers import count, significant
from bnoise_cli.report.document import Grid, Section, Sentence, Tone
from bnoise_cli.results.branch import BranchResult
from bnoise_cli.results.probe import ProbeResult
from bnoise_cli.results.result import Result
from bnoise_cli.results.sweep import SweepResult


def beside_section(result: Result, others: Sequence[tuple[str, Result]]) -> Section:
    """One sentence on every other stored measurement of the same task."""
    parts = [
        Sentence(
            f"A {other.kind} in {name} found {EXAMPLES.interval(other.critical_batch_size)}: it {stretch(other)}; this "
            f"{result.kind} {stretch(result)}.",
            Tone.DETAIL,
        )
        for name, other in others
    ]
    return Section(title="Other measurements", parts=parts)


def stretch(result: Result) -> str:
    """From where a result looks how far, and at which learning rates: `looks at one step after 100 steps`."""
    match result:
        case ProbeResult(horizon=horizon) if horizon is not None:
            ahead = f"{count(horizon.curve[-1].steps)} steps of a large batch ahead"
            return f"looks {ahead}{_after(result.step)}, each batch size at its best learning rate"
        case ProbeResult() if len(result.trajectory) > 1:
            return f"joins {count(len(result.trajectory))} points of training"
        case ProbeResult():
            return f"looks at one step alone{_after(result.step)}"
        case SweepResult():
            goal = f"trains to a loss of {significant(result.goal)}"
            return f"{goal}{_after(_warm_up(result))}, each batch size at its best learning rate"
        case BranchResult():
            amount = f"trains branches of {count(result.examples)} examples"
            return f"{amount}{_after(_warm_up(result))}, at learning rates scaled with the batch size"
        case _:
            return f"is a {result.kind}"


def _after(steps: int | None) -> str:
    if steps is None:
        return ""
    return f" after {count(steps)} steps of training" if steps else " from the start"


def _warm_up(result: Result) -> int | None:
    section = result.config.get("sweep")
    steps = section.get("warmup_steps") if isinstance(section, dict) else None
    return steps if isinstance(steps, int) else None


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
