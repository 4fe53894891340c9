"""Every registered export is an option of the commands that have a result, and is checked before a measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bnoise_cli.cli.app import app
from bnoise_cli.cli.exports import EXPORTS, Outputs
from bnoise_cli.errors import CallError, RunError
from bnoise_cli.report.export.as_json import JSON
from bnoise_cli.report.export.emit import EMIT, Framework
from bnoise_cli.report.export.export import Export
from bnoise_cli.report.export.page import PAGE
from bnoise_cli.report.export.plot import PLOT
from bnoise_cli.report.export.trackers import LOG_TO, Tracker
from bnoise_cli.results.result import Result
from tests.samples import ADVISED


@pytest.mark.parametrize("command", ["probe", "sweep", "report"])
@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.option)
def test_every_export_is_an_option(command: str, export: Export[object]) -> None:
    helped = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert export.option in helped
    assert export.help in helped
    for choice in getattr(export.type, "__members__", {}).values():
        assert choice in helped


def test_two_exports_cannot_both_print() -> None:
    with pytest.raises(CallError, match="--emit and --json both print"):
        Outputs({EMIT: Framework.HF, JSON: True}).require()


def test_one_recommendation_is_emitted() -> None:
    Outputs({EMIT: Framework.HF}).require()
    with pytest.raises(CallError, match="found 2 results"):
        Outputs({EMIT: Framework.HF}).require(results=2)


def test_a_page_links_to_the_picture_of_the_same_call_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture, page = Path("p.png"), Path("p.md")
    made, failed = Outputs({PLOT: picture, PAGE: page}).write([("r", ADVISED)])
    assert (len(made), failed) == (2, [])
    assert "(<p.png>)" in page.read_text()
    Outputs({PAGE: page}).write([("r", ADVISED)])
    assert "p.png" not in page.read_text()


def test_a_failed_export_leaves_the_others_and_the_other_results(monkeypatch: pytest.MonkeyPatch) -> None:
    def log(results: Sequence[tuple[str, Result]], tracker: Tracker, written: object) -> str:
        [(name, _)] = results
        if name == "b":
            raise RunError("no server.")
        return f"Logged {name}."

    failing = dataclasses.replace(LOG_TO, write=log)
    results = [(name, ADVISED) for name in "abc"]
    made, failed = Outputs({failing: Tracker.WANDB}).write(results)
    assert made == ["Logged a.", "Logged c."]
    assert failed == ["No log: no server."]
