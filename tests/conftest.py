"""The fixtures of all tests: files, and the program called in this process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import settings

from bnoise_cli.cli import app
from tests.cases import Call, Write, import_torchvision

os.environ.setdefault("COLUMNS", "100")
torch.set_num_threads(1)
# One commit has one verdict; --hypothesis-profile=default hunts with new examples.
settings.register_profile("repeatable", derandomize=True)


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
