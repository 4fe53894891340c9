"""When a run of a horizon has reached a loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bnoise_cli.maths.horizon import RateRuns, arrival

STEPS = [0, 1, 2, 3, 4, 6, 8, 11, 16, 22]


def reached(losses: Sequence[float], loss: float) -> float | None:
    """Of one run, read at the first of `STEPS`."""
    read = STEPS[: len(losses)]
    return arrival(RateRuns(read, np.array([losses]), np.array([False]), 0.0), loss)


def test_a_loss_is_reached_by_a_run_that_stays_there() -> None:
    assert reached([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], 0.5) == pytest.approx(6, rel=0.05)
    assert reached([1, 0.9, 0.8, 0.7], 0.5) is None


@pytest.mark.parametrize("thrown_up", range(6, 10))
def test_a_single_reading_that_is_thrown_up_undoes_nothing(thrown_up: int) -> None:
    losses = [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.4, 0.4]
    losses[thrown_up] = 3.0
    assert reached(losses, 0.5) == pytest.approx(6, rel=0.05)


def test_a_loss_that_a_run_gains_once_and_loses_again_was_not_reached() -> None:
    assert reached([1, 0.4, 0.9, 0.8, 0.9, 0.8, 0.9, 0.8, 0.9, 0.8], 0.5) is None
    assert reached([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.9, 0.8, 0.9], 0.5) is None
    # As long as the only later reading is above, nothing is known.
    assert reached([1, 0.9, 0.8, 0.7, 0.6, 0.5, 3.0], 0.5) is None
