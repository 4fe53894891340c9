"""Fixtures of the tests of the program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bnoise_cli.spec.user_files import user_module
from tests.cases import Write
from tests.cli.calls import USER, USER_CONFIG


@pytest.fixture
def user(write: Write) -> Write:
    sys.modules.pop(user_module(Path("user.py")), None)
    write("user.py", USER)
    write("c.yaml", USER_CONFIG)
    return write
