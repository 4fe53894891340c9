"""Fixtures of the tests of the check."""

from __future__ import annotations

import pytest

from tests.cases import QUADRATIC_CONFIG, Write


@pytest.fixture
def config(write: Write) -> str:
    return str(write("c.yaml", QUADRATIC_CONFIG))
