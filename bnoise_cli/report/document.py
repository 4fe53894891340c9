"""The contents of a report before it is laid out: sections of sentences, tables and drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class Tone(StrEnum):
    """The weight of a sentence; renderers turn it into a style."""

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
    """A named finding and its remedy."""

    name: str
    finding: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table. Columns of numbers are aligned to the right, columns of words to the left."""

    columns: tuple[str, ...]  # a narrow head breaks at the line breaks of the text
    rows: tuple[tuple[str, ...], ...]
    spare: tuple[str, ...] = ()  # columns to leave out if there is no room, the first one first
    words: frozenset[str] = frozenset()  # columns that hold words
    #: Positions of rows to emphasise.
    strong: frozenset[int] = frozenset()
    #: Positions of rows that the whole report alone has.
    detail: frozenset[int] = frozenset()

    def within(self, width: int) -> Grid:
        """The table without spare columns, dropped one by one until it fits `width` characters."""
        for number in range(len(self.spare) + 1):
            grid = self._without(self.spare[:number])
            if grid.width() <= width:
                break
        return grid

    def without_empty(self, *columns: str) -> Grid:
        """The table without those of `columns` that are empty in every row."""
        empty = (c for c in columns if not any(row[self.columns.index(c)] for row in self.rows))
        return self._without(tuple(empty))

    def in_short(self) -> Grid:
        """The table without the rows that the whole report alone has."""
        kept = [i for i in range(len(self.rows)) if i not in self.detail]
        return replace(
            self,
            rows=tuple(self.rows[i] for i in kept),
            strong=frozenset(new for new, old in enumerate(kept) if old in self.strong),
            detail=frozenset(),
        )

    def width(self) -> int:
        """Width of the table in characters, with two spaces between columns."""
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
            strong=self.strong,
            detail=self.detail,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A picture made of characters. It needs a font of fixed width."""

    lines: tuple[str, ...]


Part = Sentence | Remark | Grid | Drawing


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of the report. Its headline is a summary in one line."""

    title: str
    headline: Sentence | None = None
    parts: Sequence[Part] = ()
    #: Whether the whole report alone has it.
    detail: bool = False


def in_short(sections: Sequence[Section]) -> list[Section]:
    """The short report: without the sections, and without the rows of tables, that the whole report alone has."""
    return [
        replace(
            section, parts=[part.in_short() if isinstance(part, Grid) else part for part in section.parts]
        )
        for section in sections
        if not section.detail
    ]
