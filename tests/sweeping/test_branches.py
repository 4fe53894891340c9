"""Branched training: the largest batch that loses nothing, by its own definition."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bnoise_cli.amounts import EXAMPLES
from bnoise_cli.check.branch_verdict import judge_branches
from bnoise_cli.check.verdict import Verdict
from bnoise_cli.records import BranchRun, Doubt
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


def ends(losses: Mapping[int, Sequence[float | None]]) -> list[BranchRun]:
    return [
        BranchRun(
            batch_size=size, learning_rate=0.1, seed=seed, loss=loss, steps=float(1000 // size),
            examples=1000 // size * size, evaluations=3, seconds=0.1,
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


def test_branches_as_options_and_a_check_of_their_result(bnoise: Call, write: Write) -> None:
    """The config names no branches: the check finds the result by its start, and judges by its losses alone."""
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    call = ["sweep", config, "--branch", "1,2,32", "--examples", "2000", "--set", "sweep.warmup_steps=5"]
    code, out, err = bnoise(*call, "--dry-run")
    assert code == 0, err
    assert "of 2,000 examples each, at batch sizes 32, 64, 1,024" in " ".join(out.split())
    assert "runs" in out
    assert bnoise(*call)[0] in (0, 3)
    data = json.loads(Path(".bnoise/quad.sweep.json").read_text())
    assert data["kind"] == "branch"
    assert [batch["batch_size"] for batch in data["batches"]] == [32, 64, 1024]
    code, out, err = bnoise("check", config, "--set", "sweep.warmup_steps=5", "--batch-size", "16")
    assert code == 0, out + err
    assert "branches of 2,000 examples each lose nothing by a batch of up to" in " ".join(out.split())
    assert "times the fewest" not in out
    assert bnoise("check", config, "--batch-size", "16")[0] == 3, "another start"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--branch", "1,2,4"], "branches need a number of examples"),
        (["--branch", "1,two", "--examples", "100"], "--branch needs two or more ascending whole numbers"),
        (["--branch", "4,2", "--examples", "100"], "--branch needs two or more ascending"),
        (["--examples", "100"], "Add --branch"),
    ],
)
def test_branches_that_are_not_named_well(
    bnoise: Call, write: Write, arguments: list[str], words: str
) -> None:
    code, _, err = bnoise("sweep", str(write("quad.yaml", QUADRATIC_CONFIG)), *arguments)
    assert code == 2
    assert words in err


def branches(losses: Mapping[int, Sequence[float | None]], *doubts: Doubt) -> BranchResult:
    """A result of branches with these losses of their seeds."""
    made = ends(losses)
    shared = {
        field.name: getattr(result(), field.name)
        for field in dataclasses.fields(BranchResult)
        if field.name
        not in ("kind", "critical_batch_size", "doubts", "goal", "runs", "batches", "examples", "start_loss")
    }
    return BranchResult(
        **shared, start_loss=2.0, goal=1.01, examples=2000, batches=branch_outcomes(made), runs=(),
        critical_batch_size=branch_critical(made, 0.01), doubts=doubts,
    )  # fmt: skip


#: By hand: surely within the tolerance up to 16, surely beyond it from 64 on; the line passes it at 32·2^(1/30).
LOSSES: dict[int, list[float | None]] = {
    8: [1.0, 1.0], 16: [1.0, 1.0], 32: [1.009, 1.0091], 64: [1.04, 1.04],
}  # fmt: skip


@pytest.mark.parametrize(
    ("batch_size", "verdict"),
    [
        (4, Verdict.PASS),
        (16, Verdict.PASS),
        (32, Verdict.PASS),
        (48, Verdict.WARN),
        (64, Verdict.FAIL),
        (512, Verdict.FAIL),
    ],
)
def test_a_plan_is_judged_by_the_branches(batch_size: int, verdict: Verdict) -> None:
    found = judge_branches(branches(LOSSES), batch_size, 1, EXAMPLES)
    assert found.verdict is verdict
    assert (found.compute_overhead, found.time_efficiency) == (None, None)
    if verdict is Verdict.FAIL:
        assert found.suggested_batch_size == 32


def test_what_the_branches_do_not_show_is_not_judged() -> None:
    open_ended = branches({8: [1.0, 1.0], 16: [1.0, 1.0]})
    assert judge_branches(open_ended, 16, 1, EXAMPLES).verdict is Verdict.PASS
    assert judge_branches(open_ended, 17, 1, EXAMPLES).verdict is Verdict.CANNOT_TELL
    cold = Doubt(code="at_initialisation", finding="the branches begin at initialisation", remedy="Warm up.")
    assert judge_branches(branches(LOSSES, cold), 8, 1, EXAMPLES).verdict is Verdict.CANNOT_TELL


def test_the_bracket_of_the_branches_is_not_called_an_interval() -> None:
    cases: list[tuple[dict[int, list[float | None]], str]] = [
        (LOSSES, "between the branches of 32 and 64"),
        ({8: [1.0], 16: [1.0]}, "at least 16 examples; no larger branch was trained"),
        ({8: [None], 16: [1.0]}, "cannot tell: the branches of the smallest batch diverged"),
    ]
    for losses, words in cases:
        first = report_sections([("b", branches(losses))])[0]
        assert first.headline is not None
        assert words in first.headline.text
        assert "interval" not in first.headline.text
