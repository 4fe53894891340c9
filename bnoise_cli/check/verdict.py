"""Whether a planned batch size is reasonable, from the whole interval of B_crit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from bnoise_cli.amounts import EXAMPLES, Amounts
from bnoise_cli.maths.tradeoff import examples_ratio, steps_ratio, usual_batch_sizes
from bnoise_cli.numbers import count, percent, significant
from bnoise_cli.records import CriticalBatchSize, Doubt, Limits
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.result import Result
from bnoise_cli.spec.schema import Check

#: Training from the same weights has shown 2 to 20 times less or more than one step; within this factor of the line one
#: step neither passes nor fails a plan.
_STEP_FACTOR = 4.0
#: Where B_crit rests on single steps, and how each is measured.
_ONE_STEP = ("probe", "trajectory")
_MEASURED = {
    "probe": "one step of a probe",
    "trajectory": "single steps of a probe",
    "horizon": "training runs of a probe",
    "sweep": "training",
}
#: Doubts with which a measurement says nothing about the planned run.
_DISQUALIFYING = ("at_initialisation", "diverged", "not_a_mean", "weighted_mean")


class Verdict(StrEnum):
    """What the check says of one config."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    CANNOT_TELL = "cannot_tell"
    INVALID = "invalid"  # the config or what was asked of it is wrong
    ERROR = "error"  # the measurement that was asked for failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict on one batch size, and the figures it rests on; what is unbounded or unknown is None."""

    verdict: Verdict
    finding: str
    remedy: str
    batch_size: int
    critical_batch_size: CriticalBatchSize
    compute_overhead: float | None  # examples over the fewest, less 1
    compute_overhead_limits: Limits  # over the interval of B_crit
    time_efficiency: float | None  # the fewest steps over those at this batch size
    suggested_batch_size: int | None
    tokens_per_example: float | None = None  # where the config asks for tokens


def judge(
    result: Result, batch_size: int, world_size: int, check: Check, amounts: Amounts = EXAMPLES
) -> Judgement:
    """Judge a planned global batch size.

    The plan fails when the overhead B/B_crit is more than allowed even at the upper limit of B_crit, passes when it
    is not at the lower one, and in between the estimate decides between a warning and a pass, unless the
    interval is too wide to rest on an estimate. Too small a batch is a warning, where that is asked for.

    Args:
        batch_size: B, in examples, over all devices.
        world_size: the devices of the plan; suggestions divide among them.
        amounts: how numbers of examples are written.
    """
    critical = result.critical_batch_size
    value, low, high = critical.value, critical.low, critical.high
    allowed, asked = check.max_compute_overhead, check.min_time_efficiency
    least = batch_size / high if high is not None else 0.0
    most = batch_size / low if low > 0 else math.inf
    # What the estimate rests on: with too wide an interval, only its lower limit.
    trusted = value if value is not None and result.resolved else low
    speed = 1 / steps_ratio(batch_size, value or low) if value or low else None
    times = _times(critical, batch_size, amounts)
    known = f"B_crit is {_interval(critical, amounts)}, by {_MEASURED[critical.basis]}"
    limit = f"{significant(1 + allowed)} allowed"
    unless = _unless(result, batch_size, amounts)
    usual = usual_batch_sizes(allowed * trusted, world_size)  # that keep within the limit
    suggested: int | None = None
    doubt = disqualifying(result)
    if doubt is not None:
        verdict, finding, remedy = Verdict.CANNOT_TELL, doubt.finding, doubt.remedy
    elif critical.basis in _ONE_STEP and near(batch_size, allowed * (value or low)):
        verdict = Verdict.CANNOT_TELL
        finding = f"{times}, {limit}, by one step alone, which training may contradict: {known}"
        remedy = (
            "Probe with a horizon (probe.horizon: auto, a larger --budget), or measure with bnoise sweep."
        )
    elif high is not None and least > allowed:
        verdict = Verdict.FAIL
        suggested = usual[-1] if usual else None
        finding = f"{times}, {limit}: {known}"
        remedy = f"{_smaller('Set training.batch_size to', suggested, world_size, amounts)}{unless}"
    elif most > allowed and not result.resolved:
        verdict = Verdict.CANNOT_TELL
        finding = f"{times}, {limit}, cannot be told: {known}"
        remedy = "Measure longer for a narrower interval (--budget), or at another point of training."
    elif batch_size > allowed * trusted:
        verdict = Verdict.WARN
        suggested = usual[-1] if usual else None
        finding = f"{times}, {limit}: more by the estimate, though not surely; {known}"
        remedy = f"{_smaller('Consider a training.batch_size of', suggested, world_size, amounts)}{unless}"
    elif asked is not None and speed is not None and speed < asked:
        verdict = Verdict.WARN
        suggested = next((size for size in usual if 1 / steps_ratio(size, value or low) >= asked), None)
        reached = f"{'at most ' if value is None else ''}{percent(speed)}"
        finding = (
            f"{_batch(batch_size, amounts)} reaches {reached} of the speed in steps that larger ones "
            f"could, {percent(asked)} asked for: {known}"
        )
        remedy = _larger(suggested, amounts)
    else:
        verdict = Verdict.PASS
        finding, remedy = f"{times}{_steps(value, batch_size)}, {limit}: {known}", ""
    return Judgement(
        verdict=verdict,
        finding=finding,
        remedy=remedy,
        batch_size=batch_size,
        critical_batch_size=critical,
        compute_overhead=batch_size / value if value is not None else None,
        compute_overhead_limits=Limits(low=least, high=most if math.isfinite(most) else None),
        time_efficiency=speed if value is not None else None,
        suggested_batch_size=suggested,
        tokens_per_example=amounts.tokens_per_example,
    )


