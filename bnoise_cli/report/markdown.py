"""A report as Markdown in GitHub's dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bnoise_cli.errors import printable
from bnoise_cli.report.document import Drawing, Grid, Part, Remark, Section, Sentence

#: A space of no width. Characters on its sides are shown as they are and do not make a link or a mention.
_BREAK = "\u200b"


def markdown(title: str, sections: Sequence[Section], picture: str | None) -> str:
    """Sections as one page of Markdown.

    Args:
        picture: link to the picture of the first section, or None.
    """
    blocks = [f"# {_md(title)}"]
    for section in sections:
        blocks.append(f"## {_md(section.title)}")
        if section.headline is not None:
            blocks.append(f"**{_md(section.headline.text)}**")
        blocks += [_markdown_part(part) for part in section.parts]
        if picture is not None and section is sections[0]:
            blocks.append(f"![what a step gains, the trade-off and the training speed](<{picture}>)")
    return "\n\n".join(blocks) + "\n"


def _markdown_part(part: Part) -> str:
    match part:
        case Sentence():
            return _md(part.text)
        case Remark():
            return f"- **{_md(part.name)}**: {_md(part.finding)} {_md(part.remedy)}"
        case Drawing():
            return "\n".join(("```text", *part.lines, "```"))
        case Grid():
            rules = [":--" if column in part.words else "--:" for column in part.columns]
            lines = (one_line(part.columns), rules, *part.rows)
            cells = [[_md(cell) if line is not rules else cell for cell in line] for line in lines]
            return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def one_line(columns: Sequence[str]) -> list[str]:
    """Column headings without line breaks."""
    return [column.replace("-\n", "-").replace("\n", " ") for column in columns]


def _md(text: str) -> str:
    """Text that Markdown shows as it is: without markup, links, mentions, and what makes a list or a rule of a line."""
    text = printable(text.replace("\n", " ")).strip()
    for special in "\\`*_{}[]<>|#~":
        text = text.replace(special, f"\\{special}")
    text = re.sub(r"(?<=@)(?=\w)|(?<=:)(?=//)|(?i:(?<=www)(?=\.))", _BREAK, text)
    return re.sub(r"^(?=[-+](?:\s|$)|[-=]{2}|\d+[.)](?:\s|$))", _BREAK, text)
