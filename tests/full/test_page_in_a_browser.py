"""The page in a headless browser: nothing is cut off at any width."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bnoise_cli.report.export.page import write_page
from bnoise_cli.results.result import Result
from tests.samples import ahead
from tests.sweeping.test_branches import LOSSES, branches

_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
#: Wider than the window are boxes that reach beyond it, unless they scroll by themselves.
_MEASURE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(
    e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, pre"));
document.title = JSON.stringify({window: innerWidth, page: document.documentElement.scrollWidth,
    wide: wide.map(e => e.tagName).slice(0, 5), pictures: document.querySelectorAll("svg[aria-label] text").length});
</script>"""


@pytest.mark.skipif(_BROWSER is None, reason="no browser is installed")
@pytest.mark.parametrize("width", [400, 800, 1280])
@pytest.mark.parametrize("name", ["probe", "branch"])
def test_nothing_is_cut_off(name: str, width: int, tmp_path: Path) -> None:
    result: Result = ahead() if name == "probe" else branches(LOSSES)
    page = tmp_path / "page.html"
    write_page([(name, result)], page, None)
    page.write_text(page.read_text().replace("</body>", f"{_MEASURE}</body>"))
    command = [str(_BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},2000"]
    ran = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    [found] = re.findall(r"<title>(.*?)</title>", ran.stdout)
    assert '"wide":[]' in found
    sizes = re.search(r'"window":(\d+),"page":(\d+).*"pictures":(\d+)', found)
    assert sizes is not None
    assert int(sizes[2]) <= int(sizes[1])
    assert int(sizes[3]) > 10, "text in the pictures is text"
