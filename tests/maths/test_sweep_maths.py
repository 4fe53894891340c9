"""Crossings, the law of steps, the search of learning rates and the range of batch sizes, against known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bnoise_cli.maths.batch_range import SIDE, first_batch_sizes, next_batch_size
from bnoise_cli.maths.crossing import WINDOW, crossing, has_diverged, has_stalled, smoothed_at
from bnoise_cli.maths.rate_search import PER_DOUBLING, is_steep, next_rate
from bnoise_cli.maths.steps_fit import fit_seeds
from bnoise_cli.records import Law


def growing_steps(growth: float, most: int) -> list[int]:
    """0, 1, 2, … and then each `growth` times the one before."""
    steps = [0, 1]
    while steps[-1] < most:
        steps.append(max(steps[-1] + 1, int(steps[-1] * growth)))
    return steps


# --- crossing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("growth", [1.04, 1.15, 2.0])
@pytest.mark.parametrize("power", [0.3, 1.0, 2.5])
def test_a_power_law_is_crossed_exactly_however_sparse_the_evaluations(growth: float, power: float) -> None:
    """L = s^(−p) is a straight line in the logarithms, which are what is interpolated."""
    steps = growing_steps(growth, 4000)
    losses = [2.0, *(step**-power for step in steps[1:])]
    for at in (1.7, 77.7, 1234.5):
        assert crossing(steps, losses, at**-power) == pytest.approx(at, rel=1e-9)


def test_an_exponential_is_crossed_exactly_before_the_first_evaluation() -> None:
    """From step 0, which has no logarithm, log L is interpolated on the step itself: L = 8·exp(−s/10)."""
    losses = [8.0 * math.exp(-step / 10) for step in (0, 12, 24)]
    assert crossing([0, 12, 24], losses, 8.0 * math.exp(-0.55)) == pytest.approx(5.5)


@pytest.mark.parametrize("goal", [0.0, -2.0])
def test_a_goal_that_is_not_positive_is_interpolated_on_the_loss_itself(goal: float) -> None:
    """L falls by 1 each doubling of the step, from 4 at step 1, so it is 4 − log₂ s."""
    steps = [0, *(2**k for k in range(12))]
    losses = [5.0, *(4.0 - k for k in range(12))]
    assert crossing(steps, losses, goal) == pytest.approx(2 ** (4 - goal))
    assert crossing(steps, losses, goal - 0.5) == pytest.approx(2 ** (4.5 - goal))


def test_a_positive_goal_may_be_passed_to_a_negative_loss() -> None:
    at = crossing([0, 10, 20, 40], [3.0, 2.0, -1.0, -1.0], 1.0)
    assert at is not None
    assert 10 < at <= 20


def test_a_goal_at_the_start_is_reached_at_once() -> None:
    assert crossing([0, 1, 2], [1.0, 0.9, 0.8], 1.0) == 0.0
    assert crossing([0], [1.0], 2.0) == 0.0


def test_a_goal_that_was_never_reached_has_no_crossing() -> None:
    assert crossing([0, 1, 2, 4], [4.0, 3.0, 2.0, 1.5], 1.4) is None


def test_one_lucky_evaluation_is_no_crossing() -> None:
    """A dip to half the goal among losses at 1.5 times it; the mean of the window is far above."""
    steps = list(range(100, 131, 3))
    losses = [1.5 + 0.01 * (k % 2) for k in range(len(steps))]
    losses[5] = 0.5
    assert crossing([0, *steps], [3.0, *losses], 1.0) is None
    assert crossing([0, *steps], [3.0, *losses], 1.45) is not None


def test_a_crossing_near_the_end_is_provisional_and_settles_a_window_later() -> None:
    """Losses from WINDOW times the crossing on change nothing; those before it may."""
    steps = growing_steps(1.03, 2000)
    generator = np.random.default_rng(3)
    losses = [10.0, *(100 / step * math.exp(0.2 * generator.standard_normal()) for step in steps[1:])]
    at = crossing(steps, losses, 1.0)
    assert at is not None
    full = next(i for i, step in enumerate(steps) if step >= WINDOW * 1.03 * at)
    assert crossing(steps[: full + 1], losses[: full + 1], 1.0) == at
    short = next(i for i, step in enumerate(steps) if step >= 1.1 * at)
    assert crossing(steps[: short + 1], losses[: short + 1], 1.0) != at


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_noise_moves_the_crossing_neither_early_nor_late(noise: float) -> None:
    """L = (3/√s)·noise with E[noise] = 1, evaluated every 3%: E[L] reaches the goal at 500.

    One evaluation tells the place to noise/½ in log s, the 17 of a window to that over √17. The mean over 300 runs
    must lie within three standard errors of the truth and, as even a smoothed curve has a first passage, a twentieth
    of one evaluation's error. The first loss below the goal, the obvious twin, comes earlier by half of that.
    """
    generator = np.random.default_rng(0)
    steps = growing_steps(1.03, 3000)
    law = np.array([6.0, *(3 / math.sqrt(step) for step in steps[1:])])
    goal, one = 3 / math.sqrt(500), noise / 0.5
    found, first = [], []
    for _ in range(300):
        losses = law * np.exp(noise * generator.standard_normal(len(steps)) - noise**2 / 2)
        at = crossing(steps, losses.tolist(), goal)
        assert at is not None
        found.append(math.log(at / 500))
        first.append(math.log(steps[int(np.argmax(losses <= goal))] / 500))
    assert abs(np.mean(found)) < 3 * one / math.sqrt(17 * 300) + one / 20
    assert np.std(found) < 1.5 * one / math.sqrt(17)
    assert np.mean(first) < -one / 2


@pytest.mark.parametrize("power", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_run_that_makes_progress_has_not_stalled(power: float, noise: float) -> None:
    """Even a loss that takes a thousand times the steps to halve."""
    generator = np.random.default_rng(0)
    steps = growing_steps(1.15, 20_000)
    losses = [3.0, *(step**-power * math.exp(noise * generator.standard_normal()) for step in steps[1:])]
    if power * math.log(4) > noise:
        assert not any(has_stalled(steps[: i + 1], losses[: i + 1]) for i in range(len(steps)))


def test_a_rise_at_the_beginning_is_no_stall() -> None:
    """Twice the loss of the start until step 40."""
    steps = growing_steps(1.15, 2000)
    losses = [1.0 if step < 2 else 2.0 if step < 40 else 2.0 * (40 / step) ** 0.5 for step in steps]
    assert not any(has_stalled(steps[: i + 1], losses[: i + 1]) for i in range(len(steps)))


def test_a_run_that_is_thrown_up_for_a_few_steps_has_not_stalled() -> None:
    """As with BatchNorm and momentum: at every eighth reading the loss is 50 times as high."""
    steps = growing_steps(1.15, 2000)
    for first in range(8):
        losses = [3.0, *(step**-0.5 * (50 if i % 8 == first else 1) for i, step in enumerate(steps[1:]))]
        assert not any(has_stalled(steps[: i + 1], losses[: i + 1]) for i in range(len(steps)))


def test_a_run_that_hovers_has_stalled_soon() -> None:
    """It falls to 0.5 by step 20 and stays there, with noise of a fifth."""
    generator = np.random.default_rng(1)
    steps = growing_steps(1.15, 20_000)
    losses = [max(0.5, 2.0 - 0.075 * step) * math.exp(0.2 * generator.standard_normal()) for step in steps]
    ended = next(step for i, step in enumerate(steps) if has_stalled(steps[: i + 1], losses[: i + 1]))
    assert ended < 1000


def test_the_smoothed_loss_at_a_step_lies_on_the_falling_curve() -> None:
    steps = growing_steps(1.03, 500)
    losses = [9.0, *(step**-0.7 for step in steps[1:])]
    assert smoothed_at(steps, losses, 200) == pytest.approx(200**-0.7, rel=1e-3)
    assert smoothed_at([0, 10, 20], [3.0, 2.0, 1.0], 15) == pytest.approx(1.5)
    assert smoothed_at([0, 10, 20], [3.0, 2.0, 1.0], 99) == 1.0


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0.1, 10.0), min_size=3, max_size=30))
def test_the_goal_that_is_read_off_is_crossed_where_it_was_read(losses: list[float]) -> None:
    """`smoothed_at` sets the goal of a sweep that is to be reached in so many steps: not later than there."""
    steps = [0, *range(10, 10 * len(losses), 10)]
    step = steps[len(steps) // 2]
    at = crossing(steps, losses, smoothed_at(steps, losses, step))
    assert at is not None
    assert at <= step or at == pytest.approx(step)


# --- the law of steps ---------------------------------------------------------------------------------

SIZES = [4, 8, 16, 32, 64, 128]


def exact_steps(sizes: list[int], fewest: float, critical: float, sharpness: float = 1.0) -> list[float]:
    law = Law(critical, sharpness)
    return [fewest * law.steps(size) for size in sizes]


@settings(deadline=None, max_examples=50)
@given(st.floats(1, 1e5), st.floats(8, 64), st.floats(0.8, 2.5))
def test_an_exact_law_is_recovered(fewest: float, critical: float, sharpness: float) -> None:
    """Not exactly, because what is expected of the sharpness takes part."""
    steps = exact_steps(SIZES, fewest, critical, sharpness)
    found = fit_seeds(SIZES, [[step] * 3 for step in steps])
    assert found is not None
    assert found.critical.value == pytest.approx(critical, rel=0.05)
    assert found.min_steps.value == pytest.approx(fewest, rel=0.08)
    assert found.min_examples.value == pytest.approx(fewest * critical, rel=0.08)
    assert found.sharpness == pytest.approx(sharpness, rel=0.25)
    assert [math.exp(found.log_steps(size)) for size in SIZES] == pytest.approx(steps, rel=0.03)
    assert math.exp(found.log_critical) == pytest.approx(found.critical.value)


def test_examples_and_steps_obey_the_law_as_it_is_written() -> None:
    """((S/S_min)^p − 1)((E/E_min)^p − 1) = 1, at p = 1 arXiv:1812.06162 eq. 2.11, at every fitted point."""
    generator = np.random.default_rng(0)
    steps = [[step * math.exp(0.1 * e) for e in generator.standard_normal(3)] for step in
             exact_steps(SIZES, 100, 20)]  # fmt: skip
    found = fit_seeds(SIZES, steps)
    assert found is not None
    assert found.min_steps.value is not None
    assert found.min_examples.value is not None
    for size in SIZES:
        step = math.exp(found.log_steps(size))
        ratios = step / found.min_steps.value, size * step / found.min_examples.value
        assert math.prod(ratio**found.sharpness - 1 for ratio in ratios) == pytest.approx(1)


@pytest.mark.parametrize(("noise", "seeds"), [(0.1, 3), (0.1, 1), (0.3, 3)])
@pytest.mark.parametrize(("critical", "sharpness"), [(8.0, 1.0), (23.0, 1.0), (23.0, 2.0)])
def test_intervals_cover_the_truth_as_often_as_they_say(
    noise: float, seeds: int, critical: float, sharpness: float
) -> None:
    """400 sweeps whose every run is off by a normal error in log S.

    At a coverage of 95% the standard deviation over 400 is √(0.95·0.05/400) = 1.1%: three of them allow 91.7%.
    B_crit at not more than 99.5% either: an interval that never misses is too wide. Its width is held against that of
    least squares with the noise known, 2·1.96·σ, and the same expected sharpness: half as wide again at most for the
    median; the t quantile with 4 degrees of freedom, where one seed leaves the misfit alone, is 1.4 times the normal
    one.
    """
    generator = np.random.default_rng(1)
    truths = {"critical": critical, "min_steps": 100.0, "min_examples": 100.0 * critical}
    hits, widths = dict.fromkeys(truths, 0), []
    for _ in range(400):
        errors = noise * generator.standard_normal((len(SIZES), seeds))
        steps = np.array(exact_steps(SIZES, 100, critical, sharpness))[:, None] * np.exp(errors)
        found = fit_seeds(SIZES, steps.tolist())
        assert found is not None
        for name, truth in truths.items():
            estimate = getattr(found, name)
            hits[name] += estimate.low <= truth <= (math.inf if estimate.high is None else estimate.high)
        if found.critical.high is not None:
            widths.append(math.log(found.critical.high / found.critical.low))
    for name, hit in hits.items():
        assert hit / 400 >= 0.917, name
    assert hits["critical"] / 400 <= 0.995
    error = noise / math.sqrt(seeds)
    here = np.array([math.log(100), math.log(critical), math.log(sharpness)])
    slopes = np.array([(log_law(here + step) - log_law(here - step)) / 2e-4 for step in 1e-4 * np.eye(3)])
    rows = np.vstack([slopes.T / error, [0, 0, 1 / 0.4]])  # log p is expected within 0.4
    ideal = 2 * 1.96 * math.sqrt(np.linalg.inv(rows.T @ rows)[1, 1])
    assert float(np.median(widths)) < 1.5 * ideal


def log_law(at: NDArray[np.float64]) -> NDArray[np.float64]:
    fewest, critical, sharpness = np.exp(at)
    return np.log(exact_steps(SIZES, fewest, critical, sharpness))


def test_an_early_or_late_seed_that_all_batch_sizes_share_widens_nothing_it_should_not() -> None:
    """Three seeds that are 30% apart in the same way at every batch size: B_crit is exact, the interval honest."""
    steps = [[step * factor for factor in (0.7, 1.0, 1 / 0.7)] for step in exact_steps(SIZES, 100, 20)]
    found = fit_seeds(SIZES, steps)
    assert found is not None
    assert found.critical.value == pytest.approx(20, rel=0.03)  # the expected sharpness takes part
    assert found.critical.high is not None
    assert found.critical.low < 20 < found.critical.high


def test_two_batch_sizes_fit_any_law() -> None:
    assert fit_seeds([], []) is None
    assert fit_seeds([8], [[10.0]]) is None
    assert fit_seeds([8, 16], [[10.0], [8.0]]) is None


@pytest.mark.parametrize("sizes", [[256, 512, 1024, 2048], [1, 2, 4]])
def test_batch_sizes_on_one_side_give_no_confident_number(sizes: list[int]) -> None:
    """B_crit is 23 and 10% of noise hides what is left of the other branch.

    At 256 S is 9% above its limit; at 4 E is 17% above its own. Whoever names two limits within a factor of ten that
    miss the truth is confidently wrong: in not more than the 5% that a 95% interval may, plus three
    standard deviations over 300, √(0.05·0.95/300) = 1.3%.
    """
    generator = np.random.default_rng(2)
    narrow = wrong = 0
    for _ in range(300):
        errors = 0.1 * generator.standard_normal((len(sizes), 3))
        found = fit_seeds(sizes, (np.array(exact_steps(sizes, 100, 23.0))[:, None] * np.exp(errors)).tolist())
        assert found is not None
        limits = found.critical
        assert (limits.value is None) == (limits.high is None)
        if limits.high is not None and limits.high < 10 * limits.low:
            narrow += 1
            wrong += not limits.low <= 23.0 <= limits.high
    assert wrong / 300 <= 0.05 + 3 * 0.013
    assert narrow / 300 < 0.25


@pytest.mark.parametrize("sizes", [[256, 512, 1024, 2048], [1, 2, 4, 8]])
def test_a_power_law_has_no_critical_batch_size(sizes: list[int]) -> None:
    """Steps that do not change, or halve exactly, are the two ends of the law: B_crit is open."""
    steps = [[100.0] * 3 if sizes[0] > 1 else [1000.0 / size] * 3 for size in sizes]
    found = fit_seeds(sizes, steps)
    assert found is None or found.critical.value is None or not sizes[0] <= found.critical.value <= sizes[-1]


def test_a_loss_that_is_thrown_up_for_a_few_steps_has_not_diverged() -> None:
    def diverged(*losses: float) -> bool:
        return has_diverged(range(len(losses)), losses, 1.0)

    assert not diverged(1.0, 0.9, 2.1, 3.0, 3.0, 2.1, 0.5)
    assert diverged(1.0, 0.9, 2.1, 3.0, 3.0, 2.1, 2.1, 0.5)
    assert not diverged(1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0)
    assert not diverged(1.0, 2.1, 0.9, 2.1, 0.9, 2.1, 0.9, 2.1, 0.9)
    assert diverged(1.0, math.inf, 0.9)
    assert not has_diverged([0, 100, 115, 150, 199], [1.0, 3.0, 3.0, 3.0, 3.0], 1.0)
    assert has_diverged([0, 100, 115, 150, 200], [1.0, 3.0, 3.0, 3.0, 3.0], 1.0)
    assert not has_diverged(range(9), [-1.0] + [-0.1] * 8, -1.0)
    assert has_diverged(range(9), [-1.0] + [0.1] * 8, -1.0)


# --- the search of learning rates ---------------------------------------------------------------------

#: Steps to the goal (None: not reached) and the lowest loss (None: diverged) at a grid point.
Outcome = tuple[float | None, float | None]
#: A factor of 2^12 from the first learning rate.
FURTHEST = 12 * PER_DOUBLING


def searched(run: Callable[[int], Outcome], first: int, *distances: int) -> tuple[int | None, list[int]]:
    """(The best point, all that was tried in order), each call training what the search asks for."""
    found: dict[int, float | None] = {}
    losses: dict[int, float] = {}
    for distance in distances:
        while (point := next_rate(found, first, losses, distance)) is not None:
            assert point not in found, "nothing is tried twice"
            assert abs(point - first) <= FURTHEST
            assert (point - first) % distance == 0
            found[point], loss = run(point)
            if loss is not None:
                losses[point] = loss
            assert len(found) <= 2 * FURTHEST + 1
    arrived = {point: steps for point, steps in found.items() if steps is not None}
    return min(arrived, key=lambda point: (arrived[point], point), default=None), list(found)


def test_two_lower_rates_are_tried_where_all_hover_above_the_goal() -> None:
    """With momentum 0.16, 0.17 and 0.17 were lowest at one rate, half of it and twice of it; a quarter arrives."""

    def run(point: int) -> Outcome:
        return (34.0 - point, 0.05) if point <= -16 else (None, 0.16 if point == 0 else 0.17)

    found, tried = searched(run, 0, 8)
    assert found == -16
    assert tried == [0, 8, -8, -16, -24]
    nowhere, tried = searched(lambda point: (None, 0.16 + abs(point)), 0, 8)
    assert nowhere is None
    assert tried == [0, 8, -8, -16]


def grid(first: int, distance: int) -> list[int]:
    return [
        point for point in range(first - FURTHEST, first + FURTHEST + 1) if (point - first) % distance == 0
    ]


@settings(deadline=None, max_examples=200)
@given(st.floats(-18, 18), st.integers(-5, 5), st.sampled_from([1, 2, 4]), st.floats(1, 5))
def test_the_optimum_of_a_convex_curve_is_found(best: float, first: int, distance: int, width: float) -> None:
    def run(point: int) -> Outcome:
        return 100 * (1 + ((point - best) / width) ** 2), 1.0

    found, tried = searched(run, first, distance)
    expected = min(grid(first, distance), key=lambda point: (run(point)[0], point))
    assert found == expected
    assert {found - distance, found + distance} <= set(tried), "bracketed on both sides"


@settings(deadline=None, max_examples=200)
@given(st.floats(-18, 18), st.integers(-5, 5), st.sampled_from([(2, 1), (4, 2, 1)]))
def test_closer_looks_go_on_from_what_is_known(best: float, first: int, distances: tuple[int, ...]) -> None:
    def run(point: int) -> Outcome:
        return 100 + abs(point - best), 1.0

    found, tried = searched(run, first, *distances)
    assert found == min(grid(first, 1), key=lambda point: (run(point)[0], point))
    coarse = searched(run, first, distances[0])[1]
    assert tried[: len(coarse)] == coarse
    assert len(tried) - len(coarse) <= 4 * (len(distances) - 1)


@settings(deadline=None, max_examples=200)
@given(st.integers(-18, 18), st.integers(-5, 5), st.sampled_from([1, 2, 4]))
def test_the_last_rate_before_a_cliff_is_found(cliff: int, first: int, distance: int) -> None:
    """Steps ∝ 1/ε up to where training diverges, as with large batches."""

    def run(point: int) -> Outcome:
        return (1000 * 2 ** (-point / 2), 1.0) if point <= cliff else (None, None)

    found, tried = searched(run, first, distance)
    assert found == max(point for point in grid(first, distance) if point <= cliff)
    assert found + distance in tried


@pytest.mark.parametrize(
    ("found", "steep"),
    [
        ({}, False),
        ({0: None}, False),
        ({-2: 105.0, 0: 100.0, 2: 109.0}, False),
        ({-2: 105.0, 0: 100.0, 2: 111.0}, True),
        ({-2: 119.0, 0: 100.0, 2: 109.0}, True),
        ({-2: 105.0, 0: 100.0, 2: None}, True),
        ({-4: None, -2: 105.0, 0: 100.0, 2: 109.0, 4: 150.0}, False),
    ],
)
def test_only_a_steep_valley_is_looked_into_more_closely(found: dict[int, float | None], steep: bool) -> None:
    """More than a tenth, or no arrival, at a neighbour of the best; what lies further off does not count."""
    assert is_steep(found, 2) == steep


@settings(deadline=None, max_examples=200)
@given(st.floats(-18, 18), st.integers(-5, 5))
def test_runs_that_are_beaten_lead_to_the_same_rate(best: float, first: int) -> None:
    """A run that is stopped because another was faster counts as worse, which it is."""

    def run(point: int) -> float:
        return 100 * (1 + ((point - best) / 3) ** 2)

    fastest = math.inf

    def stopped(point: int) -> Outcome:
        nonlocal fastest
        steps = run(point)
        if steps > fastest:
            return None, 1.0
        fastest = steps
        return steps, 1.0

    assert searched(stopped, first, 2)[0] == min(grid(first, 2), key=lambda point: (run(point), point))


def test_the_search_widens_at_its_edge_until_the_best_lies_inside() -> None:
    found, tried = searched(lambda point: (1000.0 - 10 * min(point, 9), 1.0), 0, 1)
    assert found == 9
    assert tried == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], (
        "upwards, where runs are shorter; what lies behind is known"
    )


def test_where_all_diverges_it_goes_down() -> None:
    found, tried = searched(lambda point: (500.0 + point, 1.0) if point <= -9 else (None, None), 0, 2)
    assert found == min(point for point in grid(0, 2) if point in tried)
    assert found is not None
    assert found <= -10


def test_where_nothing_arrives_it_follows_the_lowest_loss_and_ends() -> None:
    found, tried = searched(lambda point: (None, 5.0 + abs(point - 7)), 0, 2)
    assert found is None
    assert {6, 8} <= set(tried)
    found, tried = searched(lambda point: (None, 5.0 + abs(point - 7)) if point < 4 else (None, None), 0, 2)
    assert found is None
    assert max(tried) == 4


@pytest.mark.parametrize("loss", [None, 1.0])
def test_a_search_that_finds_nothing_ends(loss: float | None) -> None:
    found, tried = searched(lambda point: (None, loss), 0, 2)
    assert found is None
    assert len(tried) <= 2 * FURTHEST


def test_a_rate_beyond_reach_ends_the_search_at_the_edge() -> None:
    assert searched(lambda point: (1000.0 - point, 1.0), 0, 2)[0] == FURTHEST


def at_every_point(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[float | None]]:
    return st.lists(st.none() | values, min_size=2 * FURTHEST + 1, max_size=2 * FURTHEST + 1)


@settings(deadline=None, max_examples=100)
@given(at_every_point(st.floats(1, 1e4)), at_every_point(st.floats(0, 10)), st.sampled_from([1, 2, 4]))
def test_whatever_training_does_the_search_ends(
    steps: list[float | None], losses: list[float | None], distance: int
) -> None:
    found, tried = searched(lambda point: (steps[point + FURTHEST], losses[point + FURTHEST]), 0, distance)
    if found is not None:
        for side in (-distance, distance):
            assert found + side in tried or abs(found + side) > FURTHEST


# --- the range of batch sizes -------------------------------------------------------------------------


def measured_range(planned: int, most: int, critical: float) -> list[int]:
    """The batch sizes of a sweep that always finds `critical`, in its order."""
    done = first_batch_sizes(planned, most)
    assert done, "something must be measured"
    while (size := next_batch_size(planned, most, done, critical)) is not None:
        assert size not in done
        done.append(size)
        assert len(done) < 60
    return done


def test_three_batch_sizes_begin_around_the_plan() -> None:
    assert first_batch_sizes(64, 10_000) == [16, 64, 256]
    assert first_batch_sizes(1, 10_000) == [1, 4, 16]
    assert first_batch_sizes(2, 10_000) == [1, 4, 16]
    assert 3 in first_batch_sizes(3, 10_000)
    assert len(first_batch_sizes(3, 10_000)) == 3


def test_a_small_dataset_closes_the_range_above() -> None:
    assert first_batch_sizes(64, 100) == [4, 16, 64]
    assert first_batch_sizes(64, 200) == [8, 32, 128]
    assert all(size <= 10 for size in first_batch_sizes(8, 10))


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 12), st.integers(7, 20), st.floats(0.5, 5000))
def test_the_range_around_the_critical_batch_size_is_filled_and_no_more(
    planned: int, most: int, critical: float
) -> None:
    """Factors of two from a sixth of B_crit to six times it, within one example and the dataset."""
    planned, most = 2 ** min(planned, most), 2**most
    done = measured_range(planned, most, critical)
    first = first_batch_sizes(planned, most)
    inside = [2**k for k in range(40) if critical / SIDE <= 2**k <= min(critical * SIDE, most)]
    assert sorted(set(done) - set(first)) == sorted(set(inside) - set(first))
    assert all(1 <= size <= most for size in done)
    assert all(critical / SIDE <= size <= critical * SIDE for size in done[len(first) :])


def test_the_next_batch_size_is_a_neighbour_of_one_that_is_known() -> None:
    """Where the learning rate is known best: each new one is a factor of two from one that was measured."""
    done = first_batch_sizes(64, 100_000)
    while (size := next_batch_size(64, 100_000, done, 900.0)) is not None:
        assert min(abs(math.log2(size / other)) for other in done) == 1
        done.append(size)
    assert sorted(done) == [16, 64, 256, 512, 1024, 2048, 4096]


@pytest.mark.parametrize("planned", [3, 97, 100, 1000, 1023])
def test_a_planned_batch_that_is_no_power_of_two_closes_nothing(planned: int) -> None:
    """B_crit is 20 and every batch size could be trained at: two at least lie on each side of it."""
    done = measured_range(planned, 100_000, 20.0)
    assert sum(20 / SIDE <= size < 20 for size in done) >= 2
    assert sum(20 < size <= 20 * SIDE for size in done) >= 2
    assert all(size >= 1 for size in done)


@pytest.mark.parametrize(("planned", "most"), [(64, 64), (97, 97), (97, 200), (1000, 1797), (12, 20), (3, 4)])
def test_a_plan_near_the_size_of_the_dataset_still_begins_with_three_batch_sizes(
    planned: int, most: int
) -> None:
    """Three are the fewest that the law can be fitted to; below three examples there are no three."""
    first = first_batch_sizes(planned, most)
    assert len(first) == 3
    assert all(1 <= size <= most for size in first)
