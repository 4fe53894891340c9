"""The horizon of a probe as it is stored, the B_crit that it shows, and the doubts about it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bnoise_cli.measurement.outcome import before_doubling
from bnoise_cli.numbers import count, significant
from bnoise_cli.records import Doubt, Estimate, Horizon, HorizonBatch

if TYPE_CHECKING:
    from bnoise_cli.maths.horizon import Level
    from bnoise_cli.measurement.outcome import HorizonFound, Measurement

#: A curve shorter than this says little, even if it does not move: B_crit may be this factor lower, and has no upper
#: limit. On a GPT it was 47 over 8 steps and about 200 over 32. At first the loss may fall by a lower learning rate
#: alone, and B_crit is far too low.
_SHORT, _SHORT_FACTOR = 16, 2.0
#: If the best learning rate is lower than the planned one by this factor, early steps are annealing: the loss falls at
#: once, without progress.
_ANNEALED = 4.0


def horizon_record(found: HorizonFound | None) -> Horizon | None:
    """The horizon as it is stored; None if there is none."""
    if found is None:
        return None
    return Horizon(
        start_loss=found.start_loss,
        planned_learning_rate=found.base_rate,
        stands_still=found.stands_still,
        evaluation_examples=found.evaluation_examples,
        gradient_examples=found.gradient_examples,
        seconds=round(found.seconds, 3),
        curve=tuple(level.point() for level in found.levels),
        batches=tuple(
            HorizonBatch(
                batch_size=point.batch_size,
                learning_rate=found.base_rate * 2**point.log_rate,
                steps=math.exp(point.log_steps),
            )
            for point in found.batches
        ),
        runs=found.runs,
    )


def horizon_estimate(found: HorizonFound) -> Estimate:
    """B_crit of the training to the last loss of the curve.

    If the curve still moves, the interval reaches as much further as the last doubling of the steps moved it; unless
    the loss is so low that the answer is about all that is left of training.
    """
    last = found.levels[-1].fit.critical
    if found.asked is None and found.levels[-1].steps < _SHORT:
        return Estimate(value=last.value, low=last.low / _SHORT_FACTOR, high=None)
    change = _change(found)
    if found.stands_still or found.is_far or change is None:
        return last
    high = last.high * max(change, 1.0) if last.high is not None else None
    return Estimate(value=last.value, low=last.low * min(change, 1.0), high=high)


def _change(found: HorizonFound) -> float | None:
    """The factor by which the last doubling of the steps changed B_crit; None with a single level."""
    if (before := _before(found)) is None:
        return None
    last = found.levels[-1]
    doublings = max(math.log2(last.steps / before.steps), 1.0)
    return math.exp((last.fit.log_critical - before.fit.log_critical) / doublings)


def _before(found: HorizonFound) -> Level | None:
    """The level that lies a doubling of the steps before the last one, or else the one before it."""
    *earlier, _ = found.levels
    return before_doubling(found.levels) or (earlier[-1] if earlier else None)


def horizon_doubts(point: Measurement, *, is_off: bool) -> Iterator[Doubt]:
    """Why the answer that training shows, or its absence, is to be doubted.

    Args:
        is_off: whether the config asks for no horizon.
    """
    found = point.horizon
    if found is None:
        sweep = "or measure with `bnoise sweep`."
        longer = "Raise --budget (or probe.max_examples)"
        yield Doubt(
            code="one_step",
            finding="B_crit is that of one step alone, and training from the same weights has shown 2 to 20 times less "
            f"or more. No horizon: {point.no_horizon}",
            remedy=f"Set probe.horizon: auto, {sweep}" if is_off else f"{longer}, {sweep}",
        )
        return
    if point.no_one_step is not None:
        yield Doubt(
            code="no_one_step",
            finding=f"{point.no_one_step}; the critical batch size is what training runs show",
            remedy="Nothing to do: training runs are the better measurement. There is no second opinion beside them.",
        )
    yield from _about_movement(found)
    yield from _about_rates(found)


def _about_movement(found: HorizonFound) -> Iterator[Doubt]:
    last, change = found.levels[-1], _change(found)
    short = f"the training runs went {count(last.steps)} steps of a large batch far"
    is_asked = found.asked is not None and last.steps >= found.asked
    farther = f"Set probe.horizon: {4 * last.steps}"
    more = farther if is_asked else "Raise --budget or probe.max_examples"
    if found.asked is not None and last.steps < found.asked:
        short = f"{short}, and probe.horizon asks for {count(found.asked)}"
        yield Doubt(code="horizon_short", finding=short, remedy=f"{more}.")
    elif change is None:
        short = f"{short}, to a single loss: whether the critical batch size changes after that is not known"
        yield Doubt(code="horizon_short", finding=short, remedy=f"{more}.")
    before = _before(found)
    if found.stands_still or before is None or change is None:
        return
    if 1 / 1.15 <= change <= 1.15 and last.steps >= _SHORT:
        return
    moves = "rise" if change > 1 else "fall"
    is_sure = abs(last.fit.log_critical - before.fit.log_critical) > last.fit.log_error
    moves = f"still {moves}s" if is_sure else f"may still {moves}"
    yield Doubt(
        code="horizon_moves",
        finding=f"the critical batch size {moves} with the length of training: "
        f"{significant(before.fit.critical.value)} over {count(before.steps)} steps of a large batch, "
        f"{significant(last.fit.critical.value)} over {count(last.steps)}",
        remedy=f"It holds for training to a loss of {significant(last.loss)}. {farther if found.is_far else more} to "
        "look further ahead, or probe again from a later checkpoint.",
    )


def _about_rates(found: HorizonFound) -> Iterator[Doubt]:
    """A start at the noise floor of its learning rate: lowering the rate makes the loss fall at once."""
    best = {point.batch_size: 2**point.log_rate for point in found.levels[-1].arrivals}
    if found.levels[-1].steps < _SHORT and min(best.values()) < 1 / _ANNEALED:
        yield Doubt(
            code="annealing",
            finding="the loss falls at once when the learning rate is lowered: the start lies on the noise floor of "
            "the planned rate, and the first steps of every run gain by that and not by progress",
            remedy="Raise --budget, so that the runs go beyond it.",
        )
