"""The user's own limits: which options meet them, and what would make an impossible limit possible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bnoise_cli.advice.choices import Option, Options
from bnoise_cli.maths.fastest import rivals
from bnoise_cli.maths.tradeoff import RANGE
from bnoise_cli.numbers import count, percent, seconds, significant
from bnoise_cli.records import Doubt, Law, Role
from bnoise_cli.results.result import Plan
from bnoise_cli.spec.schema import Advice, Check

#: Codes of doubts that say a limit of the config cannot be met.
IMPOSSIBLE: tuple[Literal["deadline", "max_compute_overhead"], ...] = ("deadline", "max_compute_overhead")
#: To meet a deadline, at most this many times the planned devices are suggested.
_MOST_DEVICES = 4096


def roles(limits: Advice) -> tuple[Role, ...]:
    """The limits that the config names."""
    return tuple(name for name in IMPOSSIBLE if getattr(limits, name) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the step times choose."""

    option: Option
    #: Options that may be clearly faster than the one of least time: step times have an uncertainty. Usually empty.
    rivals: tuple[Option, ...]
    #: The option nearest to B_crit among those that meet the limits. It needs no step time.
    balanced: Option


def choose(options: Options, plan: Plan) -> Choice | None:
    """The option that meets all limits of `advice:`: with a deadline the cheapest, otherwise the fastest.

    Options that pass the check come first, unless `advice:` names an overhead, which is then used up to its limit.
    None: no option meets the limits.
    """
    limits, check, law = plan.advice, plan.check, options.law
    if limits.max_compute_overhead is not None:
        check = check.model_copy(update={"max_compute_overhead": limits.max_compute_overhead})
    deadline = limits.deadline
    met = [
        option
        for option in options.within(options.planned if deadline is None else options.all)
        if _within(option, options, limits)
        and (deadline is None or options.run_seconds(option, law) <= deadline)
    ]
    allowed = _passing(met, options, check)

    def measure(option: Option) -> float:
        return option.time(law) if deadline is None else option.cost(law)

    def uncertain(option: Option) -> tuple[float, float]:
        low, high = option.uncertainty
        return low * measure(option), high * measure(option)

    chosen = options.first(allowed, measure)
    if chosen is None:
        return None
    others = rivals(min(allowed, key=measure), allowed, uncertain)
    return Choice(option=chosen, rivals=tuple(others), balanced=options.nearest(allowed))


def chosen_for(chosen: Option, options: Options, limits: Advice) -> tuple[Role, ...]:
    """The limits for which an option was chosen: the limits of `advice:`, or the overhead that the check allows."""
    if named := roles(limits):
        return named
    return () if chosen is options.fastest else ("max_compute_overhead",)


def _passing(met: list[Option], options: Options, check: Check) -> list[Option]:
    """The options that pass the check; all of them if none does."""
    return [option for option in met if not beyond_the_check(option.batch_size, options.law, check)] or met


def beyond_the_check(batch_size: int, law: Law, check: Check) -> str:
    """A sentence on the limit of `check:` that a batch size does not keep; empty if it keeps both."""
    if batch_size > law.batch_size(check.max_compute_overhead):
        allowed = percent(check.max_compute_overhead)
        return f"`bnoise check` allows less: {allowed} more than the fewest examples (check.max_compute_overhead)."
    asked = check.min_time_efficiency
    if asked is not None and 1 / law.steps(batch_size) < asked:
        return f"`bnoise check` asks for more: {percent(asked)} of the speed in steps (check.min_time_efficiency)."
    return ""


def impossible(options: Options, limits: Advice) -> Doubt:
    """Why no option meets the limits, and what would help."""
    law, world = options.law, options.training.world_size
    allowed = [option for option in options.planned if _within(option, options, limits)]
    if not allowed:
        overhead = limits.max_compute_overhead or 0.0
        least = min(option.batch_size for option in options.planned)
        devices, spent = math.floor(law.batch_size(overhead)), law.examples(least) - 1
        fewer = f", or train on at most {count(devices)} devices (training.world_size)" if devices else ""
        return Doubt(
            code="max_compute_overhead",
            finding=f"no batch on {_devices(world)} spends at most {percent(overhead)} more than the fewest examples; "
            f"the smallest, {count(least)}, spends {percent(spent)} more",
            remedy=f"Allow at least {significant(_up(spent))} (advice.max_compute_overhead){fewer}.",
            about="advice",
        )
    assert limits.deadline is not None
    best = min(allowed, key=lambda option: option.time(law))
    takes = options.run_seconds(best, law)
    part = limits.deadline / takes
    ways = [f"Allow at least {_duration(takes)} (advice.deadline)"]
    if limits.max_compute_overhead is not None:
        fast = [o.batch_size for o in options.all if options.run_seconds(o, law) <= limits.deadline]
        if fast:
            needed = significant(_up(law.examples(min(fast)) - 1))
            ways.append(f"allow a compute overhead of {needed} (advice.max_compute_overhead)")
    if more := _enough_devices(options, limits, limits.deadline):
        longer = "no time" if options.throughput.world_size == 1 else "no longer"
        ways.append(
            f"train on {count(more)} devices, if exchanging gradients took {longer} (training.world_size)"
        )
    length = "examples" if options.training.examples is not None else "steps"
    possible = math.floor(part * (options.training.examples or options.training.steps or 0))
    if possible:
        ways.append(f"plan at most {count(possible)} {length} (training.{length})")
    return Doubt(
        code="deadline",
        finding=f"no batch on {_devices(world)} ends within {seconds(limits.deadline)}; the fastest"
        + (" within the allowed overhead" if limits.max_compute_overhead is not None else "")
        + f", {count(best.batch_size)}, takes {seconds(takes)}",
        remedy=", or ".join(ways) + ".",
        about="advice",
    )


def _within(option: Option, options: Options, limits: Advice) -> bool:
    """E/E_min − 1 at most the allowed overhead."""
    allowed = limits.max_compute_overhead
    return allowed is None or option.batch_size <= options.law.batch_size(allowed)


def _enough_devices(options: Options, limits: Advice, deadline: float) -> int | None:
    world = options.training.world_size
    while world < _MOST_DEVICES * options.training.world_size:
        world *= 2
        met = [option for option in options.on(world) if _within(option, options, limits)]
        if any(options.run_seconds(option, options.law) <= deadline for option in met):
            return world
        if world > RANGE * options.law.critical:
            break
    return None


def _up(value: float) -> float:
    """The value rounded up to three digits, so that a limit of this value can be met."""
    scale = 10.0 ** (2 - math.floor(math.log10(value)))
    return math.ceil(value * scale) / scale


def _duration(value: float) -> str:
    """The time rounded up, as a config takes it."""
    for unit, length in (("s", 1), ("m", 60)):
        if value <= 100 * length:
            return f"{math.ceil(value / length)}{unit}"
    return f"{math.ceil(value / 360) / 10:g}h"


def _devices(number: int) -> str:
    return f"{count(number)} device" + ("s" if number > 1 else "")
