"""Verdicts as GitHub and JUnit read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.check.verdicts import doubt
from tests.samples import store

COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::(.*)")


def workflow_commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """GitHub's workflow commands, read as its runner does."""

    def plain(value: str) -> str:
        return (
            value.replace("%0D", "\r")
            .replace("%0A", "\n")
            .replace("%3A", ":")
            .replace("%2C", ",")
            .replace("%25", "%")
        )

    found = []
    for line in text.splitlines():
        if line.startswith("::"):
            command = COMMAND.fullmatch(line)
            assert command is not None, line
            pairs = (pair.split("=", 1) for pair in command[2].split(","))
            found.append((command[1], {key: plain(value) for key, value in pairs}, plain(command[3])))
    return found


def test_annotations_stand_on_the_very_line(
    bnoise: Call, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(config)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(Path.cwd().parent))
    line = QUADRATIC_CONFIG.splitlines().index("  batch_size: 32") + 1
    where = {"file": f"{Path.cwd().name}/c.yaml", "line": str(line), "col": "15"}
    code, out, _ = bnoise("check", config, "--batch-size", "3200", "--format", "github")
    assert code == 1
    [(level, place, text)] = workflow_commands(out)
    assert (level, place) == ("error", {**where, "title": "bnoise check: fail"})
    assert text.startswith("a batch of 3,200 examples takes 33.0")
    assert text.endswith("Set training.batch_size to 96 or less.")
    _, out, _ = bnoise("check", config, "--batch-size", "105", "--format", "github")
    assert [(level, place["line"]) for level, place, _ in workflow_commands(out)] == [("warning", str(line))]
    _, out, _ = bnoise("check", config, "--batch-size", "3200", "--format", "github", "--exit-zero")
    assert [level for level, _, _ in workflow_commands(out)] == ["warning"]
    _, out, _ = bnoise("check", config, "--format", "github")
    assert workflow_commands(out) == []
    assert out.startswith("pass: c.yaml: ")


