"""Losses whose lines mislead: the noise scale of brute force in float64, or no number."""

from __future__ import annotations

import numpy as np
import pytest

from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.records import Estimate
from tests.brute_force import (
    SHAPES,
    graph_task,
    mean_gains,
    noise_scale_of,
    policy_task,
    shape_task,
    token_task,
)


def found_of(task: Task, seed: int, max_examples: int) -> Estimate:
    analysis = probe(task, ProbeSettings(seed=seed, max_examples=max_examples, budget_seconds=600)).analysis
    assert analysis is not None
    unknown = Estimate(value=None, low=0.0, high=None)
    return analysis.noise_scale if analysis.law_holds else unknown


def assert_near(truth: float, found: list[Estimate]) -> None:
    """The median is within 30%, and no closed interval goes with a value that is wrong by a factor of two."""
    values = [estimate.value for estimate in found if estimate.value is not None]
    if values:
        assert np.median(values) == pytest.approx(truth, rel=0.3)
    closed = [e.value for e in found if e.value is not None and e.high is not None]
    assert all(truth / 2 < value < truth * 2 for value in closed)


@pytest.mark.parametrize("max_examples", [7000, 5000])  # with the whole dataset's gradient, and without
@pytest.mark.parametrize("shape", SHAPES)
def test_a_loss_that_is_written_down(shape: str, max_examples: int) -> None:
    sizes, draws = (4, 16, 64, 256), (300, 200, 100, 50)
    truth = noise_scale_of(
        sizes, mean_gains(shape_task(shape, 6.0), sizes, draws, np.geomspace(0.02, 60, 40))
    )
    found = [found_of(shape_task(shape, 6.0), seed, max_examples) for seed in range(2)]
    assert_near(truth, found)
    if shape == "quadratic":
        assert all(estimate.high is not None for estimate in found)


def test_tokens_through_attention_that_is_not_scaled() -> None:
    sizes, steps = (8, 32, 128), np.geomspace(8e-3, 0.15, 10)
    truth = noise_scale_of(sizes, mean_gains(token_task(), sizes, (30, 20, 12), steps))
    assert_near(truth, [found_of(token_task(), seed, 6000) for seed in range(20)])


def test_graphs_whose_loss_turns_at_once() -> None:
    sizes, steps = (8, 32, 128, 512), np.geomspace(1e-3, 1.0, 16)
    truth = noise_scale_of(sizes, mean_gains(graph_task(), sizes, (200, 100, 60, 30), steps))
    assert_near(truth, [found_of(graph_task(), seed, 8000) for seed in range(20)])


@pytest.mark.parametrize("max_examples", [6000, 40_000])
def test_a_policy_on_recorded_steps(max_examples: int) -> None:
    """With the smaller budget nearly all seeds give no number, because their limits are too far apart."""
    sizes, steps = (8, 64, 512), np.geomspace(1e-2, 4, 16)
    truth = noise_scale_of(sizes, mean_gains(policy_task(), sizes, (200, 100, 40), steps))
    found = [found_of(policy_task(), seed, max_examples) for seed in range(20)]
    assert_near(truth, found)
