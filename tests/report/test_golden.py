"""Whole outputs, made from results that are written down; `pytest --golden` rewrites the files in tests/golden/."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from bnoise_cli.advice.advise import advise
from bnoise_cli.measurement.outcome import DryRun
from bnoise_cli.records import CriticalBatchSize, Estimate, NoiseScale, TrajectoryPoint
from bnoise_cli.report.document import Section
from bnoise_cli.report.sections import report_sections
from bnoise_cli.report.terminal import layout, render
from bnoise_cli.report.words.dry_run import dry_run_sections
from bnoise_cli.results.branch import branch_result
from bnoise_cli.results.probe import ProbeResult
from bnoise_cli.results.result import Result
from bnoise_cli.results.schedule import scheduled
from bnoise_cli.results.sweep import sweep_result
from bnoise_cli.spec.load import load_spec
from tests.cases import QUADRATIC_CONFIG, TINY_SWEEP, Write
from tests.samples import BRANCHES, GOOD, GOOD_STEPS, OPEN, plan, result, sweep_run, together

Golden = Callable[[str, str], None]
WIDTH = 100
RULE = f"\n{'=' * WIDTH}\n\n"


def printed(sections: list[Section]) -> str:
    text = render(layout(sections, WIDTH), width=WIDTH, color=False, encoding="utf-8")
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    return text


def report(*results: Result, chart: bool = False) -> str:
    named = [(f"r{i}", one) for i, one in enumerate(results)]
    return printed(report_sections(named, drawing_width=WIDTH if chart else None))


def in_tokens(found: ProbeResult) -> ProbeResult:
    """The same result of a config that asks for tokens, advised anew."""
    training = {**found.config["training"], "tokens_per_example": 1024.0}
    return advise(dataclasses.replace(found, config={**found.config, "unit": "tokens", "training": training}))


def along_a_training(found: ProbeResult) -> ProbeResult:
    """The same result, probed at three steps of training, advised anew."""
    points = tuple(
        TrajectoryPoint(step=step, loss=loss, noise_scale=scale, simple_noise_scale=GOOD)
        for step, loss, scale in (
            (0, 2.3, Estimate(value=50.0, low=40.0, high=62.0)),
            (50, 1.5, Estimate(value=400.0, low=320.0, high=500.0)),
            (400, 0.9, Estimate(value=2000.0, low=1600.0, high=2500.0)),
        )
    )
    trajectory, schedule = scheduled(points, 64)
    assert schedule is not None
    rate = schedule.exchange_rate
    critical = CriticalBatchSize(value=rate, low=0.8 * rate, high=1.2 * rate, basis="trajectory")
    return advise(
        dataclasses.replace(found, trajectory=trajectory, schedule=schedule, critical_batch_size=critical)
    )


def test_a_probe(golden: Golden) -> None:
    golden(
        "probe", report(plan(batch_size=64, world_size=2, steps=1000, price_per_device_hour=3.0), chart=True)
    )


def test_a_probe_in_tokens(golden: Golden) -> None:
    base = along_a_training(plan(batch_size=64, world_size=2, steps=1000))
    unknown = CriticalBatchSize(value=None, low=40.0, high=None, basis="probe")
    unresolved = dataclasses.replace(plan(), critical_batch_size=unknown)
    golden("probe_tokens", report(in_tokens(base)) + RULE + report(in_tokens(unresolved)))


def test_a_probe_that_cannot_tell(golden: Golden) -> None:
    unknown = CriticalBatchSize(value=None, low=40.0, high=None, basis="probe")
    golden("probe_unresolved", report(advise(result(critical_batch_size=unknown))))


def test_a_probe_whose_steps_were_timed_on_four_devices(golden: Golden) -> None:
    """At 96 examples on each a step takes 5 ms + 9.6 ms, of which the exchange takes 2 ms under DDP.

    FSDP exchanges all along a step. The third run is planned on one device, which exchanges nothing.
    """
    critical = Estimate(value=1000.0, low=900.0, high=1100.0)
    planned = plan(critical, world_size=4)
    ddp, fsdp = (together(planned, 4, exchange=2e-3, parallel=parallel) for parallel in ("ddp", "fsdp"))
    alone = together(plan(critical), 4, exchange=2e-3)
    golden("probe_timed_together", RULE.join(report(one) for one in (ddp, fsdp, alone)))


def test_a_trajectory(golden: Golden) -> None:
    golden("trajectory", report(along_a_training(plan(steps=1000))))


def test_a_trajectory_with_a_point_that_cannot_tell(golden: Golden) -> None:
    points = tuple(
        TrajectoryPoint(step=step, loss=2.0, noise_scale=scale, simple_noise_scale=GOOD)
        for step, scale in ((0, GOOD), (50, OPEN))
    )
    unknown = CriticalBatchSize(value=None, low=30.0, high=None, basis="trajectory")
    exact = NoiseScale(value=100.0, low=90.0, high=112.0, exact=104.0)
    found = result(noise_scale=exact, trajectory=points, critical_batch_size=unknown)
    golden("trajectory_unresolved", report(advise(found)))


def test_a_sweep(golden: Golden, write: Write) -> None:
    spec = load_spec(write("q.yaml", TINY_SWEEP))
    golden("sweep", report(advise(sweep_result(sweep_run(GOOD_STEPS), spec))))


def test_a_sweep_in_tokens(golden: Golden, write: Write) -> None:
    settings = ["unit=tokens", "training.tokens_per_example=100", "training.batch_size=20"]
    spec = load_spec(write("q.yaml", QUADRATIC_CONFIG), settings)
    golden("sweep_tokens", report(advise(sweep_result(sweep_run(GOOD_STEPS), spec))))


def test_branches(golden: Golden, write: Write) -> None:
    spec = load_spec(write("q.yaml", TINY_SWEEP), ["sweep.branch={examples: 2000, tolerance: 0.01}"])
    run = sweep_run({}, chosen={}, trajectory=(), branches=BRANCHES)
    golden("branch", report(branch_result(run, spec)))


def test_a_comparison(golden: Golden, write: Write) -> None:
    spec = load_spec(write("q.yaml", TINY_SWEEP))
    swept = advise(sweep_result(sweep_run(GOOD_STEPS), spec))
    golden("comparison", report(plan(), result(), swept) + RULE + report(in_tokens(plan()), plan()))


@pytest.mark.parametrize("adaptive", [False, True], ids=["sgd", "adam"])
def test_a_dry_run(golden: Golden, adaptive: bool) -> None:
    dry = DryRun(
        device="cpu", parameters=9610, dataset_length=1797, micro_batch_size=64, steps=(0, 100),
        seconds_per_example=1e-5, warmup_seconds=0.06, budget_seconds=60.0,
        extra_bytes=153_760 if adaptive else 115_320, peak_bytes=1 << 20 if adaptive else None,
    )  # fmt: skip
    golden("dry_run_adam" if adaptive else "dry_run", printed(dry_run_sections(dry)))
