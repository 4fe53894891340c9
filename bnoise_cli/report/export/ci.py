"""The formats of `bnoise check`, with GitHub's annotations, summary and outputs, and JUnit's XML."""

from __future__ import annotations

import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from bnoise_cli.check.check_config import Checked, Rules
from bnoise_cli.check.verdict import Verdict
from bnoise_cli.errors import ExitCode, RunError, harmless, printable, reason
from bnoise_cli.report.markdown import markdown
from bnoise_cli.report.words.check import WORDS, check_json, check_table


class Format(StrEnum):
    """How verdicts are written."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    GITHUB = "github"
    JUNIT = "junit"


#: Characters that XML 1.0 cannot hold.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def github_annotations(checked: Sequence[Checked], rules: Rules) -> str:
    """GitHub's workflow commands, one for each mark; a line of plain text for what passed."""
    lines = []
    for each in checked:
        if each.verdict is Verdict.PASS:
            lines.append(f"pass: {harmless(f'{each.config}: {each.finding}')}")
        level = "error" if rules.code(each.verdict) is not ExitCode.DONE else "warning"
        for mark in () if each.verdict is Verdict.PASS else each.marks:
            where = {"file": printable(_in_workspace(each.config)), "line": mark.line, "col": mark.column}
            where["title"] = f"bnoise check: {WORDS[each.verdict]}"
            known = ",".join(
                f"{key}={_property(str(value))}" for key, value in where.items() if value is not None
            )
            lines.append(f"::{level} {known}::{_data(harmless(mark.text))}")
    return "".join(f"{line}\n" for line in lines)


def write_github_files(checked: Sequence[Checked], rules: Rules, summary: str) -> None:
    """Append to the files that GitHub names for the summary and the outputs of a step, if it names them.

    Raises:
        RunError: one cannot be written.
    """
    worst = rules.gravest(checked)
    found = worst.judgement
    outputs = {
        "verdict": worst.verdict.value,
        "exit-code": str(int(rules.exit_code(checked))),
        "config": str(worst.config),
        "finding": harmless(worst.finding),
        "batch-size": "" if found is None else str(found.batch_size),
        "critical-batch-size": _plain(None if found is None else found.critical_batch_size.value),
        "suggested-batch-size": _plain(None if found is None else found.suggested_batch_size),
    }
    fence = f"bnoise_{secrets.token_hex(16)}"  # random, so that no value can end its output and begin another
    lines = "".join(f"{name}<<{fence}\n{value}\n{fence}\n" for name, value in outputs.items())
    for variable, text in (("GITHUB_STEP_SUMMARY", summary), ("GITHUB_OUTPUT", lines)):
        if path := os.environ.get(variable):
            try:
                with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(text)
            except OSError as error:
                raise RunError(
                    f"{path}, named by {variable}, could not be written ({reason(error)})."
                ) from error


def junit(checked: Sequence[Checked], rules: Rules, seconds: float) -> str:
    """JUnit's XML as Jenkins, GitLab and the others read it: a test case for each config."""
    kinds = Counter(_junit_kind(each, rules) for each in checked)
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
        kind = _junit_kind(each, rules)
        if kind:
            bad = ET.SubElement(case, kind, type=each.verdict.value, message=_xml(each.finding))
            bad.text = _xml(_with_remedy(each.finding, each.remedy))
    said = [f"{WORDS[each.verdict]}: {_with_remedy(each.named_finding, each.remedy)}" for each in checked]
    ET.SubElement(suite, "system-out").text = "\n".join(map(_xml, said))
    ET.SubElement(suite, "system-err")
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _markdown(checked: Sequence[Checked]) -> str:
    return markdown("bnoise check", check_table(checked), None)


def _github(checked: Sequence[Checked], rules: Rules, _seconds: float) -> Iterator[str]:
    yield github_annotations(checked, rules)  # printed also if the files cannot be written
    write_github_files(checked, rules, _markdown(checked))


#: From verdicts, rules and the seconds of the check to what is printed, one after the other: texts, or data for
#: JSON. A report is laid out instead.
WRITERS: dict[Format, Callable[[Sequence[Checked], Rules, float], Iterable[Any]]] = {
    Format.JSON: lambda checked, rules, _: [check_json(checked, rules)],
    Format.MARKDOWN: lambda checked, _, __: [_markdown(checked)],
    Format.GITHUB: _github,
    Format.JUNIT: lambda checked, rules, seconds: [junit(checked, rules, seconds)],
}


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _in_workspace(path: Path) -> str:
    """The path as annotations want it: from the root of the repository."""
    root = os.environ.get("GITHUB_WORKSPACE")
    whole = Path(os.path.realpath(path))
    if root and whole.is_relative_to(os.path.realpath(root)):
        return whole.relative_to(os.path.realpath(root)).as_posix()
    return path.as_posix()


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _junit_kind(each: Checked, rules: Rules) -> str:
    if each.verdict is Verdict.FAIL or rules.code(each.verdict) is ExitCode.CHECK_FAILED:
        return "failure"
    return "" if each.verdict in (Verdict.PASS, Verdict.WARN) else "error"


def _with_remedy(finding: str, remedy: str) -> str:
    """What was found, and what to do about it if there is something to do."""
    return f"{finding.removesuffix('.')}. {remedy}" if remedy else finding


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", harmless(text))
