"""The documentation as tests read it: its files, and the blocks of commands and YAML in them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cases import ROOT

DOCS = ROOT / "bnoise_cli" / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def blocks(page: Path, *languages: str) -> list[str]:
    """The contents of a page's fenced blocks in these languages."""
    names = "|".join(languages)
    return re.findall(rf"```(?:{names})\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
