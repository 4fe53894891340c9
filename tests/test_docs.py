"""The documentation agrees with the program: topics, doubts, keys, exit codes, links and what users paste."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bnoise_cli import __version__
from bnoise_cli.cli.explain import doubt_sections, page, topics
from bnoise_cli.errors import ExitCode
from bnoise_cli.results.probe import PROBE
from bnoise_cli.spec.load import load_spec
from bnoise_cli.storage import write_json
from tests.cases import QUADRATIC_CONFIG, ROOT, Call, Write
from tests.documents import DOCS, PAGES, blocks
from tests.reference import reference
from tests.samples import result as probed

# --- bnoise explain -----------------------------------------------------------------------------------


def test_explain_lists_every_topic_and_doubt(bnoise: Call) -> None:
    code, out, _ = bnoise("explain")
    assert code == 0
    words = set(re.findall(r"[\w-]+", out))
    assert {*topics(), *doubt_sections()} <= words
    helped = bnoise("explain", "--help")[1]
    assert set(topics()) <= set(re.findall(r"[\w-]+", helped))


@pytest.mark.parametrize("topic", topics())
def test_explain_prints_a_page(bnoise: Call, topic: str) -> None:
    code, out, err = bnoise("explain", topic)
    assert (code, err) == (0, "")
    assert out == page(topic)
    assert out.startswith("# ")
    assert "<!--" not in out


def test_explain_prints_the_section_of_a_doubt(bnoise: Call) -> None:
    code, out, _ = bnoise("explain", "batch_norm")
    assert code == 0
    assert out.startswith("# batch_norm\n\n")
    assert "\n## " not in out


def test_explain_lays_a_page_out_at_a_terminal(bnoise: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnoise_cli.cli.streams.is_watched", lambda: True)
    _, out, _ = bnoise("explain", "exit-codes")
    assert "# Exit codes" not in out
    assert "Exit codes" in out


def test_an_unknown_topic_names_the_nearest(bnoise: Call) -> None:
    code, out, err = bnoise("explain", "momentun")
    assert (code, out) == (2, "")
    assert "Did you mean momentum?" in err
    code, _, err = bnoise("explain", "zzz")
    assert code == 2
    assert "Did you mean" not in err


# --- the pages agree with the code --------------------------------------------------------------------


def doubt_codes() -> Iterator[str]:
    """The code of every doubt that the package can raise."""
    for path in (ROOT / "bnoise_cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Doubt":
                [code] = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                assert isinstance(code, ast.Constant), (
                    f"{path.name}:{node.lineno}: a doubt's code is written out"
                )
                yield str(code.value)


def test_every_doubt_has_a_section_and_every_section_a_doubt() -> None:
    assert set(doubt_codes()) == set(doubt_sections())


def test_no_doubt_is_hidden_by_a_topic() -> None:
    assert not set(topics()) & set(doubt_sections())


def test_every_exit_code_is_explained() -> None:
    assert re.findall(r"^\| (\d+) \|", page("exit-codes"), flags=re.MULTILINE) == [
        str(int(code)) for code in ExitCode
    ]


def test_the_changes_begin_with_this_version_or_what_comes_after_it() -> None:
    assert f"\n## {__version__}\n" in page("changes")


def test_links_lead_to_files_and_the_readme_names_every_page() -> None:
    for path in PAGES:
        for link in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            assert link.startswith("https://arxiv.org/") or (path.parent / link).exists(), (
                f"{path.name}: {link}"
            )
    readme = PAGES[0].read_text(encoding="utf-8")
    assert all(f"({path.relative_to(ROOT).as_posix()})" in readme for path in DOCS.glob("*.md"))
    assert len(readme.splitlines()) <= 160


def test_pages_name_files_and_topics_that_exist() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for topic in re.findall(r"`bnoise explain ([a-z][\w-]*)`", text):
            assert topic in topics() or topic in doubt_sections(), f"{path.name}: explain {topic}"
    for file in re.findall(r"`([a-z_]+/[\w/]+\.py)`", page("code")):
        assert (ROOT / "bnoise_cli" / file).exists() or (ROOT / file).exists(), file


def test_the_reference_of_keys_is_in_step_with_the_schema(request: pytest.FixtureRequest) -> None:
    """`pytest --golden` rewrites the page."""
    if request.config.getoption("--golden"):
        (DOCS / "config-reference.md").write_text(reference(), encoding="utf-8")
    assert page("config-reference") == reference()


# --- what users paste ---------------------------------------------------------------------------------


def config_blocks() -> list[Any]:
    """Blocks of YAML that are a config or a part of one."""
    found = [(path, text) for path in PAGES for text in blocks(path, "yaml")]
    return [
        pytest.param(text, id=f"{path.stem}-{i}") for i, (path, text) in enumerate(found) if text[:2] != "# "
    ]


@pytest.mark.parametrize("text", config_blocks())
def test_every_part_of_a_config_is_valid(text: str, write: Write) -> None:
    for script in ("train.py", "own_script.py"):
        write(script, (ROOT / "configs/own_script.py").read_text())
    whole = yaml.safe_load(QUADRATIC_CONFIG)
    part = yaml.safe_load(text)
    if "loss" in part:
        del whole["objective"]
    load_spec(write("c.yaml", yaml.safe_dump(whole | part)), at_hand=False)


def pasted(page: str, beginning: str) -> Any:
    [block] = [text for text in blocks(DOCS / f"{page}.md", "yaml") if text.startswith(beginning)]
    return yaml.safe_load(block)


def calls_to_paste() -> list[list[str]]:
    """The calls of bnoise that CI makes: by the action and the hook that we ship, and by what users paste."""
    action = yaml.safe_load((ROOT / ".github/actions/check/action.yml").read_text())
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    runs = [step["run"] for step in action["runs"]["steps"] if "run" in step]
    runs += pasted("check", "# .gitlab-ci")["batch-size"]["script"]
    calls = [run.partition(" > ")[0] for run in runs if run.startswith("bnoise check")]
    return [shlex.split(call) for call in [*calls, f"{hook['entry']} configs/c.yaml"]]


def test_what_ci_calls_runs(bnoise: Call, write: Write) -> None:
    Path("configs").mkdir()
    spec = load_spec(write("configs/c.yaml", QUADRATIC_CONFIG))
    stored = probed(config=spec.resolved(), config_hash=PROBE.hash(spec), doubts=())
    write_json(Path(".bnoise/c.probe.json"), stored.to_json())
    inputs = {"$CONFIGS": ["configs/**/*.yaml"], "$ARGUMENTS": ["--strict"]}
    assert len(calls_to_paste()) == 3
    for call in calls_to_paste():
        code, out, err = bnoise(*(word for given in call[1:] for word in inputs.get(given, [given])))
        assert code == 0, err
        assert "c.yaml" in out


def test_what_users_paste_refers_to_what_we_ship() -> None:
    action = yaml.safe_load((ROOT / ".github/actions/check/action.yml").read_text())
    steps = pasted("check", "# .github/")["jobs"]["check"]["steps"]
    [step] = [step for step in steps if "bnoise" in step["uses"]]
    assert (ROOT / step["uses"].removeprefix("OWNER/bnoise/").partition("@")[0] / "action.yml").exists()
    assert step["with"].keys() <= action["inputs"].keys()
    [named] = re.findall(r"The outputs of the step are (.*?), those", " ".join(page("check").split()))
    assert re.findall(r"`([a-z-]+)`", named) == list(action["outputs"])
    [shipped] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    [hook] = pasted("check", "# .pre-commit")["repos"][0]["hooks"]
    assert hook["id"] == shipped["id"]
    assert all(re.search(files, "configs/c.yaml") for files in (hook["files"], shipped["files"]))


def test_the_action_and_gitlab_install_what_the_check_needs() -> None:
    """`test_the_check_needs_only_what_ci_installs` runs the check with every other package out of reach."""
    action = (ROOT / ".github/actions/check/action.yml").read_text()
    for text in (action, page("check")):
        [named] = re.findall(r"pip install ([a-z ]+) &&", text)
        assert named.split() == ["typer", "rich", "pyyaml", "pydantic"]


def test_torch_has_no_upper_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [requirement for requirement in project["dependencies"] if "<" in requirement]
