"""A plan is judged by the whole interval of B_crit, and verdicts become exit codes."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnoise_cli.check.check_config import Rules
from bnoise_cli.check.verdict import Verdict, judge
from bnoise_cli.records import CriticalBatchSize, Law
from bnoise_cli.spec.schema import Check
from tests.check.verdicts import critical, doubt
from tests.samples import Device, plan
from tests.samples import result as probed

KNOWN = critical(100.0, 80.0, 125.0)


WIDE = critical(100.0, 10.0, 1000.0)


AT_LEAST = critical(None, 40.0, None)


UNKNOWN = critical(None, 0.0, None)


@pytest.mark.parametrize(("found", "batch_size", "allowed", "doubts", "verdict"), [
    # B/B_crit is the overhead: at most the allowed one at the lower limit, at the estimate, at the upper limit.
    (KNOWN, 1, 1.0, (), "pass"),
    (KNOWN, 80, 1.0, (), "pass"),
    (KNOWN, 100, 1.0, (), "pass"),
    (KNOWN, 101, 1.0, (), "warn"),
    (KNOWN, 125, 1.0, (), "warn"),
    (KNOWN, 126, 1.0, (), "fail"),
    (KNOWN, 10**12, 1.0, (), "fail"),
    (KNOWN, 50, 0.5, (), "pass"),
    (KNOWN, 51, 0.5, (), "warn"),
    (KNOWN, 63, 0.5, (), "fail"),
    (KNOWN, 500, 4.0, (), "warn"),
    # A wide interval settles only what lies wholly outside it.
    (WIDE, 10, 1.0, (), "pass"),
    (WIDE, 11, 1.0, (), "cannot_tell"),
    (WIDE, 1000, 1.0, (), "cannot_tell"),
    (WIDE, 1001, 1.0, (), "fail"),
    (AT_LEAST, 40, 1.0, (), "pass"),
    (AT_LEAST, 41, 1.0, (), "cannot_tell"),
    (AT_LEAST, 10**9, 1.0, (), "cannot_tell"),
    (UNKNOWN, 1, 1.0, (), "cannot_tell"),
    # Doubts that leave nothing to judge by; others only stand beside.
    (KNOWN, 1, 1.0, ("at_initialisation",), "cannot_tell"),
    (KNOWN, 10**6, 1.0, ("at_initialisation",), "cannot_tell"),
    (KNOWN, 10**6, 1.0, ("diverged",), "cannot_tell"),
    (KNOWN, 1, 1.0, ("not_a_mean",), "cannot_tell"),
    (AT_LEAST, 1, 1.0, ("law",), "cannot_tell"),
    (KNOWN, 126, 1.0, ("law",), "fail"),
    (KNOWN, 126, 1.0, ("momentum", "range", "imprecise"), "fail"),
])  # fmt: skip
def test_every_verdict(
    found: CriticalBatchSize, batch_size: int, allowed: float, doubts: tuple[str, ...], verdict: str
) -> None:
    result = probed(critical_batch_size=found, doubts=tuple(map(doubt, doubts)))
    judged = judge(result, batch_size, 1, Check(max_compute_overhead=allowed))
    assert judged.verdict == verdict
    if verdict == "cannot_tell" and doubts:
        assert (judged.finding, judged.remedy) == (f"the {doubts[0]} is in doubt", "Mend it.")
    else:
        assert f"{batch_size:,}" in judged.finding
    assert bool(judged.remedy) == (verdict != "pass")


@pytest.mark.parametrize(("found", "batch_size", "asked", "verdict"), [
    (KNOWN, 100, 0.5, "pass"),
    (KNOWN, 99, 0.5, "warn"),  # and no usual size meets both limits
    (KNOWN, 43, 0.3, "pass"),
    (KNOWN, 42, 0.3, "warn"),
    (KNOWN, 1, None, "pass"),
    (KNOWN, 126, 0.9, "fail"),  # too large comes first
    (AT_LEAST, 17, 0.3, "warn"),  # at most 17/57, wherever B_crit lies
    (AT_LEAST, 18, 0.3, "pass"),
    (critical(1e30, 1e30, 1e30), 1, 0.5, "warn"),
])  # fmt: skip
def test_too_small_a_batch_warns_where_that_is_asked_for(
    found: CriticalBatchSize, batch_size: int, asked: float | None, verdict: str
) -> None:
    judged = judge(
        probed(critical_batch_size=found, doubts=()), batch_size, 1, Check(min_time_efficiency=asked)
    )
    assert judged.verdict == verdict
    if verdict == "warn" and judged.suggested_batch_size is not None:
        again = judge(
            probed(critical_batch_size=found, doubts=()),
            judged.suggested_batch_size,
            1,
            Check(min_time_efficiency=asked),
        )
        assert again.verdict == "pass"
    elif verdict == "warn":
        assert "change one of the two limits" in judged.remedy


@settings(max_examples=300, deadline=None)
@given(
    st.floats(1e-2, 1e12), st.floats(1, 3), st.integers(1, 10**12), st.floats(0.01, 100), st.integers(1, 64)
)
def test_the_figures_are_the_closed_form_and_the_advice_mends(
    value: float, factor: float, batch_size: int, allowed: float, world_size: int
) -> None:
    found = critical(value, value / factor, value * factor)
    check = Check(max_compute_overhead=allowed)
    judged = judge(probed(critical_batch_size=found, doubts=()), batch_size, world_size, check)
    assert judged.compute_overhead is not None
    assert judged.time_efficiency is not None
    assert judged.compute_overhead == pytest.approx(Law(value).examples(batch_size) - 1)
    assert judged.compute_overhead_limits.low == pytest.approx(batch_size / (value * factor))
    assert judged.time_efficiency == pytest.approx(1 / Law(value).steps(batch_size))
    assert (judged.verdict == "fail") == (judged.compute_overhead_limits.low > allowed)
    if judged.verdict in ("warn", "fail"):
        suggested = judged.suggested_batch_size
        if suggested is None:
            assert world_size > allowed * value, "not even one example on each device"
            assert "plan fewer devices" in judged.remedy
        else:
            assert suggested % world_size == 0
            again = judge(probed(critical_batch_size=found, doubts=()), suggested, world_size, check)
            assert again.verdict == "pass"


def test_after_a_wide_interval_the_advice_is_surely_enough() -> None:
    judged = judge(probed(critical_batch_size=WIDE, doubts=()), 4096, 1, Check())
    assert (judged.verdict, judged.suggested_batch_size) == ("fail", 8)


def test_a_law_that_does_not_hold_leaves_nothing_to_judge() -> None:
    """A probe has no value then; a sweep has one beside the doubt; of a trajectory one point may have failed."""
    swept = dataclasses.replace(
        probed(critical_batch_size=KNOWN, doubts=(doubt("law"),)), kind=cast(Any, "sweep")
    )
    assert judge(swept, 126, 1, Check()).verdict == "cannot_tell"
    along = probed(critical_batch_size=critical(None, 40.0, None, "trajectory"), doubts=())
    assert judge(along, 1, 1, Check()).verdict == "cannot_tell"


def test_a_batch_that_was_recommended_for_speed_is_told_so() -> None:
    advised = plan(KNOWN, Device()).recommendation
    assert advised is not None
    result = probed(critical_batch_size=KNOWN, doubts=(), recommendation=advised)
    check = Check(max_compute_overhead=advised.batch_size / 200)
    words = f"The result recommends {advised.batch_size:,}, for speed on its device"
    assert words in judge(result, advised.batch_size, 1, check).remedy
    assert words not in judge(result, advised.batch_size + 1, 1, check).remedy


@pytest.mark.parametrize(("rules", "codes"), [
    (Rules(), {"pass": 0, "warn": 0, "fail": 1, "cannot_tell": 3, "invalid": 2, "error": 4}),
    (Rules(strict=True), {"pass": 0, "warn": 1, "fail": 1, "cannot_tell": 3, "invalid": 2, "error": 4}),
    (Rules(exit_zero=True), {"pass": 0, "warn": 0, "fail": 0, "cannot_tell": 0, "invalid": 2, "error": 4}),
    (Rules(strict=True, exit_zero=True),
     {"pass": 0, "warn": 0, "fail": 0, "cannot_tell": 0, "invalid": 2, "error": 4}),
])  # fmt: skip
def test_every_exit_code(rules: Rules, codes: dict[str, int]) -> None:
    assert {verdict.value: int(rules.code(verdict)) for verdict in Verdict} == codes


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [(24, Verdict.PASS), (26, Verdict.CANNOT_TELL), (400, Verdict.CANNOT_TELL), (450, Verdict.FAIL)],
)
def test_one_step_judges_no_plan_within_a_factor_of_four_of_the_line(
    batch_size: int, expected: Verdict
) -> None:
    by_step = dataclasses.replace(probed(), critical_batch_size=critical(100.0, 90.0, 112.0, basis="probe"))
    found = judge(by_step, batch_size, 1, Check())
    assert found.verdict is expected
    if expected is Verdict.CANNOT_TELL:
        assert "one step" in found.finding
        assert "horizon" in found.remedy
