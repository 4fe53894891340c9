"""Whether a planned batch size is reasonable, from the whole interval of B_crit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from bnoise_cli.amounts import EXAMPLES, Amounts
from bnoise_cli.maths.tradeoff import usual_batch_sizes
from bnoise_cli.numbers import count, percent, significant
from bnoise_cli.records import CriticalBatchSize, Doubt, Limits
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.result import Result
from bnoise_cli.spec.schema import Check

#: B_crit of training was 2 to 20 times lower or higher than one step shows. Within this factor of the allowed overhead
#: a measurement of one step neither passes nor fails a plan.
_STEP_FACTOR = 4.0
#: Bases of B_crit that are single steps; and how the text names each basis.
_ONE_STEP = ("probe", "trajectory")
_MEASURED = {
    "probe": "one step of a probe",
    "trajectory": "single steps of a probe",
    "horizon": "training runs of a probe",
    "sweep": "training",
}
#: Codes of doubts: with one of them a measurement says nothing about the planned run.
_DISQUALIFYING = ("at_initialisation", "diverged", "not_a_mean", "weighted_mean")


class Verdict(StrEnum):
    """What the check says of one config."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    CANNOT_TELL = "cannot_tell"
    #: The config or the call is wrong.
    INVALID = "invalid"
    #: The measurement that --probe asked for failed.
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict on one batch size with its figures; None: unbounded or unknown."""

    verdict: Verdict
    finding: str
    remedy: str
    batch_size: int
    critical_batch_size: CriticalBatchSize
    #: Examples over the fewest, less 1; and its range over the interval of B_crit.
    compute_overhead: float | None
    compute_overhead_limits: Limits
    #: The fewest steps over the steps at this batch size.
    time_efficiency: float | None
    suggested_batch_size: int | None
    #: None unless the config asks for tokens.
    tokens_per_example: float | None = None


def judge(
    result: Result, batch_size: int, world_size: int, check: Check, amounts: Amounts = EXAMPLES
) -> Judgement:
    """Judge a planned global batch size.

    The plan fails if its overhead E/E_min − 1 is more than allowed even at the upper limit of B_crit. It passes if the
    overhead is allowed even at the lower limit. In between the estimate decides between a warning and a pass, unless
    the interval is too wide to rest on an estimate. A batch that is too small is a warning if the check asks for that.

    Args:
        batch_size: B, in examples, over all devices.
        world_size: the devices of the plan; suggestions divide among them.
        amounts: how numbers of examples are written.
    """
    plan = _Planned(result, batch_size, world_size, check, amounts)
    verdict, finding, remedy, suggested = plan.decide()
    law = result.critical_batch_size.known
    return Judgement(
        verdict=verdict,
        finding=finding,
        remedy=remedy,
        batch_size=batch_size,
        critical_batch_size=result.critical_batch_size,
        compute_overhead=law.examples(batch_size) - 1 if law is not None else None,
        compute_overhead_limits=Limits(low=plan.least, high=plan.most if math.isfinite(plan.most) else None),
        time_efficiency=plan.speed if law is not None else None,
        suggested_batch_size=suggested,
        tokens_per_example=amounts.tokens_per_example,
    )


class _Planned:
    """A planned batch size beside a result.

    Attributes:
        least, most: examples over the fewest, less 1, at the upper and at the lower limit of B_crit.
        estimate: B_crit, or its lower limit if it has no value.
        trusted: the same, but the lower limit also if the interval is too wide.
        speed: the fewest steps over the steps of this batch size; None if B_crit is unknown.
        usual: usual batch sizes that keep within the allowed overhead, ascending.
    """

    def __init__(
        self, result: Result, batch_size: int, world_size: int, check: Check, amounts: Amounts
    ) -> None:
        critical = result.critical_batch_size
        value, low, high = critical.value, critical.low, critical.high
        self.result, self.critical = result, critical
        self.batch_size, self.world_size, self.amounts = batch_size, world_size, amounts
        self.allowed, self.asked = check.max_compute_overhead, check.min_time_efficiency
        self.least = critical.law(high).examples(batch_size) - 1 if high is not None else 0.0
        self.most = critical.law(low).examples(batch_size) - 1 if low > 0 else math.inf
        self.estimate = value or low
        self.trusted = value if value is not None and result.resolved else low
        self.speed = 1 / critical.law(self.estimate).steps(batch_size) if self.estimate else None
        #: The largest batch size that keeps within the allowed overhead.
        self.largest = critical.law(self.trusted).batch_size(self.allowed) if self.trusted else 0.0
        self.usual = usual_batch_sizes(self.largest, world_size)

    def decide(self) -> tuple[Verdict, str, str, int | None]:
        """The verdict, what was found, what to change, and a batch size to take instead."""
        times = _times(self.critical, self.batch_size, self.amounts)
        known = f"B_crit is {_interval(self.critical, self.amounts)}, by {_MEASURED[self.critical.basis]}"
        limit = f"{significant(1 + self.allowed)} times the fewest examples are allowed"
        if (doubt := disqualifying(self.result)) is not None:
            return Verdict.CANNOT_TELL, doubt.finding, doubt.remedy, None
        if self.critical.basis in _ONE_STEP and near(self.batch_size, self.allowed * self.estimate):
            finding = f"{times}; {limit}. This is by one step alone, which training may contradict: {known}"
            remedy = (
                "Probe with a horizon (probe.horizon: auto, a larger --budget), or measure with bnoise sweep."
            )
            return Verdict.CANNOT_TELL, finding, remedy, None
        if self.critical.high is not None and self.least > self.allowed:
            remedy, suggested = self._smaller("Set training.batch_size to")
            return Verdict.FAIL, f"{times}; {limit}: {known}", remedy, suggested
        if self.most > self.allowed and not self.result.resolved:
            finding = f"{times}; {limit}. Which it is cannot be told: {known}"
            remedy = "Measure longer for a narrower interval (--budget), or at another point of training."
            return Verdict.CANNOT_TELL, finding, remedy, None
        if self.batch_size > self.largest:
            finding = f"{times}; {limit}. It is more by the estimate, though not surely: {known}"
            remedy, suggested = self._smaller("Consider a training.batch_size of")
            return Verdict.WARN, finding, remedy, suggested
        if self.asked is not None and self.speed is not None and self.speed < self.asked:
            reached = f"{'at most ' if self.critical.value is None else ''}{percent(self.speed)}"
            finding = (
                f"{_batch(self.batch_size, self.amounts)} reaches {reached} of the speed in steps that larger "
                f"ones could, {percent(self.asked)} asked for: {known}"
            )
            return Verdict.WARN, finding, *self._larger(self.asked)
        faster = _steps(self.critical, self.batch_size)
        return Verdict.PASS, f"{times}{faster}; {limit}: {known}", "", None

    def _smaller(self, verb: str) -> tuple[str, int | None]:
        """The sentence that names a smaller batch size to take, and that size."""
        unless = _unless(self.result, self.batch_size, self.amounts)
        if self.usual:
            return f"{verb} {self.amounts.count(self.usual[-1])} or less.{unless}", self.usual[-1]
        devices = f"Even one example on each of {count(self.world_size)} devices is more"
        return f"{devices}: plan fewer devices, or measure more precisely.{unless}", None

    def _larger(self, asked: float) -> tuple[str, int | None]:
        """The sentence that names the smallest usual batch size of the speed that is asked for, and that size."""
        fast = (size for size in self.usual if 1 / self.critical.law(self.estimate).steps(size) >= asked)
        if (suggested := next(fast, None)) is None:
            text = (
                "No batch size reaches that within check.max_compute_overhead; change one of the two limits."
            )
            return text, None
        size = self.amounts.count(suggested)
        return f"Consider a training.batch_size of {size} or more, if the devices take it as fast.", suggested


def near(batch_size: int, line: float) -> bool:
    """Whether one step is too little to tell on which side of the line a batch lies."""
    return line / _STEP_FACTOR <= batch_size <= line * _STEP_FACTOR


def disqualifying(result: Result) -> Doubt | None:
    """The doubt with which this result says nothing. A misfit of the law is one only if B_crit has no value."""
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


def _unless(result: Result, batch_size: int, amounts: Amounts) -> str:
    """The sentence that the result recommends this batch size or a larger one for speed; empty if it does not."""
    advised = result.recommendation
    if advised is None or batch_size > advised.batch_size:
        return ""
    return (
        f" The result recommends {amounts.count(advised.batch_size)}, for speed on its device; to allow that, raise "
        "check.max_compute_overhead."
    )


def _times(critical: CriticalBatchSize, batch_size: int, amounts: Amounts) -> str:
    low = critical.law(critical.high).examples(batch_size) if critical.high is not None else 1.0
    if critical.low <= 0:
        span = f"{significant(low)} or more"
    else:
        span = f"{significant(low)} to {significant(critical.law(critical.low).examples(batch_size))}"
    if (law := critical.known) is not None:
        span = f"{significant(law.examples(batch_size))} ({span})"
    return f"{_batch(batch_size, amounts)} takes {span} times the fewest examples"


def _batch(batch_size: int, amounts: Amounts) -> str:
    return f"a batch of {count(batch_size)} examples{amounts.in_brackets(batch_size)}"


def _steps(critical: CriticalBatchSize, batch_size: int) -> str:
    law = critical.known
    return "" if law is None else f" and {significant(law.steps(batch_size))} times the fewest steps"


def _interval(critical: CriticalBatchSize, amounts: Amounts) -> str:
    value, low, high = critical.value, critical.low, critical.high
    if high is None and value is not None:
        return f"{significant(value)} ({significant(low)} or more){amounts.beside(value)}"
    if value is None or high is None:
        return f"at least {significant(low)}{amounts.beside(low)}" if low > 0 else "unknown"
    return amounts.within(value, low, high)
