"""The trade-off and the recommendation, from a measured result and the plan in its config."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from bnoise_cli.advice import limits
from bnoise_cli.advice.advice_doubts import advice_doubts, unit_doubts, unjudged_doubts
from bnoise_cli.advice.choices import Option, Options, across, departure, untimed_row
from bnoise_cli.advice.learning_rate import learning_rate, measured_learning_rate
from bnoise_cli.advice.limits import Choice
from bnoise_cli.advice.reason import reason
from bnoise_cli.maths.tradeoff import RANGE, usual_batch_sizes
from bnoise_cli.records import Recommendation, Role, TradeoffRow
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.result import Result
from bnoise_cli.spec.schema import Advice

R = TypeVar("R", bound=Result)


def advise(result: R) -> R:
    """The same result with its advice made anew, from its measurement and the plan in its config alone."""
    training, wishes = result.plan.training, result.plan.advice
    found = (*(doubt for doubt in result.doubts if doubt.about != "advice"), *unit_doubts(result))
    plain = replace(result, tradeoff=(), recommendation=None, alternatives=(), doubts=found)
    critical, throughput = result.critical_batch_size, result.throughput
    if critical.value is None or critical.high is None or not KINDS[result.kind].follows_law:
        return plain
    if throughput is None:
        sizes = {*usual_batch_sizes(RANGE * critical.value, training.world_size), training.batch_size}
        least = max(min(critical.value / RANGE, training.batch_size), result.provenance.group)
        kept = [size for size in sorted(sizes) if size >= least]
        law, laws = critical.law(critical.value), across(critical)
        rows = tuple(
            _with_training(untimed_row(size, law, laws, departure(result.departures, size)), result)
            for size in kept
        )
        return replace(plain, tradeoff=rows, doubts=(*found, *unjudged_doubts(wishes)))
    made = result.provenance
    options = Options(
        critical, throughput, training, made.dataset_length, group=made.group, departures=result.departures
    )
    rows = tuple(_with_training(row, result) for row in options.rows())
    if result.resolved and result.lacks_horizon:
        why = "no horizon was measured"
        return replace(plain, tradeoff=rows, doubts=(*found, *unjudged_doubts(wishes, why)))
    if not result.resolved:
        return replace(plain, tradeoff=rows)
    choice = limits.choose(options, result.plan)
    doubts = [*advice_doubts(options, throughput, wishes, choice)]
    advice = [
        _recommendation(option, tuple(roles), options, result)
        for option, roles in _named(options, choice, wishes).items()
    ]
    return replace(
        plain,
        tradeoff=rows,
        recommendation=advice[0] if choice is not None else None,
        alternatives=tuple(advice[1:] if choice is not None else advice),
        doubts=(*found, *doubts),
    )


def _with_training(row: TradeoffRow, result: Result) -> TradeoffRow:
    """The row with the steps and the learning rate of its batch size, if that was trained."""
    size = row.batch_size
    return replace(
        row,
        measured_steps_ratio=result.trained_steps.get(size),
        learning_rate=result.best_rates.get(size),
    )


def _named(options: Options, choice: Choice | None, wishes: Advice) -> dict[Option, list[Role]]:
    """The options worth naming with their roles, the recommended one first if there is one.

    If the step times do not tell which is the fastest, only the balanced one is named.
    """
    if choice is not None and choice.rivals:
        return {choice.balanced: ["balanced"]}
    named: dict[Option, list[Role]] = {}
    if choice is not None:
        named[choice.option] = [*limits.chosen_for(choice.option, options, wishes)]
    by_time: tuple[tuple[Role, Option | None], ...] = (
        ("fastest", options.fastest),
        ("cheapest", options.cheapest),
        ("balanced", options.balanced),
    )
    for role, option in by_time:
        if option is not None:
            named.setdefault(option, []).append(role)
    return named


def _recommendation(
    option: Option, roles: tuple[Role, ...], options: Options, result: Result
) -> Recommendation:
    if rates := result.best_rates:
        rate, rule = measured_learning_rate(rates, option.batch_size)
    else:
        rate, rule = learning_rate(result.plan, option.batch_size, options.law)
    return Recommendation(
        roles=roles,
        batch_size=option.batch_size,
        micro_batch_size=option.split.micro_batch_size,
        accumulation_steps=option.split.accumulation_steps,
        world_size=option.world_size,
        learning_rate=rate,
        learning_rate_rule=rule,
        reason=reason(roles[0], option, options, result),
        row=options.row(option),
        same_time=options.same_time(option) if roles != ("balanced",) else None,
    )
