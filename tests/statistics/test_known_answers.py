"""Losses whose lines mislead: the noise scale of brute force in float64, or no number."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from bnoise_cli.measurement.task.task import Task
from bnoise_cli.records import Estimate
from tests.brute_force import (
    SHAPES,
    Truth,
    brute_force,
    found_of,
    graph_task,
    policy_task,
    shape_task,
    token_task,
)

SEEDS = 20


def assert_near(truth: Truth, found: list[Estimate]) -> None:
    """The median is within 30%, and no closed interval goes with a value that is wrong by a factor of two."""
    values = [estimate.value for estimate in found if estimate.value is not None]
    if values:
        assert np.median(values) == pytest.approx(truth.noise_scale, rel=0.3)
    assert all(truth.noise_scale / 2 < value < truth.noise_scale * 2 for value in values)


@cache
def truth_of(build: Callable[[], Task], batch_sizes: tuple[int, ...], draws: tuple[int, ...]) -> Truth:
    return brute_force(build(), batch_sizes, draws)


@pytest.mark.parametrize("max_examples", [7000, 5000])  # with the whole dataset's gradient, and without
@pytest.mark.parametrize("shape", SHAPES)
def test_a_loss_that_is_written_down(shape: str, max_examples: int) -> None:
    task = shape_task(shape, 6.0)
    found = [found_of(task, seed, max_examples) for seed in range(2)]
    assert_near(brute_force(task, (4, 16, 64, 256), (100, 100, 60, 60)), found)
    if shape == "quadratic":
        assert all(estimate.high is not None for estimate in found)


@pytest.mark.parametrize(
    ("build", "batch_sizes", "draws", "max_examples"),
    [
        (graph_task, (8, 32, 128, 512), (30, 30, 30, 30), 8000),
        (token_task, (8, 32, 128), (30, 20, 12), 6000),
        (policy_task, (8, 64, 512), (1500, 400, 200), 6000),  # no number: the limits are too far apart
        (policy_task, (8, 64, 512), (1500, 400, 200), 40_000),
    ],
)
def test_a_trained_model(
    build: Callable[[], Task], batch_sizes: tuple[int, ...], draws: tuple[int, ...], max_examples: int
) -> None:
    """17 of 20 intervals at 95% is what chance goes below once in 60 times."""
    truth, task = truth_of(build, batch_sizes, draws), build()
    assert truth.error < 0.05 * truth.noise_scale
    found = [found_of(task, seed, max_examples) for seed in range(SEEDS)]
    assert_near(truth, found)
    assert sum(e.low <= truth.noise_scale <= (e.high or np.inf) for e in found) >= 17
