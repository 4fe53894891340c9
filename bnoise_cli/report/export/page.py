"""`--page`: a report as a page, Markdown for a pull request, or one self-contained HTML file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bnoise_cli.errors import RunError
from bnoise_cli.report.document import Drawing, Grid, Part, Remark, Section, Sentence
from bnoise_cli.report.export.export import Results, into_file
from bnoise_cli.report.export.plot import FORMATS as PICTURES
from bnoise_cli.report.markdown import markdown, one_line
from bnoise_cli.storage import real, write_whole

_FORMATS = (".md", ".html")
_CSS = """
:root { color-scheme: light dark; --text: #222; --back: #fff; --soft: #666; --line: #ddd; --good: #00604a;
  --unsure: #a04000; --mark: #eef5f2; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--text); background: var(--back); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
p { margin: .2rem 0; } .good, .known { font-weight: 600; color: var(--good); }
.unsure { font-weight: 600; color: var(--unsure); }
.detail { color: var(--soft); font-size: .9rem; } .scroll, pre { overflow-x: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem;
  margin: 1rem 0; } svg { width: 100%; max-width: 34rem; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { vertical-align: bottom; } .words { text-align: left; } .strong { font-weight: 600; background: var(--mark); }
@media (prefers-color-scheme: dark) { :root { --text: #ddd; --back: #111; --soft: #999; --line: #333;
  --good: #5fd0a8; --unsure: #ff9d5c; --mark: #1d2a26; } svg { filter: invert(.9) hue-rotate(180deg); } }
@media (max-width: 40rem) { body { padding: 0 .5rem; } table { font-size: .75rem; } th, td { padding: .2rem .25rem; }
  th, .words { white-space: normal; } .spare { display: none; } }
"""


def write_page(results: Results, path: Path, picture: Path | None) -> None:
    """Write the report on results.

    Args:
        picture: file with the pictures, to which Markdown links. HTML contains its own pictures.

    Raises:
        RunError: the file cannot be written.
    """
    from bnoise_cli.report.plots.draw import svgs
    from bnoise_cli.report.sections import report_sections

    sections = report_sections(results)
    title = "bnoise: " + ", ".join(name for name, _ in results)
    if path.suffix.lower() == ".md":
        link = None if picture is None else os.path.relpath(real(picture), real(path).parent)
        text = markdown(title, sections, None if link is None else Path(link).as_posix())
    else:
        try:
            drawn = svgs(results)
        except RunError:
            drawn = []
        text = html(title, sections, drawn)
    write_whole(path, lambda file: file.write(text.encode()))


def html(title: str, sections: Sequence[Section], pictures: Sequence[str]) -> str:
    """Sections as one HTML page that loads no other files."""
    blocks = [f"<h1>{escape(title)}</h1>"]
    # The pictures follow the advice, or else the answer; a comparison has neither.
    said = [section for section in sections if section.title in ("Critical batch size", "Recommended batch")]
    last = said[-1] if said else sections[0]
    for section in sections:
        blocks.append(f"<h2>{escape(section.title)}</h2>")
        if section.headline is not None:
            blocks.append(_paragraph(section.headline))
        blocks += [_html_part(part) for part in section.parts]
        if section is last and pictures:
            blocks.append(f'<div class="pictures">{"".join(pictures)}</div>')
    body = "\n".join(blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(title)}</title>\n'
        f"<style>{_CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html_part(part: Part) -> str:
    match part:
        case Sentence():
            return _paragraph(part)
        case Remark():
            finding = f"<p><b>{escape(part.name)}</b>: {_text(part.finding)} "
            return f'{finding}<span class="detail">{_text(part.remedy)}</span></p>'
        case Drawing():
            return f"<pre>{escape(chr(10).join(part.lines))}</pre>"
        case Grid():
            heads = _html_cells("th", one_line(part.columns), part)
            rows = "\n".join(
                f"<tr{' class=strong' if i in part.strong else ''}>{_html_cells('td', row, part)}</tr>"
                for i, row in enumerate(part.rows)
            )
            head = f"<thead><tr>{heads}</tr></thead>"
            return f'<div class="scroll"><table>\n{head}\n<tbody>{rows}</tbody>\n</table></div>'


def _paragraph(sentence: Sentence) -> str:
    return f'<p class="{sentence.tone}">{_text(sentence.text)}</p>'


def _text(text: str) -> str:
    """Text with `code` in a font of its own."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _html_cells(tag: str, cells: Sequence[str], grid: Grid) -> str:
    kinds = {**dict.fromkeys(grid.words, " class=words"), **dict.fromkeys(grid.spare, " class=spare")}
    texts = zip(cells, grid.columns, strict=True)
    return "".join(f"<{tag}{kinds.get(column, '')}>{escape(cell)}</{tag}>" for cell, column in texts)


def _write(results: Results, path: Path, written: Sequence[Path]) -> str:
    write_page(results, path, next((file for file in written if file.suffix.lower() in PICTURES), None))
    return f"The page is in {path}."


PAGE = into_file(
    "--page",
    _FORMATS,
    help="Write a Markdown (.md) or self-contained HTML (.html) page.",
    what="page",
    write=_write,
)
