"""A report as text for a terminal, a pipe or a log."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnoise_cli.errors import harmless
from bnoise_cli.report.document import Drawing, Grid, Part, Remark, Section, Sentence, Tone

#: Replacements for a terminal without UTF-8.
_ASCII = str.maketrans(
    {
        "Δ": "d", "×": "x", "±": "+-", "−": "-", "–": "-", "∞": "inf", "≥": ">=", "≤": "<=", "²": "^2", "½": "1/2",
        "Σ": "S", "ε": "e", "θ": "theta", "·": "*", "…": "...", "→": "->", "‖": "|", "α": "alpha", "β": "beta",
        "₀": "0", "₁": "1", "µ": "u", "●": "o", "│": "|", "┊": ":", "└": "+", "─": "-", "•": ".", "∝": "~",
        "γ": "gamma",
    }
)  # fmt: skip
_STYLES = {
    Tone.GOOD: "bold green",
    Tone.UNSURE: "bold yellow",
    Tone.PLAIN: "",
    Tone.DETAIL: "dim",
    Tone.KNOWN: "cyan",
}
_INDENT = 2

Line = Text | Table | Padding


def render(lines: Iterable[Line], *, width: int, color: bool, encoding: str) -> str:
    """Render lines as text of the given width, in characters that the encoding has."""
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        color_system="auto" if color else None,
        highlight=False,
        emoji=False,
        markup=False,
    )
    for line in lines:
        console.print(line, no_wrap=False)
    text = "\n".join(line.rstrip() for line in buffer.getvalue().split("\n"))
    return text if can_show(text, encoding) else to_ascii(text)


def can_show(text: str, encoding: str) -> bool:
    """True if an encoding has all characters of a text."""
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def to_ascii(text: str) -> str:
    """The text in plain ASCII; unknown characters become question marks."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def layout(sections: Sequence[Section], width: int) -> list[Line]:
    """The lines of all sections, with an empty line between two sections."""
    lines: list[Line] = []
    for section in sections:
        lines += [Text()] if lines else []
        if section.headline is not None:
            headline = (harmless(section.headline.text), _STYLES[section.headline.tone])
            lines.append(Text.assemble((harmless(section.title), "bold"), "  ", headline))
        elif section.parts and not isinstance(section.parts[0], Drawing):
            lines.append(Text(harmless(section.title), "bold"))
        for part in section.parts:
            lines += _part(part, width)
    return lines


def _part(part: Part, width: int) -> list[Line]:
    match part:
        case Sentence():
            return [Padding(Text(harmless(part.text), _STYLES[part.tone]), (0, 0, 0, _INDENT))]
        case Remark():
            finding = Text.assemble((f"{harmless(part.name)}: ", "bold yellow"), harmless(part.finding))
            return [
                Padding(finding, (0, 0, 0, _INDENT)),
                Padding(Text(harmless(part.remedy), "dim"), (0, 0, 0, 2 * _INDENT)),
            ]
        case Drawing():
            return [Text(harmless(line), no_wrap=True, overflow="crop") for line in part.lines]
        case Grid():
            return [_table(part.within(width))]


def _table(grid: Grid) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in grid.columns:
        head = "\n".join(map(harmless, column.split("\n")))
        table.add_column(head, justify="left" if column in grid.words else "right", overflow="fold")
    for i, row in enumerate(grid.rows):
        table.add_row(*map(harmless, row), style="bold" if i in grid.strong else None)
    return table
