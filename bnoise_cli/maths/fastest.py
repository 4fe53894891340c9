"""Whether the fastest batch size is known, although step times have an uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bnoise_cli.maths.step_time import Split, StepTimes
from bnoise_cli.maths.tradeoff import RANGE, usual_batch_sizes
from bnoise_cli.records import Law, Throughput

#: The fastest batch size is known if no other one may be faster by more than this fraction of the time.
KNOWN = 0.1

T = TypeVar("T")


def rivals(chosen: T, options: Iterable[T], limits: Callable[[T], tuple[float, float]]) -> list[T]:
    """The options that may take less than 1/(1 + KNOWN) of the time of the chosen one.

    Args:
        limits: the least and the most time that an option may take, or what else counts.
    """
    most = limits(chosen)[1]
    return [option for option in options if option is not chosen and (1 + KNOWN) * limits(option)[0] < most]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A batch size with the split of one device's part of it, and S(B)/S_min."""

    batch_size: int
    split: Split
    steps: float

    def limits(self) -> tuple[float, float]:
        return self.steps * self.split.low_seconds, self.steps * self.split.high_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What step times are measured for: to know which batch size is the fastest."""

    law: Law
    world_size: int = 1
    #: Examples that must go through the model together.
    group: int = 1
    #: Examples over the fewest, less 1, that a recommended batch size may spend.
    max_compute_overhead: float = math.inf

    def unsettled(self, found: Throughput) -> Sequence[int]:
        """The measured micro-batch sizes whose times must be known better; none if the fastest batch size is known."""
        times, world = StepTimes(found), self.world_size
        largest = max(RANGE * self.law.critical / world, found.largest_micro_batch_size, self.group)
        candidates = [
            _Candidate(
                batch_size=world * each,
                split=times.best_split(each, exchange=world > 1, group=self.group),
                steps=self.law.steps(world * each),
            )
            for each in usual_batch_sizes(largest, self.group)
        ]
        limit = self.law.batch_size(self.max_compute_overhead)
        allowed = [one for one in candidates if one.batch_size <= limit] or candidates
        fastest = min(allowed, key=lambda one: one.steps * one.split.seconds)
        others = rivals(fastest, allowed, _Candidate.limits)
        asked = {one.split.micro_batch_size for one in (fastest, *others)} if others else set()
        sizes = [step.micro_batch_size for step in found.step_times]
        below = {max((s for s in sizes if s <= size), default=sizes[0]) for size in asked}
        above = {min((s for s in sizes if s >= size), default=sizes[-1]) for size in asked}
        return sorted(below | above)
