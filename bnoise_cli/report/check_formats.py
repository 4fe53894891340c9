"""The verdicts of a check as text, JSON, Markdown, GitHub's annotations and JUnit's XML."""

from __future__ import annotations

import os
import re
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from bnoise_cli.advice.checked import Checked, Rules
from bnoise_cli.advice.verdict import Verdict
from bnoise_cli.errors import ExitCode, RunError
from bnoise_cli.numbers import count, significant
from bnoise_cli.records import SCHEMA_VERSION, CriticalBatchSize
from bnoise_cli.report.document import Grid, Part, Section, Sentence, Tone

_WORDS = {
    Verdict.PASS: "pass",
    Verdict.WARN: "warning",
    Verdict.FAIL: "fail",
    Verdict.CANNOT_TELL: "cannot tell",
    Verdict.INVALID: "invalid config",
    Verdict.ERROR: "error",
}
#: What XML 1.0 cannot hold.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_sections(checked: Sequence[Checked]) -> list[Section]:
    """One section for each config, and a last one that counts them."""
    sections = [_section(each) for each in checked]
    if len(checked) > 1:
        sections.append(Section(title=f"{len(checked)} configs", headline=Sentence(_counted(checked))))
    return sections


def check_json(checked: Sequence[Checked], code: ExitCode) -> dict[str, Any]:
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
    return {"schema_version": SCHEMA_VERSION, "kind": "check", "exit_code": int(code), "checked": plain}


def check_table(checked: Sequence[Checked]) -> list[Section]:
    """A table of all, and what is to be done, for a page."""
    rows = []
    for each in checked:
        found = each.judgement
        known = ("", "", "", "")
        if found is not None:
            overhead, speed = found.compute_overhead, found.time_efficiency
            known = (
                count(found.batch_size),
                _interval(found.critical_batch_size),
                "?" if overhead is None else significant(1 + overhead),
                "?" if speed is None else significant(1 / speed),
            )
        rows.append((_WORDS[each.verdict], str(each.config), *known))
    columns = ("verdict", "config", "batch size", "B_crit (95%)", "examples / fewest", "steps / fewest")
    table = Grid(columns=columns, rows=tuple(rows), words=frozenset(columns[:2]))
    unsettled = [_section(each) for each in checked if each.verdict is not Verdict.PASS]
    return [Section(title=_counted(checked), parts=(table,)), *unsettled]


def github_annotations(checked: Sequence[Checked], rules: Rules) -> str:
    """GitHub's workflow commands, one for each mark; a line of plain text for what passed."""
    lines = []
    for each in checked:
        if each.verdict is Verdict.PASS:
            lines.append(f"pass: {_one_line(f'{each.config}: {each.finding}')}")
        level = "error" if rules.code(each.verdict) is not ExitCode.DONE else "warning"
        for mark in () if each.verdict is Verdict.PASS else each.marks:
            where = {"file": _in_workspace(each.config), "line": mark.line, "col": mark.column}
            where["title"] = f"bnoise check: {_WORDS[each.verdict]}"
            known = ",".join(
                f"{key}={_property(str(value))}" for key, value in where.items() if value is not None
            )
            lines.append(f"::{level} {known}::{_data(mark.text)}")
    return "".join(f"{line}\n" for line in lines)


def write_github_files(checked: Sequence[Checked], code: ExitCode, summary: str) -> None:
    """Append to the files that GitHub names for a step's summary and its outputs, where it does.

    Raises:
        RunError: one cannot be written.
    """
    worst = next(iter(sorted(checked, key=lambda each: list(_WORDS).index(each.verdict), reverse=True)))
    found = worst.judgement
    outputs = {
        "verdict": worst.verdict.value,
        "exit-code": str(int(code)),
        "config": str(worst.config),
        "finding": worst.finding,
        "batch-size": "" if found is None else str(found.batch_size),
        "critical-batch-size": _plain(None if found is None else found.critical_batch_size.value),
        "suggested-batch-size": _plain(None if found is None else found.suggested_batch_size),
    }
    fence = f"bnoise_{secrets.token_hex(16)}"  # a value cannot end it and go on with outputs of its own
    lines = "".join(f"{name}<<{fence}\n{value}\n{fence}\n" for name, value in outputs.items())
    for variable, text in (("GITHUB_STEP_SUMMARY", summary), ("GITHUB_OUTPUT", lines)):
        if path := os.environ.get(variable):
            try:
                with Path(path).open("a", encoding="utf-8") as file:
                    file.write(text)
            except OSError as error:
                reason = error.strerror or error
                raise RunError(f"{path}, named by {variable}, could not be written ({reason}).") from error


