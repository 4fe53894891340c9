"""Branched training: the largest batch that loses nothing, by its own definition."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bnoise_cli.measurement.outcome import BranchEnd
from bnoise_cli.report.document import Sentence
from bnoise_cli.report.sections import report_sections
from bnoise_cli.results.branch import BranchResult, branch_critical, branch_outcomes
from bnoise_cli.results.stored import checked_result
from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.samples import result

BRANCH = """\
sweep:
  warmup_steps: 5
  seeds: 2
  branch: {multiples: [1, 2, 4, 8, 16, 32], examples: 2000, tolerance: 0.01}
"""


def ends(losses: dict[int, list[float | None]]) -> list[BranchEnd]:
    return [
        BranchEnd(
            batch_size=size, learning_rate=0.1, seed=seed, loss=loss, taken=1000 // size, evaluations=3, seconds=0.1
        )
        for size, seeds in losses.items()
        for seed, loss in enumerate(seeds)
    ]  # fmt: skip


def test_the_crossing_lies_between_the_last_within_and_the_first_beyond() -> None:
    found = branch_critical(ends({8: [1.0], 16: [1.005], 32: [1.008], 64: [1.02], 128: [1.5]}), 0.01)
    assert (found.low, found.high) == (32, 64)  # one seed knows no spread: the two neighbours
    assert found.value == pytest.approx(32 * 2 ** (0.002 / 0.012))
    assert "at most 0.01 above that of the smallest" in found.definition
    assert "2505.23971" in found.definition


def test_the_spread_of_the_seeds_widens_the_limits() -> None:
    noisy = {8: [0.9, 1.1], 16: [0.95, 1.06], 32: [0.93, 1.09], 64: [1.3, 1.5], 128: [3.0, 3.2]}
    found = branch_critical(ends({size: list(seeds) for size, seeds in noisy.items()}), 0.01)
    assert found.low == 8
    assert found.high in (64, 128)
    assert found.value is not None
    assert found.low <= found.value <= found.high


def test_no_branch_beyond_is_an_open_interval_and_a_diverged_one_is_beyond() -> None:
    found = branch_critical(ends({8: [1.0], 16: [1.0], 32: [1.001]}), 0.01)
    assert (found.value, found.low, found.high) == (None, 32, None)
    found = branch_critical(ends({8: [1.0], 16: [1.0], 32: [None]}), 0.01)
    assert (found.value, found.low, found.high) == (32, 16, 32)
    assert branch_critical(ends({8: [None], 16: [1.0]}), 0.01).value is None
    assert [outcome.loss for outcome in branch_outcomes(ends({8: [1.0, 3.0], 16: [1.0, None]}))] == [
        2.0,
        None,
    ]


def test_branches_are_trained_kept_and_reported(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG + BRANCH))
    code, out, err = bnoise("sweep", config)
    assert code in (0, 3), err
    assert "Here critical means the largest batch whose branch" in out
    data = json.loads(Path(".bnoise/quad.sweep.json").read_text())
    assert [batch["batch_size"] for batch in data["batches"]] == [32, 64, 128, 256, 512, 1024]
    assert len(data["runs"]) == 12
    assert data["kind"] == "branch"
    for batch in data["batches"]:
        assert batch["steps"] == math.ceil(2000 / batch["batch_size"])
        assert batch["learning_rate"] == pytest.approx(0.01 * batch["batch_size"] / 32)
    assert data["recommendation"] is None
    assert data["tradeoff"] == [], "another meaning of critical has another trade-off"
    before = Path(".bnoise/quad.sweep.runs.jsonl").read_text()
    code, again, err = bnoise("sweep", config)
    assert "Going on with 12 entries" in err
    assert Path(".bnoise/quad.sweep.runs.jsonl").read_text() == before
    assert again.splitlines()[:8] == out.splitlines()[:8]
    code, _, err = bnoise("report", ".bnoise/quad.sweep.json", "--page", "p.html", "--plot", "p.png")
    assert code == 0, err
    assert Path("p.png").stat().st_size > 5000


def test_branches_that_an_older_version_stored_as_a_sweep_are_read() -> None:
    nothing = {"value": None, "low": 0.0, "high": None, "confidence": 0.95}
    run = {
        "batch_size": 8, "learning_rate": 0.1, "seed": 0, "steps": 250.0, "examples": 2000, "evaluations": 3,
        "seconds": 0.1, "reached": True, "outcome": "branch", "lowest_loss": 1.2,
    }  # fmt: skip
    batch = {
        "batch_size": 8, "learning_rate": 0.1, "steps": 250.0, "steps_limits": None, "examples": 2000.0, "fitted": None,
        "predicted": None, "loss": 1.2, "loss_limits": {"low": 1.1, "high": 1.3},
    }  # fmt: skip
    stored = {
        **result().to_json(), "kind": "sweep", "goal": 1.21, "start_loss": 2.0, "min_steps": nothing,
        "min_examples": nothing, "batches": [batch], "scatter": None, "predicted": None, "runs": [run],
        "critical_batch_size": {**nothing, "basis": "sweep", "definition": "their own"},
    }  # fmt: skip
    stored["config"]["sweep"] = {"branch": {"examples": 2000, "multiples": [1, 2], "tolerance": 0.01}}
    found = checked_result(Path("old.json"), stored)
    assert isinstance(found, BranchResult)
    assert (found.examples, found.goal, found.runs[0].loss, found.batches[0].loss) == (2000, 1.21, 1.2, 1.2)
    text = [part.text for part in report_sections([("old", found)])[0].parts if isinstance(part, Sentence)]
    assert text[1].startswith("Branches of 2,000 examples each, from a loss of 2")
    assert checked_result(Path("new.json"), json.loads(json.dumps(found.to_json()))) == found


def test_branches_larger_than_the_dataset_are_refused(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG + BRANCH))
    code, _, err = bnoise("sweep", config, "--set", "sweep.branch.multiples=[1, 1000]")
    assert code == 2
    assert "`sweep.branch.multiples` asks for 32000" in err
