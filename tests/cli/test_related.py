"""Results of one config know each other: a report finds them, names the others, and lists what was before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from bnoise_cli.records import CriticalBatchSize
from bnoise_cli.result_file import ResultFile
from bnoise_cli.results.horizon import horizon_record
from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.samples import HORIZON, result, store


def critical(value: float) -> CriticalBatchSize:
    return CriticalBatchSize(value=value, low=0.9 * value, high=1.1 * value, basis="horizon")


@pytest.fixture
def both(write: Write) -> str:
    """A config with a stored probe and a stored sweep."""
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    store(config, critical_batch_size=critical(35.0), horizon=horizon_record(HORIZON))
    store(config, kind="sweep", critical_batch_size=critical(42.0))
    return config


def told(bnoise: Call, *arguments: str) -> str:
    code, out, err = bnoise(*arguments)
    assert code == 0, err
    return " ".join(out.split())


def test_a_probe_names_the_sweep_of_its_task_and_a_sweep_the_probe(bnoise: Call, both: str) -> None:
    probe = told(bnoise, "report", ".bnoise/quad.probe.json")
    assert (
        "A sweep in .bnoise/quad.sweep.json found 42.0 examples (95% interval 37.8 to 46.2): it trains to a loss of "
        "0.500 from the start; this probe looks 32 steps of a large batch ahead after 100 steps of training."
    ) in probe
    sweep = told(bnoise, "report", ".bnoise/quad.sweep.json")
    assert "A probe in .bnoise/quad.probe.json found 35.0 examples" in sweep
    code, out, err = bnoise("probe", both)
    assert code in (0, 3), err
    assert "A sweep in .bnoise/quad.sweep.json found 42.0 examples" in " ".join(out.split())


def test_what_two_results_share_is_no_reason_why_they_differ(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG + "sweep: {warmup_steps: 100}\n"))
    store(config, critical_batch_size=critical(35.0), horizon=horizon_record(HORIZON))
    store(config, kind="sweep", critical_batch_size=critical(42.0))
    assert ("it trains to a loss of 0.500; this probe looks 32 steps of a large batch ahead.") in told(
        bnoise, "report", ".bnoise/quad.probe.json"
    )


def test_a_result_of_another_task_is_not_named(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    store(config, horizon=horizon_record(HORIZON))
    other = str(write("other.yaml", QUADRATIC_CONFIG.replace("dimension: 16", "dimension: 8")))
    store(other, ".bnoise/quad.sweep.json", kind="sweep")
    assert "A sweep in" not in told(bnoise, "report", ".bnoise/quad.probe.json")


def test_a_report_finds_the_results_of_a_config_and_compares_them(bnoise: Call, both: str) -> None:
    text = told(bnoise, "report", both)
    assert "finds 1.20 times the critical batch size of" in text
    assert "the intervals overlap" in text
    Path(".bnoise/quad.sweep.json").unlink()
    assert told(bnoise, "report", both) == told(bnoise, "report", ".bnoise/quad.probe.json")
    Path(".bnoise/quad.probe.json").unlink()
    code, _, err = bnoise("report", both)
    assert code == 2
    assert "found neither .bnoise/quad.probe.json nor .bnoise/quad.sweep.json" in err
    assert "bnoise probe quad.yaml" in err


def test_results_beside_the_config_are_found_from_elsewhere(
    bnoise: Call, both: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert "1.20 times" in told(bnoise, "report", f"../{both}")


def test_the_history_lists_what_gave_way(bnoise: Call, write: Write) -> None:
    write("quad.yaml", QUADRATIC_CONFIG)
    file = Path(".bnoise/quad.probe.json")
    for year, value in ((2024, 35.0), (2025, 50.0), (2026, 42.0)):
        made = dataclasses.replace(result().provenance, time=f"{year}-01-01T10:00:00+00:00")
        ResultFile(file).store(
            dataclasses.replace(result(), provenance=made, critical_batch_size=critical(value)).to_json()
        )
    text = told(bnoise, "report", "quad.yaml", "--history")
    places = [text.index(words) for words in ("2026-01-01 10:00:00", "2025-01-01", "2024-01-01")]
    assert places == sorted(places)
    assert "50.0 (45.0 to 55.0)" in text
    assert ".bnoise/history/quad.probe." in text
    assert len(json.loads(bnoise("report", "quad.yaml", "--history", "--json")[1])) == 3


def test_an_earlier_result_that_cannot_be_read_hides_no_other(bnoise: Call, both: str, write: Write) -> None:
    Path(".bnoise/history").mkdir()
    write(".bnoise/history/quad.probe.20260101T000000Z.json", "{")
    code, out, err = bnoise("report", both, "--history")
    assert code == 0
    assert ".bnoise/quad.probe.json" in out
    assert (
        "left out of the history: a result is needed; .bnoise/history/quad.probe.20260101T000000Z.json" in err
    )