def near(batch_size: int, line: float) -> bool:
    """Whether one step is too little to tell on which side of the line a batch lies."""
    return line / _STEP_FACTOR <= batch_size <= line * _STEP_FACTOR


def disqualifying(result: Result) -> Doubt | None:
    """Why nothing can be judged by this result; a misfit of the law counts if it leaves no value of B_crit."""
    law = ("law",) if result.critical_batch_size.value is None else ()
    codes = {*_DISQUALIFYING, *KINDS[result.kind].disqualifying, *law}
    found = next((doubt for doubt in result.doubts if doubt.code in codes), None)
    if (
        found is None
        and result.critical_batch_size.value is None
        and result.critical_batch_size.basis == "trajectory"
    ):
        return Doubt(
            code="unresolved",
            finding="the noise scale could not be told at every probed point of training",
            remedy="Probe longer, or leave out the points where the law does not hold (probe.at_steps).",
        )
    return found


def _smaller(verb: str, suggested: int | None, world_size: int, amounts: Amounts) -> str:
    if suggested is not None:
        return f"{verb} {amounts.count(suggested)} or less."
    devices = f"Even one example on each of {count(world_size)} devices is more"
    return f"{devices}: plan fewer devices, or measure more precisely."


def _larger(suggested: int | None, amounts: Amounts) -> str:
    if suggested is None:
        return "No batch size reaches that within check.max_compute_overhead; change one of the two limits."
    return f"Consider a training.batch_size of {amounts.count(suggested)} or more, if the devices take it as fast."


def _unless(result: Result, batch_size: int, amounts: Amounts) -> str:
    """What speaks for so large a batch: where a step has a fixed cost, the fastest lies beyond B_crit."""
    advised = result.recommendation
    if advised is None or batch_size > advised.batch_size:
        return ""
    return (
        f" The result recommends {amounts.count(advised.batch_size)}, for speed on its device; to allow that, raise "
        "check.max_compute_overhead."
    )


def _times(critical: CriticalBatchSize, batch_size: int, amounts: Amounts) -> str:
    low = examples_ratio(batch_size, critical.high) if critical.high is not None else 1.0
    if critical.low <= 0:
        span = f"{significant(low)} or more"
    else:
        span = f"{significant(low)} to {significant(examples_ratio(batch_size, critical.low))}"
    if critical.value is not None:
        span = f"{significant(examples_ratio(batch_size, critical.value))} ({span})"
    return f"{_batch(batch_size, amounts)} takes {span} times the fewest examples"


def _batch(batch_size: int, amounts: Amounts) -> str:
    return f"a batch of {count(batch_size)} examples{amounts.in_brackets(batch_size)}"


def _steps(value: float | None, batch_size: int) -> str:
    return (
        "" if value is None else f" and {significant(steps_ratio(batch_size, value))} times the fewest steps"
    )


def _interval(critical: CriticalBatchSize, amounts: Amounts) -> str:
    value, low, high = critical.value, critical.low, critical.high
    if high is None and value is not None:
        return f"{significant(value)} ({significant(low)} or more){amounts.beside(value)}"
    if value is None or high is None:
        return f"at least {significant(low)}{amounts.beside(low)}" if low > 0 else "unknown"
    return amounts.within(value, low, high)
