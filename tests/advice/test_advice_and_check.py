"""What is recommended passes the check at the same settings, or the recommendation says why it does not."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnoise_cli.advice.advise import advise
from bnoise_cli.check.verdict import Verdict, judge
from bnoise_cli.records import Basis, CriticalBatchSize
from bnoise_cli.report.document import Sentence
from bnoise_cli.report.sections import report_sections
from bnoise_cli.results.probe import ProbeResult
from tests.samples import Device, result, timed

_SAYS = ("`bnoise check` allows less", "`bnoise check` asks for more")


def advised(
    critical: float, ratio: float, *, basis: Basis = "horizon", width: float = 1.1, **config: object
) -> ProbeResult:
    """A result on a device whose fixed cost of a step is that of `ratio` examples."""
    base = result()
    return advise(
        dataclasses.replace(
            base,
            config={**base.config, **config},
            critical_batch_size=CriticalBatchSize(
                value=critical, low=critical / width, high=critical * width, basis=basis
            ),
            throughput=timed(Device(fixed=ratio * 1e-4, per_example=1e-4, optimizer=1e-6), most=1 << 10),
        )
    )


@settings(max_examples=100, deadline=None)
@given(
    critical=st.floats(0.5, 5000),
    ratio=st.floats(0.1, 1000),
    width=st.floats(1.01, 4.0),
    basis=st.sampled_from(["probe", "trajectory", "horizon", "sweep"]),
    allowed=st.none() | st.floats(0.01, 30),
    speed=st.none() | st.floats(0.01, 0.99),
    own=st.none() | st.floats(0.01, 30),
    deadline=st.none() | st.floats(1.0, 1e4),
    each=st.integers(1, 3000),
    world=st.sampled_from([1, 2, 8]),
)
def test_what_is_recommended_passes_the_check_or_says_why_not(
    critical: float, ratio: float, width: float, basis: Basis, allowed: float | None, speed: float | None,
    own: float | None, deadline: float | None, each: int, world: int,
) -> None:  # fmt: skip
    check = {"max_compute_overhead": allowed, "min_time_efficiency": speed}
    wishes = {"max_compute_overhead": own, "deadline": deadline}
    found = advised(
        critical,
        ratio,
        basis=basis,
        width=width,
        training={"batch_size": each * world, "world_size": world, "steps": 1000},
        check={name: value for name, value in check.items() if value is not None},
        advice={name: value for name, value in wishes.items() if value is not None},
    )
    advice = found.recommendation
    if advice is None:
        return
    verdict = judge(found, advice.batch_size, world, found.plan.check).verdict
    if any(words in advice.reason for words in _SAYS):
        assert verdict is not Verdict.PASS
    elif basis in ("probe", "trajectory"):
        assert verdict in (Verdict.PASS, Verdict.CANNOT_TELL)
    else:
        assert verdict is Verdict.PASS


@pytest.mark.parametrize(("allowed", "size"), [(1.0, 96), (0.25, 24), (8.0, 256)])
def test_the_recommendation_is_the_fastest_that_the_check_passes(allowed: float, size: int) -> None:
    found = advised(100.0, 2000.0, check={"max_compute_overhead": allowed})
    assert found.recommendation is not None
    assert found.recommendation.batch_size == size
    assert ("fastest" in found.recommendation.roles) == (allowed == 8.0)
    assert ("256 would take" in found.recommendation.reason) == (allowed != 8.0)


def test_an_own_limit_beyond_the_check_is_used_up_and_the_verdict_says_so() -> None:
    found = advised(100.0, 2000.0, advice={"max_compute_overhead": 3.0})
    assert found.recommendation is not None
    assert found.recommendation.batch_size == 256
    assert _SAYS[0] in found.recommendation.reason
    first = report_sections([("r", found)])[0]
    assert any(_SAYS[0] in part.text for part in first.parts if isinstance(part, Sentence))
