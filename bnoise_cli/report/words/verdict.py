"""The verdict: what to do about the planned batch, what that saves, and how far to trust it."""

from __future__ import annotations

from collections.abc import Iterator

from bnoise_cli.advice.choices import SAME_TIME
from bnoise_cli.advice.limits import beyond_the_check
from bnoise_cli.numbers import count, counted, significant
from bnoise_cli.records import Doubt, Recommendation, TradeoffRow
from bnoise_cli.report.document import Section, Sentence, Tone
from bnoise_cli.report.words.difference import difference, difference_of
from bnoise_cli.report.words.horizon import planned_steps, steps_of
from bnoise_cli.results.probe import ProbeResult
from bnoise_cli.results.result import Result

#: Doubts that undermine B_crit, the gravest first.
_ABOUT_THE_ANSWER = (
    "diverged", "failed", "not_a_mean", "weighted_mean", "below_a_group", "at_initialisation", "one_step",
    "annealing", "horizon_moves", "horizon_short", "law", "two_descents", "steps_too_short",
    "outgrown", "beyond_dataset", "goal_not_reached", "goal_near", "one_sided",
    "not_monotone", "unresolved", "interrupted",
)  # fmt: skip
#: Doubts that undermine a recommendation by step times, the gravest first.
_ABOUT_THE_TIMES = ("untimed", "timing", "slower_when_larger", "not_tried", "communication", "data_loading")
#: Two learning rates, or two run times, that differ by less than this fraction are told as the same.
_SAME = 0.03


def verdict_section(result: Result) -> Section:
    """Three to five lines that stand alone."""
    advised = result.recommendation
    doubts = undermining(result)
    if advised is None:
        parts = [_trust(result, doubts), *(Sentence(doubt.remedy) for doubt in doubts[:1])]
        return Section(title="Verdict", headline=Sentence(_undecided(result), Tone.UNSURE), parts=parts)
    words = _what_to_do(result, advised)
    if result.critical_batch_size.basis in ("probe", "trajectory"):
        words = f"By one step alone, which training may contradict: {words[0].lower()}{words[1:]}"
    headline = Sentence(words, Tone.UNSURE if doubts else Tone.GOOD)
    law = result.critical_batch_size.known
    beyond = beyond_the_check(advised.batch_size, law, result.plan.check) if law is not None else ""
    refused = [Sentence(beyond, Tone.UNSURE)] if beyond else []
    parts = [*_differences(result, advised), *_same_time(result, advised), *refused, _trust(result, doubts)]
    return Section(title="Verdict", headline=headline, parts=parts)


def answer_tone(result: Result) -> Tone:
    """Green only for a B_crit with both limits that no doubt undermines."""
    sound = result.critical_batch_size.high is not None and not _named(result, _ABOUT_THE_ANSWER)
    return Tone.GOOD if sound else Tone.UNSURE


def undermining(result: Result) -> list[Doubt]:
    """The doubts that undermine the verdict, the gravest first.

    If B_crit has no value, the reason for that comes before the doubt that it rests on one step.
    """
    answer = list(_ABOUT_THE_ANSWER)
    if result.critical_batch_size.value is None:
        answer.remove("one_step")
        answer.append("one_step")
    return _named(result, (*answer, *_ABOUT_THE_TIMES))


def _named(result: Result, codes: tuple[str, ...]) -> list[Doubt]:
    found = [doubt for doubt in result.doubts if doubt.code in codes]
    return sorted(found, key=lambda doubt: codes.index(doubt.code))


def _undecided(result: Result) -> str:
    """Why there is no recommendation."""
    planned = result.amounts.count(result.plan.training.batch_size)
    if result.alternatives:
        return f"No batch size meets the limits of the config; the planned {planned} does not either"
    if not result.resolved:
        known = _rate_of_plan(result, result.best_rates.get(result.plan.training.batch_size)) or ""
        return f"Cannot tell whether another batch size than the planned {planned} is better{known}"
    if result.lacks_horizon:
        return f"No recommendation besides the planned {planned}: no horizon was measured, and one step is not enough"
    return f"No recommendation besides the planned {planned}: no training step was timed"


def _what_to_do(result: Result, advised: Recommendation) -> str:
    """The batch size and the learning rate to train with, and the steps that this saves."""
    plan, amounts = result.plan, result.amounts
    planned = plan.training
    same = (advised.batch_size, advised.world_size) == (planned.batch_size, planned.world_size)
    devices = ""
    if advised.world_size != planned.world_size:
        devices = f" on {count(advised.world_size)} device{'s' if advised.world_size > 1 else ''}"
    rate, before = advised.learning_rate, plan.learning_rate
    if same:
        text = f"Keep {amounts.count(planned.batch_size)}"
        other = _rate_of_plan(result, rate)
        if other is None:
            return f"{text} at the planned learning rate of {before:g}: {rate:g}, the best one, takes as many steps"
        text += other
    else:
        text = f"Take {amounts.count(advised.batch_size)}{devices} instead of {amounts.count(planned.batch_size)}"
        if rate is not None and before is not None and _alike(rate, before):
            text += f", at the same learning rate of {before:g}"
        elif rate is not None:
            text += f", at learning rate {rate:g}" + (f" instead of {before:g}" if before is not None else "")
    return text


