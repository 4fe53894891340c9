"""Why a batch size is recommended, in one sentence."""

from __future__ import annotations

import math

from bnoise_cli.advice.advice_doubts import MISFIT
from bnoise_cli.advice.choices import SAME_TIME, Option, Options
from bnoise_cli.advice.limits import beyond_the_check
from bnoise_cli.numbers import count, percent, seconds, significant
from bnoise_cli.records import Law, Role
from bnoise_cli.results.result import Result


def reason(role: Role, option: Option, options: Options, result: Result) -> str:
    """One sentence, and another if `bnoise check` does not pass the option.

    Args:
        role: the first of the option's roles.
    """
    beyond = beyond_the_check(option.batch_size, options.law, result.plan.check)
    return f"{_reason(role, option, options, result)} {beyond}".rstrip()


def _reason(role: Role, option: Option, options: Options, result: Result) -> str:
    amounts, wishes = result.amounts, result.plan.advice
    overhead = options.law.examples(option.batch_size) - 1
    if role == "deadline":
        assert wishes.deadline is not None
        takes = options.run_seconds(option, options.law)
        of_devices = f", {seconds(option.world_size * takes)} of device time" if option.world_size > 1 else ""
        within = (
            f" and spends at most {percent(wishes.max_compute_overhead)} more than the fewest examples"
            if wishes.max_compute_overhead is not None
            else ""
        )
        limit = f"{seconds(wishes.deadline)}{within}"
        return f"Of what ends within {limit} it costs the least: {seconds(takes)}{of_devices}."
    if role == "max_compute_overhead":
        if wishes.max_compute_overhead is None:
            return (
                f"The fastest that passes `bnoise check`: it spends {percent(overhead)} more than the fewest examples, "
                f"{percent(result.plan.check.max_compute_overhead)} allowed.{_faster(option, options, result)}"
            )
        return (
            f"The fastest that spends at most {percent(wishes.max_compute_overhead)} more than the fewest "
            f"examples: it spends {percent(overhead)} more."
        )
    if role == "balanced":
        return (
            f"At the critical batch size a run takes {at_critical(options.law)}; "
            f"this is the nearest usual size to {significant(options.law.critical)}"
            f"{amounts.beside(options.law.critical)}."
        )
    line = options.line(option.world_size)
    where = "one device" if option.world_size == 1 else f"{count(option.world_size)} devices"
    least = "Steps × step time is least" if role == "fastest" else "Devices × steps × step time is least"
    bound = options.bound(option)
    if bound is not None:
        return f"{least} here on {where}: {bound}."
    closed = options.closed_form(option.world_size)  # 0 if a step takes no fixed time
    near = option.batch_size / 2 <= closed <= 2 * option.batch_size
    if not near and any(other.departure != 1 for other in options.planned):
        return f"{least} here on {where}, by the trained steps and the measured step times."
    accumulated = option.split.accumulation_steps > 1  # accumulation repeats a part of t₀
    if accumulated or line.worst_misfit > MISFIT or not math.isfinite(closed):
        return f"{least} here on {where}, by the measured step times."
    each = "" if option.world_size == 1 else " of each"
    step = f"{seconds(line.fixed_seconds)} + {seconds(line.seconds_per_example)} per example{each}"
    return (
        f"{least} here: on {where} a step takes {step}, which makes {amounts.examples(closed)} the fastest."
    )


def at_critical(law: Law) -> str:
    """What training at B_crit takes: as many times the fewest steps as the fewest examples, 2^(1/p)."""
    ratio = law.steps(law.critical)
    times = "twice" if round(ratio, 1) == 2 else f"{ratio:.1f} times"
    return f"{times} the fewest steps and {times} the fewest examples"


def _faster(option: Option, options: Options, result: Result) -> str:
    """What a faster batch size would save and spend, which the limit of the check refuses; empty if none is faster."""
    other, law = options.fastest, options.law
    saved = 1 - other.time(law) / option.time(law)
    if other.batch_size <= option.batch_size or saved < SAME_TIME:
        return ""
    return (
        f" {result.amounts.count(other.batch_size)} would take {percent(saved)} less time and spend "
        f"{percent(law.examples(other.batch_size) - 1)} more: raise check.max_compute_overhead if only time counts."
    )
