"""The sweep: its command, its goal and range, and every reason for doubt."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bnoise_cli.errors import RunError
from bnoise_cli.ledger import Ledger
from bnoise_cli.measurement.outcome import SweepProgress, SweepRun
from bnoise_cli.measurement.sweeping.dry_run import plan_sweep
from bnoise_cli.measurement.sweeping.sweep import SweepSession
from bnoise_cli.measurement.training.stacking import stacking_pays
from bnoise_cli.records import Estimate
from bnoise_cli.results.branch import BranchOutcome, branch_doubts
from bnoise_cli.results.sweep import sweep_result
from bnoise_cli.spec.identity import ledger_hash
from bnoise_cli.spec.load import Spec, load_spec
from bnoise_cli.spec.schema import Sweep
from bnoise_cli.spec.user_files import user_module
from tests.cases import CPU, QUADRATIC_CONFIG, TINY_SWEEP, Call, Write, user_code
from tests.samples import CONFIG, GOOD_STEPS, HORIZON, along_a_run, sweep_run
from tests.sweeps import decide_stacks, entries, finished, silent, stop_at, swept, without_times


@pytest.mark.full
@pytest.mark.parametrize(("name", "options"), [
    ("Branching", "dimension: 32, decay: 0.5, noise_decay: 0.5, noise_scale: 1.0"),
    ("Masked", "dimension: 32, decay: 0.5, noise_decay: 0.5, noise_scale: 1.0"),
    ("Normed", "dimension: 32"),
])  # fmt: skip
def test_a_model_that_cannot_be_stacked_is_swept_one_by_one(write: Write, name: str, options: str) -> None:
    sys.modules.pop(user_module(Path("user.py")), None)
    write("user.py", user_code("refusing"))
    write("q.yaml", TINY_SWEEP)
    settings = [f"model={{_target_: user.py:{name}, {options}}}", "sweep.goal=0.6"]
    spec = load_spec(Path("q.yaml"), settings)
    session = SweepSession(spec, CPU, Ledger(Path("runs.jsonl"), ledger_hash(spec)))
    assert not stacking_pays(session.shared.runner, 8, 3, lambda: session.shared.draws(0))
    run = session.run(silent)
    assert run.complete
    assert all(rate is not None for rate in run.chosen.values())
    lines = [json.loads(line) for line in Path("runs.jsonl").read_text().splitlines()]
    assert [line["value"] for line in lines if line.get("kind") == "stacks"] == [False] * 3
    assert all(len(line["runs"]) == 1 for line in lines if line.get("kind") == "runs")


@pytest.mark.full
def test_a_changed_config_starts_anew_and_says_so(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    bnoise("sweep", config, "--quiet")
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    before = ledger.read_bytes()
    code, _, err = bnoise("sweep", config, "--set", "sweep.goal=0.8")
    assert code in (0, 3), err
    folder = ledger.parent.absolute() / "history"
    assert f"The config has changed: starting anew. Earlier runs are kept in {folder}." in err
    [aside] = folder.glob("q.sweep.runs.*.jsonl")
    assert aside.read_bytes() == before
    assert ledger.read_bytes() != before


def test_a_ledger_that_cannot_be_written_ends_the_sweep_and_keeps_the_result(
    write: Write, bnoise: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the n-th entry on: what was finished is in the result, the last run included."""
    config = str(write("q.yaml", TINY_SWEEP))
    opened, real = [0], Path.open

    def full(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if path.name.endswith(".runs.jsonl") and "a" in mode:
            opened[0] += 1
            if opened[0] > 12:
                raise OSError(28, "No space left on device")
        return real(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    code, out, err = bnoise("sweep", config, "--json")
    assert code == 4
    assert "No space left on device" in err
    assert "Traceback" not in err
    data = json.loads(out)
    assert json.loads(Path(".bnoise/q.sweep.json").read_text()) == data
    assert data["doubts"][0]["code"] == "failed"
    assert len(data["runs"]) >= len(finished(Path(".bnoise/q.sweep.runs.jsonl"))) > 0
    monkeypatch.undo()


def test_a_full_disk_prints_the_result(write: Write, bnoise: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(write("q.yaml", TINY_SWEEP))

    calls, real = [0], os.fsync

    def full(file: int) -> None:
        calls[0] += 1
        if calls[0] > 12:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr("os.fsync", full)
    code, out, err = bnoise("sweep", config)
    assert code == 4
    assert "No space left on device" in err
    data = json.loads(out)
    assert data["kind"] == "sweep"
    assert data["runs"]
    assert not Path(".bnoise/q.sweep.json").exists()


def test_no_room_for_copies_of_the_parameters_keeps_what_is_known(write: Write) -> None:
    write("q.yaml", TINY_SWEEP)
    spec, full = load_spec(Path("q.yaml")), torch.OutOfMemoryError("tried to allocate")

    def at_the_third(progress: SweepProgress) -> None:
        if progress.sizes_done == 2:
            raise full

    run = swept(spec, Path("runs.jsonl"), at_the_third)
    assert str(run.failure).startswith("out of memory while sweeping. Free memory on the device")
    assert not run.complete
    assert len(run.chosen) == 2
    with pytest.raises(RunError, match="out of memory while sweeping"):
        swept(spec, Path("other.jsonl"), stop_at("training", full))


def test_the_budget_ends_a_sweep_with_what_is_known(write: Write, bnoise: Call) -> None:
    """Runs of 10⁵ steps that fall slowly and never arrive take far longer than a second."""
    slow = [
        "--set",
        "sweep.max_steps=100000",
        "--set",
        "sweep.goal=-1",
        "--set",
        "optimizer.lr=1e-5",
        "--quiet",
    ]
    config = str(write("q.yaml", TINY_SWEEP))
    code, out, err = bnoise("sweep", config, "--budget", "1s", *slow)
    assert code == 4
    assert out == ""
    assert "the budget of 1 s was spent before another run or probe was finished. Raise --budget." in err


def test_a_sweep_prints_stores_and_repeats(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    decide_stacks(Path(".bnoise/q.sweep.runs.jsonl"), load_spec(Path(config)), [2, 8, 32])
    code, out, err = bnoise("sweep", config, "--plot", "p.svg", "--page", "p.html")
    assert code in (0, 3), err
    assert out.startswith("Verdict  ")
    assert "The result is in .bnoise/q.sweep.json. The picture is in p.svg. The page is in p.html." in err
    stored = json.loads(Path(".bnoise/q.sweep.json").read_text())
    assert (stored["schema_version"], stored["kind"]) == (1, "sweep")
    assert stored["critical_batch_size"]["basis"] == "sweep"
    assert [batch["batch_size"] for batch in stored["batches"]] == [2, 8, 32]
    assert stored["goal"] == 0.4
    decide_stacks(Path("again.runs.jsonl"), load_spec(Path(config)), [2, 8, 32])
    code, out, err = bnoise("sweep", config, "--out", "again.json", "--json")
    assert code in (0, 3)
    assert without_times(out) == without_times(json.dumps(stored))
    assert "Traceback" not in err


def test_json_is_alone_on_stdout(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    code, out, err = bnoise("sweep", config, "--json")
    assert code in (0, 3)
    assert err == ""
    assert json.loads(out) == json.loads(Path(".bnoise/q.sweep.json").read_text())


def test_what_the_result_says_of_its_runs_agrees_with_them(write: Write) -> None:
    """Geometric means, the examples spent and the best rates follow from the list of runs."""
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"))
    run = swept(spec, Path("runs.jsonl"))
    result = sweep_result(run, spec)
    assert run.horizon is not None
    probed = sum(part["gradient_examples"] for part in (*run.trajectory, run.horizon))
    assert result.cost.gradient_examples == sum(r.examples for r in result.runs) + probed
    for batch in result.batches:
        assert batch.steps is not None
        assert batch.steps_limits is not None
        own = [
            r
            for r in result.runs
            if (r.batch_size, r.learning_rate) == (batch.batch_size, batch.learning_rate)
        ]
        steps = list({r.seed: r.steps for r in own if r.steps is not None}.values())
        assert len(steps) == 2
        assert batch.steps == pytest.approx(math.prod(steps) ** 0.5)
        assert batch.examples == pytest.approx(batch.batch_size * batch.steps)
        assert (batch.steps_limits.low, batch.steps_limits.high) == (min(steps), max(steps))
        tried = {r.learning_rate for r in result.runs if r.batch_size == batch.batch_size}
        assert batch.learning_rate is not None
        assert min(tried) < batch.learning_rate < max(tried), "the best rate lies inside"
    assert all(r.reached == (r.outcome == "reached") == (r.steps is not None) for r in result.runs)


def test_a_dry_run_measures_nothing(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    code, out, err = bnoise("sweep", config, "--dry-run")
    assert code == 0, err
    assert "2, 8, 32" in out.replace("\n", " ")
    assert not Path(".bnoise/q.sweep.json").exists()
    assert not list(Path(".bnoise").rglob("*.jsonl"))
    plan = json.loads(bnoise("sweep", config, "--dry-run", "--json")[1])
    assert plan["batch_sizes"] == [2, 8, 32]
    assert plan["goal"] == 0.4
    assert plan["evaluation_examples"] == 256
    assert plan["seconds"] > 0
    assert (
        json.loads(bnoise("sweep", config, "--dry-run", "--json", "--set", "sweep.goal=auto")[1])["goal"]
        is None
    )


def test_a_dry_run_looks_for_the_steps_at_the_best_rate(write: Write) -> None:
    """From a planned rate 16 times too low as from the right one, to within the factor of two of the search."""
    write("q.yaml", TINY_SWEEP)
    steps = []
    for rate in (0.5, 0.5 / 16):
        spec = load_spec(Path("q.yaml"), [f"optimizer.lr={rate}"])
        plan = plan_sweep(SweepSession(spec, CPU, Ledger(Path("runs.jsonl"), ledger_hash(spec))))
        assert plan.arrived
        steps.append(plan.steps)
    assert steps[1] <= 2 * steps[0]


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (["sweep.goal=1000"], 2, "the goal must lie below the loss at the start"),
        (["sweep.goal=.nan"], 2, "found `.nan` as float; expected a finite number"),
        (["sweep.goal=.inf"], 2, "expected auto or a finite number"),
        (["sweep.goal=soon"], 2, "expected auto or a number"),
        (["sweep.batch_sizes=[8]"], 2, "three batch sizes or more"),
        (["sweep.batch_sizes=[8, 16]"], 2, "three batch sizes or more"),
        (["sweep.batch_sizes=[8, 8, 16]"], 2, "ascending, distinct numbers"),
        (["sweep.batch_sizes=[16, 8, 4]"], 2, "ascending, distinct numbers"),
        (["sweep.batch_sizes=[0, 8, 16]"], 2, "greater than 0"),
        (["sweep.batch_sizes=[2, 8, 1000]"], 2, "the dataset's 256 examples; `sweep.batch_sizes` asks for 1000"),
        (["training.batch_size=1000"], 2, "the dataset's 256 examples; `training.batch_size` asks for 1000"),
        (["sweep.seeds=0"], 2, "greater than 0"),
        (["sweep.max_steps=0"], 2, "greater than 0"),
        (["sweep.budget=0s"], 2, "a time of at least 1s"),
        (["sweep.batchsizes=[1, 2, 3]"], 2, "did you mean `batch_sizes`?"),
        (["optimizer.lr=0.0"], 2, "a positive `lr`"),
        (["sweep.goal=auto", "optimizer.lr=1e9"], 4, "the planned batch size diverges within"),
        pytest.param(
            ["sweep.goal=auto", "optimizer.lr=1e-12"], 2, "At no learning rate does the planned batch",
            marks=pytest.mark.full,
        ),
        (["sweep.warmup_steps=50", "optimizer.lr=500"], 4, "warm-up training, step"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_message_with_its_exit_code(
    write: Write, bnoise: Call, settings: list[str], code: int, words: str
) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    found, out, err = bnoise("sweep", config, *(part for s in settings for part in ("--set", s)))
    assert found == code, err
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""
    assert not Path(".bnoise/q.sweep.json").exists()


def test_a_goal_that_no_run_reaches_says_what_was_reached(write: Write, bnoise: Call) -> None:
    """The loss over the whole dataset is ½θᵀHθ, never below zero."""
    config = str(write("q.yaml", TINY_SWEEP))
    code, out, err = bnoise("sweep", config, "--set", "sweep.goal=-1.0", "--set", "sweep.max_steps=40")
    assert code == 3, err
    assert "Traceback" not in err
    data = json.loads(Path(".bnoise/q.sweep.json").read_text())
    [missed] = [doubt for doubt in data["doubts"] if doubt["code"] == "goal_not_reached"]
    lowest = min(run["lowest_loss"] for run in data["runs"])
    assert 0 < lowest < 1
    told = re.search(r"at batch size 2, 8, 32; the lowest was (\S+)", missed["finding"])
    assert told is not None
    assert float(told[1]) == pytest.approx(lowest, rel=0.01)
    assert missed["finding"] in " ".join(out.split())
    assert [batch["steps"] for batch in data["batches"]] == [None] * 3
    assert data["critical_batch_size"]["value"] is None


@pytest.mark.full
def test_the_auto_goal_is_what_the_planned_batch_reaches_at_its_best_rate(write: Write) -> None:
    """From a planned rate 16 times too low the goal takes about `sweep.steps` at the best rate, not a part of them.

    Two seeds scatter, and the goal is the lowest of noisy losses: 40% are allowed.
    """
    write("q.yaml", TINY_SWEEP)
    given = ["sweep.goal=auto", "sweep.steps=20", "training.batch_size=8", "optimizer.lr=0.0125"]
    spec = load_spec(Path("q.yaml"), given)
    run = swept(spec, Path("runs.jsonl"))
    assert 0 < run.goal < run.start_loss
    [at_plan] = [batch for batch in sweep_result(run, spec).batches if batch.batch_size == 8]
    assert at_plan.steps == pytest.approx(20, rel=0.4)


@pytest.mark.full
def test_the_search_of_the_auto_goal_goes_on_where_it_stopped(write: Write) -> None:
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"), ["sweep.goal=auto", "sweep.steps=10", "training.batch_size=8"])
    ledger = Path("runs.jsonl")
    with pytest.raises(KeyboardInterrupt):
        swept(spec, ledger, stop_at("goal", KeyboardInterrupt(), after=20))
    [kept] = [entry for entry in entries(ledger) if entry["kind"] == "goal at"]
    swept(spec, ledger)
    points = [entry["which"]["point"] for entry in entries(ledger) if entry["kind"] == "goal at"]
    assert points[0] == kept["which"]["point"]
    assert len(points) == len(set(points)) >= 3


def test_a_horizon_that_fails_costs_a_sweep_nothing(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = dataclasses.replace(HORIZON, levels=(), failure=RunError("no batch of one."))
    monkeypatch.setattr("bnoise_cli.measurement.sweeping.sweep.measure_horizon", lambda *_, **__: failed)
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"))
    run = swept(spec, Path("runs.jsonl"))
    assert run.complete
    assert run.failure is None
    assert sweep_result(run, spec).predicted_by_horizon is None


def test_the_range_is_found_around_the_critical_batch_size(write: Write) -> None:
    """From a plan of 128, which is far above it, down to where two batch sizes or more lie on either side."""
    write("q.yaml", TINY_SWEEP.replace("[2, 8, 32]", "auto"))
    spec = load_spec(Path("q.yaml"))
    result = sweep_result(swept(spec, Path("runs.jsonl")), spec)
    critical = result.critical_batch_size.value
    assert critical is not None
    sizes = [batch.batch_size for batch in result.batches]
    assert all(math.log2(128 / size).is_integer() for size in sizes)
    assert sum(size < critical for size in sizes) >= 2
    assert sum(size > critical for size in sizes) >= 2
    assert "one_sided" not in [doubt.code for doubt in result.doubts]


def test_a_report_says_the_same_again_and_compares_with_a_probe(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    _, first, _ = bnoise("sweep", config, "--verbose")
    stored = ".bnoise/q.sweep.json"
    before = Path(stored).read_bytes()
    assert bnoise("report", stored) == (0, first, "")
    assert json.loads(bnoise("report", stored, "--json")[1]) == json.loads(before)
    code, _, err = bnoise("report", stored, "--plot", "p.png", "--page", "p.md")
    assert code == 0, err
    assert Path("p.png").stat().st_size > 1000
    assert "![" in Path("p.md").read_text()
    probe = str(write("p.yaml", QUADRATIC_CONFIG))
    assert bnoise("probe", probe, "--quiet")[0] == 0
    code, out, err = bnoise(
        "report", ".bnoise/p.probe.json", stored, "--page", "both.html", "--plot", "both.svg"
    )
    assert code == 0, err
    assert re.search(r"^\s*p\s.*\bprobe\b", out, flags=re.MULTILINE)
    assert re.search(r"^\s*q\s.*\bsweep\b", out, flags=re.MULTILINE)
    assert Path("both.html").stat().st_size > 1000
    assert Path("both.svg").stat().st_size > 1000
    assert Path(stored).read_bytes() == before


@pytest.fixture
def spec(write: Write) -> Spec:
    return load_spec(write("q.yaml", TINY_SWEEP))


@pytest.mark.parametrize("damage", [
    {"batches": [{}]}, {"runs": 3}, {"goal": "low"}, {"predicted": {"ratio": 1}}, {"min_steps": {"value": -1.0}},
    {"critical_batch_size": {"value": -3.0, "low": 1.0, "high": 2.0, "basis": "sweep"}},
])  # fmt: skip
def test_a_damaged_result_is_one_message(
    write: Write, bnoise: Call, spec: Spec, damage: dict[str, Any]
) -> None:
    data = sweep_result(sweep_run(GOOD_STEPS), spec).to_json()
    write("d.json", json.dumps({**data, **damage}))
    code, out, err = bnoise("report", "d.json")
    assert (code, out) == (2, "")
    assert "d.json is damaged" in err
    assert "Traceback" not in err


def codes(run: SweepRun, spec: Spec) -> list[str]:
    return [doubt.code for doubt in sweep_result(run, spec).doubts]


def test_a_good_sweep_leaves_no_doubt(spec: Spec) -> None:
    result = sweep_result(sweep_run(GOOD_STEPS), spec)
    assert result.doubts == ()
    assert result.critical_batch_size.value == pytest.approx(20, rel=0.01)
    assert result.predicted is not None
    assert result.predicted.critical_batch_size.value == pytest.approx(20)
    assert result.predicted.ratio == pytest.approx(1, rel=0.01)
    for batch in result.batches:
        assert batch.predicted == pytest.approx(batch.steps, rel=0.01)


def scattered(by: float) -> dict[int, float]:
    return {size: steps * math.exp(by * (-1) ** i) for i, (size, steps) in enumerate(GOOD_STEPS.items())}


@pytest.mark.parametrize(
    ("expected", "run"),
    [
        (["failed"], sweep_run(GOOD_STEPS, failure=RunError("the disk fell out."), complete=False)),
        (["interrupted"], sweep_run(GOOD_STEPS, interrupted=True, complete=False)),
        (["budget"], sweep_run(GOOD_STEPS, complete=False)),
        (["goal_not_reached"], sweep_run({**GOOD_STEPS, 160: None})),
        (["unresolved", "no_prediction"], sweep_run({5: 500.0, 10: 300.0}, trajectory=())),
        (["goal_near"], sweep_run({size: steps / 10 for size, steps in GOOD_STEPS.items()})),
        (["one_sided"], sweep_run({size: 100 * (1 + 20 / size) for size in (10, 40, 80, 160)})),
        (["one_sided"], sweep_run({size: 100 * (1 + 20 / size) for size in (1, 2, 5, 10, 40)})),
        (["no_prediction"], sweep_run(GOOD_STEPS, trajectory=along_a_run(None))),
        (["prediction"], sweep_run(GOOD_STEPS, trajectory=along_a_run(50.0))),
        (["prediction"], sweep_run(GOOD_STEPS, trajectory=along_a_run(8.0))),
    ],
)  # fmt: skip
def test_every_doubt_about_a_sweep_can_be_reached(expected: list[str], run: SweepRun, spec: Spec) -> None:
    doubts = sweep_result(run, spec).doubts
    assert [doubt.code for doubt in doubts] == expected
    assert all(doubt.finding and doubt.remedy.endswith(".") for doubt in doubts)


def test_doubts_that_come_with_others(spec: Spec) -> None:
    """Steps that jump off the law are imprecise as well, and a rise is a scatter."""
    assert "law" in codes(sweep_run(scattered(0.3)), spec)
    assert "imprecise" in codes(sweep_run(scattered(0.3)), spec)
    rising = sweep_run({**GOOD_STEPS, 80: 1.2 * GOOD_STEPS[40]})
    assert "not_monotone" in codes(rising, spec)
    finding = next(d.finding for d in sweep_result(rising, spec).doubts if d.code == "not_monotone")
    assert "from batch size 40 to 80" in finding


def test_one_seed_is_a_doubt(write: Write) -> None:
    spec = load_spec(write("q.yaml", TINY_SWEEP), ["sweep.seeds=1"])
    assert codes(sweep_run(GOOD_STEPS), spec) == ["one_seed"]


def test_the_batch_size_of_a_budget_is_counted_and_a_failure_named(spec: Spec) -> None:
    [budget] = sweep_result(sweep_run(GOOD_STEPS, complete=False), spec).doubts
    assert budget.finding == "the budget was spent after 5 batch sizes"
    failed = sweep_run(GOOD_STEPS, complete=False, failure=RunError("the disk fell out."))
    assert sweep_result(failed, spec).doubts[0].finding == "the sweep ended early: the disk fell out"


def test_a_sweep_that_ended_before_its_first_batch_size_is_a_result(spec: Spec) -> None:
    run = sweep_run({5: 500.0}, chosen={}, complete=False, interrupted=True, trajectory=())
    result = sweep_result(run, spec)
    assert [doubt.code for doubt in result.doubts] == ["interrupted", "unresolved"]
    assert result.batches == ()
    assert not result.resolved
    assert len(result.runs) == 3


def test_every_doubt_about_branches_can_be_reached() -> None:
    """The plan starts at initialisation with one seed; the last branch has diverged."""
    config = CONFIG.model_copy(update={"sweep": Sweep(seeds=1)})
    batches = [
        BranchOutcome(batch_size=size, learning_rate=0.1, steps=10.0, examples=10.0 * size, loss=loss, loss_limits=None)
        for size, loss in ((8, 1.0), (16, 1.0), (32, None))
    ]  # fmt: skip
    unknown = Estimate(value=None, low=16.0, high=None)
    doubts = branch_doubts(sweep_run({}, interrupted=True, complete=False), unknown, batches, config)
    assert [doubt.code for doubt in doubts] == [
        "interrupted", "branch_diverged", "unresolved", "one_seed", "at_initialisation"
    ]  # fmt: skip
    assert all(doubt.finding and doubt.remedy.endswith(".") for doubt in doubts)
    from_checkpoint = CONFIG.model_copy(update={"checkpoint": "w.pt"})
    known = Estimate(value=16.0, low=10.0, high=20.0)
    assert branch_doubts(sweep_run({}), known, batches[:2], from_checkpoint) == ()