def junit(checked: Sequence[Checked], seconds: float) -> str:
    """JUnit's XML as Jenkins, GitLab and the others read it: a test case for each config."""
    kinds = Counter(_junit_kind(each.verdict) for each in checked)
    numbers = {"tests": len(checked), "failures": kinds["failure"], "errors": kinds["error"]}
    totals = {**{key: str(value) for key, value in numbers.items()}, "time": f"{seconds:.3f}"}
    root = ET.Element("testsuites", {"name": "bnoise check", **totals})
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    about = {"package": "bnoise", "id": "0", "timestamp": made, "hostname": "localhost"}
    suite = ET.SubElement(root, "testsuite", {"name": "bnoise check", **about, **totals})
    ET.SubElement(suite, "properties")
    for each in checked:
        case = ET.SubElement(
            suite,
            "testcase",
            name="batch size",
            classname=_xml(str(each.config)),
            time=f"{seconds / len(checked):.3f}",
        )
        kind = _junit_kind(each.verdict)
        if kind:
            bad = ET.SubElement(case, kind, type=each.verdict.value, message=_xml(each.finding))
            bad.text = _xml(f"{each.finding}\n{each.remedy}".rstrip())
    said = [f"{_WORDS[each.verdict]}: {each.config}: {each.finding}\n{each.remedy}" for each in checked]
    ET.SubElement(suite, "system-out").text = _xml("\n".join(text.rstrip() for text in said))
    ET.SubElement(suite, "system-err")
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _section(each: Checked) -> Section:
    parts: list[Part] = []
    said = each.finding
    if each.verdict is Verdict.INVALID:
        said = f"{len(each.marks)} mistake{'s' if len(each.marks) > 1 else ''}"
        parts += [
            Sentence(mark.text if mark.line is None else f"{mark.line}:{mark.column}: {mark.text}")
            for mark in each.marks
        ]
    if each.remedy:
        parts.append(Sentence(each.remedy))
    if each.result is not None:
        codes = sorted({doubt.code for doubt in each.doubts})
        doubts = f"; doubts: {', '.join(codes)}, see `bnoise report {each.result}`" if codes else ""
        parts.append(Sentence(f"By {each.result}{doubts}.", Tone.DETAIL))
    tone = Tone.GOOD if each.verdict is Verdict.PASS else Tone.UNSURE
    return Section(
        title=_WORDS[each.verdict],
        headline=Sentence(_one_line(f"{each.config}: {said}"), tone),
        parts=parts,
    )


def _counted(checked: Sequence[Checked]) -> str:
    numbers = Counter(each.verdict for each in checked)
    return ", ".join(f"{numbers[verdict]} {word}" for verdict, word in _WORDS.items() if numbers[verdict])


def _interval(critical: CriticalBatchSize) -> str:
    if critical.value is None or critical.high is None:
        return f"{significant(critical.low)} or more"
    return f"{significant(critical.value)} ({significant(critical.low)} to {significant(critical.high)})"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _in_workspace(path: Path) -> str:
    """The path as annotations want it: from the root of the repository."""
    root = os.environ.get("GITHUB_WORKSPACE")
    whole = path.resolve()
    if root and whole.is_relative_to(Path(root).resolve()):
        return whole.relative_to(Path(root).resolve()).as_posix()
    return path.as_posix()


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _junit_kind(verdict: Verdict) -> str:
    if verdict is Verdict.FAIL:
        return "failure"
    return "" if verdict in (Verdict.PASS, Verdict.WARN) else "error"


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)
