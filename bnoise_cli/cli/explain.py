"""`bnoise explain`."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Annotated

import typer

from bnoise_cli.errors import CallError

#: Follows the name of the command in the example of its help.
EXAMPLE = "output"

_FOLDER = Path(__file__).resolve().parents[1] / "docs"
#: Wider lines are hard to read.
_WIDEST = 100


def topics() -> list[str]:
    """The pages of the documentation that ships with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.md"))


def doubt_sections() -> dict[str, str]:
    """The section on each doubt, by its code."""
    found = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page("doubts"), flags=re.MULTILINE | re.DOTALL)
    return {code: f"# {code}\n{text}" for code, text in found}


def page(topic: str) -> str:
    """The Markdown of a page, without its comments."""
    text = (_FOLDER / f"{topic}.md").read_text(encoding="utf-8")
    return re.sub(r"^<!--.*?-->\n", "", text, flags=re.MULTILINE)


def explain(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            help=f"One of {', '.join(topics())}, or the code of a doubt, such as momentum.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the documentation: a list of topics, or one of them."""
    if topic is None:
        _list_topics()
    elif topic in topics():
        _show(page(topic))
    elif topic in (sections := doubt_sections()):
        _show(sections[topic])
    else:
        raise CallError(f"explain needs a topic; found {topic!r}. {_nearest(topic)}")


def _list_topics() -> None:
    from bnoise_cli.cli.streams import show_sections
    from bnoise_cli.report.document import Grid, Section, Sentence

    rows = tuple((topic, page(topic).partition("\n")[0].removeprefix("# ")) for topic in topics())
    grid = Grid(columns=("topic", "about"), rows=rows, words=frozenset({"topic", "about"}))
    doubts = Sentence(", ".join(doubt_sections()) + ".")
    show_sections([Section(title="Topics", parts=[grid]), Section(title="Doubts", parts=[doubts])])


def _nearest(topic: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(topic.lower(), [*topics(), *doubt_sections()])
    suggestion = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{suggestion}`bnoise explain` lists the topics."


def _show(text: str) -> None:
    """Print Markdown: laid out at a terminal, as it is in a pipe or a file."""
    from bnoise_cli.cli.streams import is_watched, show_text, terminal_width

    if is_watched():
        from rich.console import Console
        from rich.markdown import Markdown

        buffer = io.StringIO()
        console = Console(file=buffer, width=min(terminal_width(), _WIDEST), force_terminal=True)
        console.print(Markdown(text))
        text = buffer.getvalue()
    show_text(text)
