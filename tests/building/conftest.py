"""Fixtures of the tests of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.building.checkpoints import CONFIG, USER, Net, trained
from tests.cases import Write


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Net, torch.optim.Optimizer]:
    """A trained model and its AdamW, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    model = Net()
    return model, trained(model, torch.optim.AdamW(model.parameters(), lr=1e-3))


@pytest.fixture
def user(saved: object, write: Write) -> Path:
    """A config whose model is Net, and the code it names."""
    write("user.py", USER)
    return write("c.yaml", CONFIG)
