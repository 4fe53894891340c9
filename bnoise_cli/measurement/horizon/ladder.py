"""The batch sizes that a horizon trains: a ladder that is moved until B_crit lies well inside it."""

from __future__ import annotations

import math

#: The first ladder, as multiples of the guess; they lie a factor of 4 apart.
_FIRST = (1 / 8, 1 / 2, 2, 8)
#: The ladder is moved until B_crit lies at least this factor inside its ends.
_INSIDE = 3.0
#: More batch sizes than this are given up from that end whose second size lies this factor beyond B_crit.
_SIZES, _FAR_ENOUGH = 4, 4.0


class Ladder:
    """Batch sizes, ascending.

    Args:
        guess: where B_crit is looked for first, in examples.
        least, most: the smallest and the largest batch size.
        group: every batch size is a multiple of it.
    """

    def __init__(self, guess: float, *, least: int, most: int, group: int) -> None:
        self._least, self._most, self._group = least, most, group
        sizes = sorted({self._allowed(guess * part) for part in _FIRST})
        while len(sizes) < 3 and (larger := self._allowed(4 * sizes[-1])) > sizes[-1]:
            sizes.append(larger)
        while len(sizes) < 3 and (smaller := self._allowed(sizes[0] / 4)) < sizes[0]:
            sizes.insert(0, smaller)
        self.sizes = sizes

    def move(self, log_critical: float, margin: float) -> bool:
        """Add a batch size beyond the end that B_crit is too near to; whether there was one to add.

        Args:
            margin: of log B_crit; it must be below the ladder by so much more for a smaller size to be added. Small
                batches take long, and noise and momentum can decide the first few steps.
        """
        low, high = self.sizes[0], self.sizes[-1]
        if log_critical + margin < math.log(_INSIDE * low) and (smaller := self._allowed(low / 4)) < low:
            self.sizes.insert(0, smaller)
            return True
        if self.is_low(log_critical):
            self.sizes.append(self._allowed(high * 4))
            return True
        return False

    def is_low(self, log_critical: float) -> bool:
        """Whether B_crit is too near to the upper end, and a larger batch size is allowed."""
        high = self.sizes[-1]
        return log_critical > math.log(high / _INSIDE) and self._allowed(high * 4) > high

    def trim(self, log_critical: float) -> None:
        """Leave out batch sizes far from B_crit: the largest take many examples, the smallest many steps."""
        far = math.log(_FAR_ENOUGH)
        while len(self.sizes) > _SIZES and math.log(self.sizes[-2]) >= log_critical + far:
            self.sizes.pop()
        while len(self.sizes) > _SIZES and math.log(self.sizes[1]) <= log_critical - far:
            self.sizes.pop(0)

    def _allowed(self, size: float) -> int:
        """The nearest power of two of groups between the least and the most."""
        least, most = max(self._least, self._group), max(self._most, self._group)
        groups = 2.0 ** round(math.log2(max(size / self._group, 1)))
        return int(self._group * min(max(groups, least // self._group), most // self._group))