def test_every_mistake_of_a_config_has_its_annotation(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: '50%, a: b'") + "extra: 3\n")
    code, out, _ = bnoise("check", "c.yaml", "--format", "github")
    assert code == 2
    lines = QUADRATIC_CONFIG.splitlines()
    found = {place["line"]: text for _, place, text in workflow_commands(out)}
    assert set(found) == {str(lines.index("  batch_size: 32") + 1), str(len(lines) + 1)}
    assert "50%, a: b" in found[str(lines.index("  batch_size: 32") + 1)]


def test_names_cannot_give_commands(bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's file name and values must not become workflow commands or outputs."""
    name = "a,line=1::warning\n::set-output name=verdict::pass\nb.yaml"
    write(name, QUADRATIC_CONFIG.replace("batch_size: 32", 'batch_size: "\\n::error::x"'))
    monkeypatch.setenv("GITHUB_OUTPUT", "out.txt")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    code, out, _ = bnoise("check", name, "--format", "github")
    assert code == 2
    [(_, place, _)] = workflow_commands(out)
    assert place["file"] == name.replace("\n", "\\n")
    assert outputs(Path("out.txt").read_text())["verdict"] == "invalid"
    for form in ("text", "markdown"):
        _, out, _ = bnoise("check", name, "--format", form)
        assert not any(line.startswith("::") for line in out.splitlines())


@pytest.mark.parametrize("form", ["text", "markdown", "junit", "github"])
def test_nothing_in_a_log_steers_it(bnoise: Call, write: Write, form: str) -> None:
    """Keys, targets, names of files and of doubts with escapes, line breaks and workflow commands."""
    evil = "\x1b[31m\n::error::" + "a" * 58 + " ::warning::##[error]x"
    write("key.yaml", QUADRATIC_CONFIG + f"{json.dumps(evil)}: 1\n")
    write(
        "target.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", json.dumps(evil))
    )
    write("doubt.yaml", QUADRATIC_CONFIG)
    store("doubt.yaml", f".bnoise/{evil.replace('/', '')[:60]}.json", doubts=(doubt(evil),))
    write("name\x1b\n::error::.yaml", QUADRATIC_CONFIG.replace("16", "17"))
    _, out, err = bnoise(
        "check", "key.yaml", "target.yaml", "doubt.yaml", "name\x1b\n::error::.yaml", "--format", form
    )
    assert "\x1b" not in out + err
    for line in out.splitlines():
        if not (form == "github" and COMMAND.fullmatch(line)):
            assert "::" not in line
        assert "##[" not in line
    if form == "github":
        assert len(workflow_commands(out)) == 3


def outputs(text: str) -> dict[str, str]:
    """A step's outputs, read as GitHub's runner does."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, fence = line.split("<<")
        value = []
        while (part := next(lines)) != fence:
            value.append(part)
        found[name] = "\n".join(value)
    return found


def test_summary_and_outputs_are_appended(bnoise: Call, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store(config)
    Path("out.txt").write_text("before<<x\n1\nx\n")
    Path("summary.md").write_text("# Before\n")
    monkeypatch.setenv("GITHUB_OUTPUT", "out.txt")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert bnoise("check", config, "--format", "github", "--batch-size", "3200")[0] == 1
    found = outputs(Path("out.txt").read_text())
    assert found["before"] == "1"
    assert (found["verdict"], found["exit-code"], found["config"]) == ("fail", "1", "c.yaml")
    assert (found["batch-size"], found["critical-batch-size"], found["suggested-batch-size"]) == (
        "3200",
        "100",
        "96",
    )
    summary = Path("summary.md").read_text()
    assert summary.startswith("# Before\n# bnoise check\n")
    assert "| fail | c.yaml | 3,200 | 100 (90.0 to 112) | 33.0 | 1.03 |" in summary
    monkeypatch.setenv("GITHUB_OUTPUT", "no/such/folder")
    code, out, err = bnoise("check", config, "--format", "github")
    assert code == 4
    assert "GITHUB_OUTPUT" in err
    assert "c.yaml" in out, "the annotations are printed before the files are written"


#: Of the JUnit schema that Jenkins and GitLab read: attributes (required, allowed) and children of each element.
JUNIT = {
    "testsuites": ({"tests", "failures", "errors"}, {"name", "time"}, ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "timestamp", "hostname", "package", "id"},
        set[str](),
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "properties": (set[str](), set[str](), []),
    "testcase": ({"name", "classname", "time"}, set[str](), ["failure", "error"]),
    "failure": ({"type"}, {"message"}, []),
    "error": ({"type"}, {"message"}, []),
    "system-out": (set[str](), set[str](), []),
    "system-err": (set[str](), set[str](), []),
}


def test_outputs_are_of_the_gravest(bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("large.yaml", QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: 3200"))
    write("open.yaml", QUADRATIC_CONFIG.replace("16", "17"))
    store("large.yaml")
    monkeypatch.setenv("GITHUB_OUTPUT", "out.txt")
    assert bnoise("check", "open.yaml", "large.yaml", "--format", "github")[0] == 1
    found = outputs(Path("out.txt").read_text())
    assert (found["verdict"], found["config"], found["exit-code"]) == ("fail", "large.yaml", "1")


def test_a_strict_warning_is_a_failure_in_junit_too(bnoise: Call, config: str) -> None:
    store(config)
    arguments = ("check", config, "--batch-size", "105", "--format", "junit")
    code, out, _ = bnoise(*arguments)
    assert (code, ET.fromstring(out).attrib["failures"]) == (0, "0")
    code, out, _ = bnoise(*arguments, "--strict")
    assert (code, ET.fromstring(out).attrib["failures"]) == (1, "1")


def test_junit_keeps_to_its_schema(bnoise: Call, write: Write) -> None:
    write("good.yaml", QUADRATIC_CONFIG)
    write('bad<&\x1b".yaml', QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: 3200"))
    write("open.yaml", QUADRATIC_CONFIG.replace("16", "17"))
    write("wrong.yaml", "version: 7\n")
    store("good.yaml")
    code, out, _ = bnoise("check", "*.yaml", "--format", "junit")
    assert code == 2
    root = ET.fromstring(out)
    assert root.tag == "testsuites"
    for element in root.iter():
        required, allowed, children = JUNIT[element.tag]
        assert required <= set(element.attrib) <= required | allowed
        order = [children.index(child.tag) for child in element]
        assert order == sorted(order)
    [suite] = root
    cases = {case.attrib["classname"]: [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {
        "good.yaml": [],
        'bad<&\\x1b".yaml': ["failure"],
        "open.yaml": ["error"],
        "wrong.yaml": ["error"],
    }
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("4", "1", "2")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
