"""The batch sizes that a horizon trains: a ladder that is moved until B_crit lies well inside it."""

from __future__ import annotations

import math
from collections.abc import Callable

#: The first ladder, as multiples of the guess; they lie a factor of 4 apart.
_FIRST = (1 / 8, 1 / 2, 2, 8)
#: The ladder is moved until B_crit lies at least this factor inside its ends.
_INSIDE = 3.0
#: More batch sizes than this are given up from that end whose second size lies this factor beyond B_crit.
_SIZES, _FAR_ENOUGH = 4, 4.0
#: Most moves of the ladder at one level, against going round in circles.
MOST_MOVES = 4


class Ladder:
    """Batch sizes, ascending.

    Args:
        guess: where B_crit is looked for first, in examples.
        least, most: the smallest and the largest batch size.
        group: every batch size is a multiple of it.
    """

    def __init__(self, guess: float, *, least: int, most: int, group: int) -> None:
        self._least, self._most, self._group = least, most, group
        sizes = sorted({self.allowed(guess * part) for part in _FIRST})
        while len(sizes) < 3 and (larger := self.allowed(4 * sizes[-1])) > sizes[-1]:
            sizes.append(larger)
        while len(sizes) < 3 and (smaller := self.allowed(sizes[0] / 4)) < sizes[0]:
            sizes.insert(0, smaller)
        self.sizes = sizes

    def move(self, log_critical: float, is_sure: Callable[[float], bool] = lambda _: True) -> bool:
        """Add a batch size beyond the end that B_crit is too near to; whether there was one to add.

        Args:
            is_sure: whether B_crit surely differs from a limit, whose logarithm is given. Large batches take many
                examples and small ones many steps, and noise and momentum can decide the first few steps.
        """
        low, limit = self.sizes[0], math.log(_INSIDE * self.sizes[0])
        if log_critical < limit and is_sure(limit) and (smaller := self.allowed(low / 4)) < low:
            self.sizes.insert(0, smaller)
            return True
        if self.is_low(log_critical, is_sure):
            self.sizes.append(self.allowed(4 * self.sizes[-1]))
            return True
        return False

    def is_low(self, log_critical: float, is_sure: Callable[[float], bool]) -> bool:
        """Whether B_crit is too near to the upper end, and a larger batch size is allowed."""
        high, limit = self.sizes[-1], math.log(self.sizes[-1] / _INSIDE)
        return log_critical > limit and is_sure(limit) and self.allowed(4 * high) > high

    def trim(self, log_critical: float) -> None:
        """Leave out batch sizes far from B_crit: the largest take many examples, the smallest many steps."""
        far = math.log(_FAR_ENOUGH)
        while len(self.sizes) > _SIZES and math.log(self.sizes[-2]) >= log_critical + far:
            self.sizes.pop()
        while len(self.sizes) > _SIZES and math.log(self.sizes[1]) <= log_critical - far:
            self.sizes.pop(0)

    def allowed(self, size: float) -> int:
        """The nearest power of two of groups between the least and the most."""
        least, most = max(self._least, self._group), max(self._most, self._group)
        groups = 2.0 ** round(math.log2(max(size / self._group, 1)))
        return int(self._group * min(max(groups, least // self._group), most // self._group))
