"""Which examples of one replicate make an update at which batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: More blocks than this at one batch size add lines to evaluate and hardly any precision.
MOST_BLOCKS = 16
#: The measured batch sizes, as parts of the largest. With a ratio of two, medium
#: blocks use examples that are worth more in small ones (relative error of 1/B_noise in simulation 0.32, here 0.22).
PARTS = (64, 16, 4, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One batch size of a replicate, in the order in which its examples are drawn."""

    batch_size: int
    blocks: int  # separate updates of `batch_size` fresh examples; 0: the mean of all drawn so far

    @property
    def lines(self) -> int:
        """Updates that are evaluated at this batch size."""
        return max(self.blocks, 1)


def plan_pass(batch_sizes: Sequence[int]) -> tuple[Stage, ...]:
    """Lay out one pass over as many examples as the largest batch size, which serves all of them.

    Every example belongs to one block, and all blocks add up to the largest batch. The smaller batch sizes get about
    equal shares of the examples: many updates of small batches, one of the largest. A batch size that would leave no
    room for the smaller ones is nested: its update is the mean of all examples drawn so far.

    Args:
        batch_sizes: ascending, distinct, in examples.
    """
    *smaller, largest = batch_sizes
    stages = [Stage(batch_size=largest, blocks=0)]
    room = largest
    for position in range(len(smaller) - 1, -1, -1):
        size, below = smaller[position], sum(smaller[:position])
        if size + below > room:
            stages.insert(0, Stage(batch_size=size, blocks=0))
            room = size
            continue
        share = min(room // (position + 1), room - below)
        blocks = max(1, min(MOST_BLOCKS, share // size))
        stages.insert(0, Stage(batch_size=size, blocks=blocks))
        room -= blocks * size
    return tuple(stages)


def batch_sizes_up_to(largest: int) -> tuple[int, ...]:
    """The batch sizes measured when the largest is `largest`, ascending."""
    return tuple(sorted({max(1, largest // part) for part in PARTS}))
