"""Lanes, golden files, and the fixtures of all tests.

The lane of a test is decided by its measured time. `pytest` runs the fast lane. A test of seconds to minutes is in
tests/full/ or carries the marker `full`; one that counts over many seeds for minutes is in tests/statistics/.
`pytest -m "not statistics"` runs the first two, as .ci/run does at every merge.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import settings

from bnoise_cli.cli import app
from bnoise_cli.measurement.timing import training_steps
from tests.cases import Call, Write, import_torchvision

os.environ.setdefault("COLUMNS", "100")
torch.set_num_threads(1)
# A command in the background of a shell ignores SIGINT, and one under nohup SIGHUP. The programs under test would
# inherit that; they do not inherit a handler of Python's.
for _sign in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_sign) is signal.SIG_IGN:
        signal.signal(_sign, lambda *_: None)
# One commit has one verdict; --hypothesis-profile=default hunts with new examples.
settings.register_profile("repeatable", derandomize=True)

TESTS = Path(__file__).parent
LANES = {"full", "statistics"}
# Seconds of CPU time of a test of the fast lane: above the first it is named at the end, above the second it fails
# where the environment has CI=true. CPU time, because other programs on the machine stretch the time on the clock. The
# slowest takes 8 s, and 14 s while coverage is counted.
NAMED, TOO_SLOW = 3.0, 15.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write what is printed now into tests/golden/")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of tests/full/ and tests/statistics/ with the name of their folder."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in LANES:
            item.add_marker(folder)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Note the CPU time of a test of the fast lane that takes too much of it."""
    before = sum(os.times()[:4])
    yield
    spent = sum(os.times()[:4]) - before
    if spent > NAMED and not any(item.get_closest_marker(lane) for lane in LANES):
        item.user_properties.append(("cpu_seconds", spent))
        if spent > TOO_SLOW and os.environ.get("CI") == "true":
            pytest.fail(
                f"{spent:.0f} s of CPU time; the fast lane allows {TOO_SLOW:.0f}. Move it to tests/full/."
            )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, seconds in report.user_properties:
            if name == "cpu_seconds":
                terminalreporter.write_line(
                    f"slow for the fast lane: {seconds:.1f} s of CPU time, {report.nodeid}"
                )


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time training steps for a hundredth of a budget: on a busy machine each probe would take its whole tenth."""
    monkeypatch.setattr(training_steps, "_SHARE", 0.01)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with tests/golden/NAME.txt; `pytest --golden` rewrites the file instead."""

    def compare(name: str, text: str) -> None:
        path = TESTS / "golden" / f"{name}.txt"
        if request.config.getoption("--golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        expected = path.read_text(encoding="utf-8") if path.exists() else ""
        assert text.splitlines() == expected.splitlines(), f"`pytest --golden` rewrites {name}.txt"

    return compare


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file into an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return Path(name)

    return write


@pytest.fixture
def bnoise(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Call the program in this process."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bnoise", *arguments])
        code = app.run()
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def transformers() -> ModuleType:
    """The package transformers, or skip."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()  # which transformers looks for
    return pytest.importorskip("transformers")