def _rate_of_plan(result: Result, rate: float | None) -> str | None:
    """What another learning rate does at the planned batch size, as the end of a sentence.

    Returns:
        `, but lower the learning rate from 0.2 to 0.1: 58 steps instead of 110 to a loss of 0.20`; None if it takes as
        many steps; an empty text if nothing is known, or the rate is the planned one.
    """
    before = result.plan.learning_rate
    if rate is None or before is None or _alike(rate, before):
        return ""
    saved = _steps_saved(result)
    if saved is None:
        return None
    return (
        f", but {'raise' if rate > before else 'lower'} the learning rate from {before:g} to {rate:g}{saved}"
    )


def _steps_saved(result: Result) -> str | None:
    """What the horizon's runs took at the planned batch size: `: 58 steps instead of 110 to a loss of 0.20`.

    Returns:
        None if they took as many steps at the best learning rate as at the planned one.
    """
    horizon = result.horizon if isinstance(result, ProbeResult) else None
    size = result.plan.training.batch_size
    before = planned_steps(size, horizon) if horizon is not None else None
    if horizon is None or before is None:
        return ""
    steps, arrived = before
    best = steps_of(horizon, size)
    if arrived and _alike(best, steps):
        return None
    after, planned = significant(best, 2), significant(steps, 2)
    loss = significant(horizon.curve[-1].loss)
    more = "" if arrived else "more than "
    return f": {after} steps instead of {more}{planned} to a loss of {loss}"


def _differences(result: Result, advised: Recommendation) -> Iterator[Sentence]:
    """What the recommended batch saves and costs, as differences from the planned one."""
    planned = result.plan.training
    row = next((row for row in result.tradeoff if row.batch_size == planned.batch_size), None)
    name = f"the planned {result.amounts.count(planned.batch_size)}"
    if row is None:
        return
    if advised.batch_size != planned.batch_size or advised.world_size != planned.world_size:
        than = f"{difference(advised.row, row)} than {name}"
        if result.best_rates:
            than += " at its best learning rate"
        if (as_planned := _beside_the_plan(result, advised, row)) is not None:
            than = f"{as_planned} than the plan, and {than}"
        yield Sentence(f"It takes {than}.")
        return
    others = (other for other in result.alternatives if other.world_size == planned.world_size)
    if (other := next(others, None)) is not None:
        yield Sentence(
            f"{result.amounts.count(other.batch_size)} would take {difference(other.row, row)} than {name}."
        )


def _beside_the_plan(result: Result, advised: Recommendation, planned: TradeoffRow) -> str | None:
    """The difference from the plan at its own learning rate; None if that is about the best, or did not arrive."""
    before, rate = result.planned_steps_ratio, result.plan.learning_rate
    best = result.best_rates.get(planned.batch_size)
    if before is None or (rate is not None and best is not None and _alike(rate, best)):
        return None
    steps = (advised.row.measured_steps_ratio or advised.row.steps_ratio) / before
    step, step_before = advised.row.step_seconds, planned.step_seconds
    time = None if step is None or step_before is None else steps * step / step_before
    return difference_of(examples=steps * advised.batch_size / planned.batch_size, time=time)


def _same_time(result: Result, advised: Recommendation) -> Iterator[Sentence]:
    """The range of batch sizes among which time does not choose, or that step times choose none at all."""
    if advised.roles[0] == "balanced":
        yield Sentence("It is the batch size nearest to the critical one: step times did not choose it.")
        return
    same = advised.same_time
    if same is not None and same.low < same.high:
        low, high = result.amounts.count(same.low), result.amounts.count(same.high)
        yield Sentence(f"{low} to {high} take the same time within {SAME_TIME:.0%}.")


def _trust(result: Result, doubts: list[Doubt]) -> Sentence:
    """How sure B_crit is, and the gravest doubt."""
    known = result.amounts.interval(result.critical_batch_size)
    horizon = result.horizon if isinstance(result, ProbeResult) else None
    over = f" over the next {count(horizon.curve[-1].steps)} steps of a large batch" if horizon else ""
    critical = f"Critical batch size{over}: {known}"
    if not doubts:
        return Sentence(
            f"{critical}. Nothing found puts this in doubt." if result.resolved else f"{critical}."
        )
    more = len(doubts) - 1
    others = f" (and {counted(more, 'more doubt')})" if more else ""
    return Sentence(f"{critical}. But {doubts[0].finding}{others}.", Tone.UNSURE)


def _alike(one: float, other: float) -> bool:
    return abs(one / other - 1) < _SAME
