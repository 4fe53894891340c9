"""A measured result and the plan in its config to the trade-off and a recommendation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from bnoise_cli.advice import limits
from bnoise_cli.advice.advice_doubts import MISFIT, advice_doubts, unjudged_doubts
from bnoise_cli.advice.choices import RANGE, Option, Options, across, untimed_row
from bnoise_cli.advice.learning_rate import learning_rate, measured_learning_rate
from bnoise_cli.amounts import Amounts, unit_doubts
from bnoise_cli.maths.tradeoff import usual_batch_sizes
from bnoise_cli.numbers import count, percent, seconds, significant
from bnoise_cli.records import Recommendation, Result, Role, SweepResult
from bnoise_cli.results.stored import planned

R = TypeVar("R", bound=Result)


def advise(result: R) -> R:
    """The same result with its advice made anew, from its measurement and the plan in its config alone."""
    training, wishes = planned(result.config)
    found = (*(doubt for doubt in result.doubts if doubt.about != "advice"), *unit_doubts(result))
    plain = replace(result, tradeoff=(), recommendation=None, alternatives=(), doubts=found)
    critical, throughput = result.critical_batch_size, result.throughput
    other_definition = isinstance(result, SweepResult) and result.min_steps.value is None
    if critical.value is None or critical.high is None or other_definition:
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
    chosen = limits.choose(options, wishes)
    roles = limits.roles(wishes)
    doubts = [*advice_doubts(options, throughput, wishes, chosen)]
    unmet = bool(roles) and chosen is None
    if unmet:
        doubts.insert(0, limits.impossible(options, wishes))
    named: dict[Option, list[Role]] = {}
    for role, option in (
        *((role, chosen) for role in roles),
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
    if isinstance(result, SweepResult):
        rate, rule = measured_learning_rate(result.batches, option.batch_size)
    else:
        rate, rule = learning_rate(
            result.config["optimizer"], options.training.batch_size, option.batch_size, options.critical
        )
    return Recommendation(
        roles=roles,
        batch_size=option.batch_size,
        micro_batch_size=option.split.micro_batch_size,
        accumulation_steps=option.split.accumulation_steps,
        world_size=option.world_size,
        learning_rate=rate,
        learning_rate_rule=rule,
        reason=_reason(roles[0], option, options, result),
        row=options.row(option),
    )


def _reason(role: Role, option: Option, options: Options, result: Result) -> str:
    """One sentence."""
    amounts = Amounts.of(result)
    _, wishes = planned(result.config)
    overhead = option.batch_size / options.critical
    if role == "deadline":
        assert wishes.deadline is not None
        takes = options.run_seconds(option, options.critical)
        of_devices = f", {seconds(option.world_size * takes)} of device time" if option.world_size > 1 else ""
        within = (
            f" and spends at most {percent(wishes.max_compute_overhead)} more than the fewest examples"
            if wishes.max_compute_overhead is not None
            else ""
        )
        limit = f"{seconds(wishes.deadline)}{within}"
        return f"Of what ends within {limit} it costs the least: {seconds(takes)}{of_devices}."
    if role == "max_compute_overhead":
        return (
            f"The fastest that spends at most {percent(wishes.max_compute_overhead or 0.0)} more than the fewest "
            f"examples: it spends {percent(overhead)} more."
        )
    if role == "balanced":
        return (
            f"At the critical batch size a run takes twice the fewest steps and twice the fewest examples; "
            f"this is the nearest usual size to {significant(options.critical)}{amounts.beside(options.critical)}."
        )
    line = options.line(option.world_size)
    where = "one device" if option.world_size == 1 else f"{count(option.world_size)} devices"
    least = "Steps × step time is least" if role == "fastest" else "Devices × steps × step time is least"
    accumulated = option.split.accumulation_steps > 1  # which repeats some of t₀
    if accumulated or line.worst_misfit > MISFIT or not math.isfinite(options.closed_form(option.world_size)):
        return f"{least} here on {where}, by the measured step times."
    each = "" if option.world_size == 1 else " of each"
    step = f"{seconds(line.fixed_seconds)} + {seconds(line.seconds_per_example)} per example{each}"
    formula = "sqrt(B_crit·t₀/t₁)" if option.world_size == 1 else "sqrt(B_crit·K·t₀/t₁)"
    return (
        f"{least} here: on {where} a step takes {step}, and {formula} = "
        f"{amounts.examples(options.closed_form(option.world_size))}."
    )
