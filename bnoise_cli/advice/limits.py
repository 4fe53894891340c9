"""The user's own limits: which options meet them, and what would make an impossible limit possible."""

from __future__ import annotations

import math
from typing import Literal

from bnoise_cli.advice.choices import RANGE, Option, Options
from bnoise_cli.numbers import count, percent, seconds, significant
from bnoise_cli.records import Doubt, Role
from bnoise_cli.spec.schema import Advice

#: Codes of doubts that say a limit of the config cannot be met.
IMPOSSIBLE: tuple[Literal["deadline", "max_compute_overhead"], ...] = ("deadline", "max_compute_overhead")
#: Devices are added up to so many times the planned ones when a deadline asks for more.
_MOST_DEVICES = 4096


def roles(limits: Advice) -> tuple[Role, ...]:
    """The limits that the config names."""
    return tuple(name for name in IMPOSSIBLE if getattr(limits, name) is not None)


def choose(options: Options, limits: Advice) -> Option | None:
    """The option that meets all limits: with a deadline the cheapest, otherwise the fastest; None: there is none."""
    critical = options.critical
    if limits.deadline is None:
        met = [option for option in options.planned if _within(option, options, limits)]
        return min(met, key=lambda option: option.time(critical), default=None)
    met = [
        option
        for option in options.all
        if _within(option, options, limits) and options.run_seconds(option, critical) <= limits.deadline
    ]
    return min(met, key=lambda option: option.cost(critical), default=None)


def impossible(options: Options, limits: Advice) -> Doubt:
    """Why no option meets the limits, and what would help."""
    critical, world = options.critical, options.training.world_size
    allowed = [option for option in options.planned if _within(option, options, limits)]
    if not allowed:
        overhead = limits.max_compute_overhead or 0.0
        least = min(option.batch_size for option in options.planned)
        devices = math.floor(overhead * critical)
        fewer = f", or train on at most {count(devices)} devices (training.world_size)" if devices else ""
        return Doubt(
            code="max_compute_overhead",
            finding=f"no batch on {_devices(world)} spends at most {percent(overhead)} more than the fewest examples; "
            f"the smallest, {count(least)}, spends {percent(least / critical)} more",
            remedy=f"Allow at least {significant(_up(least / critical))} (advice.max_compute_overhead){fewer}.",
            about="advice",
        )
    assert limits.deadline is not None
    best = min(allowed, key=lambda option: option.time(critical))
    takes = options.run_seconds(best, critical)
    part = limits.deadline / takes
    ways = [f"Allow at least {_duration(takes)} (advice.deadline)"]
    if limits.max_compute_overhead is not None:
        fast = [o.batch_size for o in options.all if options.run_seconds(o, critical) <= limits.deadline]
        if fast:
            needed = significant(_up(min(fast) / critical))
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
    """E/E_min − 1 = B/B_crit at most the allowed overhead."""
    allowed = limits.max_compute_overhead
    return allowed is None or option.batch_size <= allowed * options.critical


def _enough_devices(options: Options, limits: Advice, deadline: float) -> int | None:
    world = options.training.world_size
    while world < _MOST_DEVICES * options.training.world_size:
        world *= 2
        met = [option for option in options.on(world) if _within(option, options, limits)]
        if any(options.run_seconds(option, options.critical) <= deadline for option in met):
            return world
        if world > RANGE * options.critical:
            break
    return None


def _up(value: float) -> float:
    """Rounded up to three digits, so that the figure named is enough."""
    scale = 10.0 ** (2 - math.floor(math.log10(value)))
    return math.ceil(value * scale) / scale


def _duration(value: float) -> str:
    """Rounded up, in the form that a config takes."""
    for unit, length in (("s", 1), ("m", 60)):
        if value <= 100 * length:
            return f"{math.ceil(value / length)}{unit}"
    return f"{math.ceil(value / 360) / 10:g}h"


def _devices(number: int) -> str:
    return f"{count(number)} device" + ("s" if number > 1 else "")
