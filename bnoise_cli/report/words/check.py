"""The verdicts of a check in words, as tables and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bnoise_cli.amounts import Amounts
from bnoise_cli.check.check_config import Checked, Rules
from bnoise_cli.check.verdict import Verdict
from bnoise_cli.errors import harmless
from bnoise_cli.numbers import significant
from bnoise_cli.records import SCHEMA_VERSION, CriticalBatchSize
from bnoise_cli.report.document import Grid, Section, Sentence, Tone

WORDS = {
    Verdict.PASS: "pass",
    Verdict.WARN: "warning",
    Verdict.FAIL: "fail",
    Verdict.CANNOT_TELL: "cannot tell",
    Verdict.INVALID: "invalid config",
    Verdict.ERROR: "error",
}


def check_sections(checked: Sequence[Checked]) -> list[Section]:
    """One section for each config, and a last one that counts them."""
    sections = [_section(each) for each in checked]
    if len(checked) > 1:
        sections.append(Section(title=f"{len(checked)} configs", headline=Sentence(_counted(checked))))
    return sections


def check_json(checked: Sequence[Checked], rules: Rules) -> dict[str, Any]:
    """Everything as plain data."""
    plain = []
    for each in checked:
        data = asdict(each)
        judgement = data.pop("judgement") or {}
        plain.append(
            {
                **data,
                **{key: judgement[key] for key in judgement if key not in ("verdict", "finding", "remedy")},
                "config": str(each.config),
                "result": None if each.result is None else str(each.result),
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "check",
        "exit_code": int(rules.exit_code(checked)),
        "checked": plain,
    }


def check_table(checked: Sequence[Checked]) -> list[Section]:
    """A table of all, and what is to be done, for a page."""
    rows = []
    for each in checked:
        found = each.judgement
        known = ("", "", "", "")
        if found is not None:
            amounts = Amounts(found.tokens_per_example)
            overhead, speed = found.compute_overhead, found.time_efficiency
            known = (
                amounts.count(found.batch_size),
                _interval(found.critical_batch_size, amounts),
                "?" if overhead is None else significant(1 + overhead),
                "?" if speed is None else significant(1 / speed),
            )
        rows.append((WORDS[each.verdict], harmless(str(each.config)), *known))
    columns = ("verdict", "config", "batch size", "B_crit (95%)", "examples / fewest", "steps / fewest")
    table = Grid(columns=columns, rows=tuple(rows), words=frozenset(columns[:2]))
    unsettled = [_section(each) for each in checked if each.verdict is not Verdict.PASS]
    return [Section(title=_counted(checked), parts=(table,)), *unsettled]


def _section(each: Checked) -> Section:
    said, parts = each.named_finding, []
    if each.verdict is Verdict.INVALID and len(each.marks) > 1:
        said = f"{each.config}: {len(each.marks)} mistakes"
        parts += [
            mark.text if mark.line is None else f"{each.config}:{mark.line}:{mark.column}: {mark.text}"
            for mark in each.marks
        ]
    if each.remedy:
        parts.append(each.remedy)
    tone = Tone.GOOD if each.verdict is Verdict.PASS else Tone.UNSURE
    sentences = [Sentence(harmless(text)) for text in parts]
    if each.result is not None:
        codes = sorted({doubt.code for doubt in each.doubts})
        doubts = f"; doubts: {', '.join(codes)}, see `bnoise report {each.result}`" if codes else ""
        sentences.append(Sentence(harmless(f"By {each.result}{doubts}."), Tone.DETAIL))
    return Section(
        title=WORDS[each.verdict],
        headline=Sentence(harmless(said), tone),
        parts=sentences,
    )


def _counted(checked: Sequence[Checked]) -> str:
    numbers = Counter(each.verdict for each in checked)
    return ", ".join(f"{numbers[verdict]} {word}" for verdict, word in WORDS.items() if numbers[verdict])


def _interval(critical: CriticalBatchSize, amounts: Amounts) -> str:
    if critical.value is None or critical.high is None:
        return f"{significant(critical.low)} or more{amounts.beside(critical.low)}"
    return amounts.within(critical.value, critical.low, critical.high)
