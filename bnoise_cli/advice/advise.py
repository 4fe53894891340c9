"""The trade-off and the recommendation, from a measured result and the plan in its config."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from bnoise_cli.advice import limits
from bnoise_cli.advice.advice_doubts import advice_doubts, unit_doubts, unjudged_doubts
from bnoise_cli.advice.choices import RANGE, Option, Options, across, untimed_row
from bnoise_cli.advice.learning_rate import learning_rate, measured_learning_rate
from bnoise_cli.advice.reason import reason
from bnoise_cli.maths.tradeoff import usual_batch_sizes
from bnoise_cli.records import Recommendation, Role
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.result import Result

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
        rows = tuple(untimed_row(size, critical.value, across(critical)) for size in kept)
        return replace(plain, tradeoff=rows, doubts=(*found, *unjudged_doubts(wishes)))
    made = result.provenance
    options = Options(critical, throughput, training, made.dataset_length, group=made.group)
    if not result.resolved:
        return replace(plain, tradeoff=options.rows())
    chosen = limits.choose(options, result.plan)
    roles = limits.roles(wishes)
    doubts = [*advice_doubts(options, throughput, wishes, chosen)]
    unmet = bool(roles) and chosen is None
    if unmet:
        doubts.insert(0, limits.impossible(options, wishes))
    named: dict[Option, list[Role]] = {}
    for role, option in (
        *((role, chosen) for role in limits.chosen_for(chosen, options, wishes)),
        ("fastest", options.fastest),
        ("cheapest", options.cheapest),
        ("balanced", options.balanced),
    ):
        if option is not None:
            named.setdefault(option, []).append(role)
    advice = [_recommendation(option, tuple(names), options, result) for option, names in named.items()]
    return replace(
        plain,
        tradeoff=options.rows(),
        recommendation=None if unmet else advice[0],
        alternatives=tuple(advice if unmet else advice[1:]),
        doubts=(*found, *doubts),
    )


def _recommendation(
    option: Option, roles: tuple[Role, ...], options: Options, result: Result
) -> Recommendation:
    if rates := result.best_rates:
        rate, rule = measured_learning_rate(rates, option.batch_size)
    else:
        rate, rule = learning_rate(result.plan, option.batch_size, options.critical)
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
    )
