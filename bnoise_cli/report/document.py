"""What a report says, before it is known where: sections of sentences and grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Tone(StrEnum):
    """How much a sentence matters."""

    GOOD = "good"
    UNSURE = "unsure"
    PLAIN = "plain"
    DETAIL = "detail"
    KNOWN = "known"  # an exact answer


@dataclass(frozen=True, slots=True)
class Sentence:
    """A line of text."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Remark:
    """A named finding with what to do about it."""

    name: str
    finding: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table; numbers stand to the right, words to the left."""

    columns: tuple[str, ...]  # a line break is where a narrow head may break
    rows: tuple[tuple[str, ...], ...]
    spare: tuple[str, ...] = ()  # columns to leave out where space is short, the first one first
    words: frozenset[str] = frozenset()  # columns that hold words

    def within(self, width: int) -> Grid:
        """Without as many of its spare columns as it takes to fit `width` characters."""
        for number in range(len(self.spare) + 1):
            grid = self._without(self.spare[:number])
            if grid.width() <= width:
                break
        return grid

    def without_empty(self, *columns: str) -> Grid:
        """Without those of `columns` that have nothing in any row."""
        empty = (c for c in columns if not any(row[self.columns.index(c)] for row in self.rows))
        return self._without(tuple(empty))

    def width(self) -> int:
        """Characters of a row, two between columns."""
        cells = zip(self.columns, *self.rows, strict=True)
        widest = [max(len(line) for cell in column for line in cell.split("\n")) for column in cells]
        return sum(widest) + 2 * (len(widest) - 1)

    def _without(self, dropped: tuple[str, ...]) -> Grid:
        kept = [i for i, column in enumerate(self.columns) if column not in dropped]
        return Grid(
            columns=tuple(self.columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in self.rows),
            spare=tuple(column for column in self.spare if column not in dropped),
            words=self.words,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Characters that make a picture, where they are as wide as one another."""

    lines: tuple[str, ...]


Part = Sentence | Remark | Grid | Drawing


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report; the headline says it all in one line."""

    title: str
    headline: Sentence | None = None
    parts: Sequence[Part] = ()
