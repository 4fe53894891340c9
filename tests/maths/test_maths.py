"""The pure functions against brute force in float64 and against what is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bnoise_cli.maths import intervals, law, line, support
from bnoise_cli.maths.fastest import Purpose
from bnoise_cli.maths.gradient_noise import SumNorms, noise_given_signal, signal_and_noise
from bnoise_cli.maths.pass_plan import batch_sizes_up_to, plan_pass
from bnoise_cli.maths.step_time import StepTimes, fit_line, line_of
from bnoise_cli.maths.tradeoff import pareto_front, usual_batch_sizes
from bnoise_cli.maths.trajectory import trajectory_critical_batch_size
from bnoise_cli.records import Law, StepTime, Throughput

Array = NDArray[np.float64]

# --- signal and noise ---------------------------------------------------------------------------------


def norms_of(blocks: list[np.ndarray], A: np.ndarray) -> SumNorms:
    sums = [block.sum(axis=0) for block in blocks]
    total = np.sum(sums, axis=0)
    return SumNorms(
        of_total=total @ A @ total,
        of_blocks=sum(s @ A @ s for s in sums),
        examples=sum(len(block) for block in blocks),
        squared_sizes=sum(len(block) ** 2 for block in blocks),
    )


def test_signal_and_noise_are_unbiased_with_unequal_blocks() -> None:
    """Average over 4000 draws: the standard error is about 1% of the noise and 2% of the signal."""
    rng = np.random.default_rng(0)
    A = np.diag([1.0, 0.3, 2.0])
    G = np.array([0.5, -1.0, 0.2])
    std = np.array([1.0, 2.0, 0.5])
    found = []
    for _ in range(4000):
        blocks = [G + std * rng.standard_normal((size, 3)) for size in (1, 4, 7, 20)]
        found.append(signal_and_noise(norms_of(blocks, A)))
    signal, noise = np.mean(found, axis=0)
    error = np.std(found, axis=0) / math.sqrt(len(found))
    assert abs(signal - G @ A @ G) < 4 * error[0]
    assert abs(noise - np.trace(A @ np.diag(std**2))) < 4 * error[1]


def test_two_equal_blocks_give_the_papers_formula() -> None:
    rng = np.random.default_rng(1)
    blocks = [rng.standard_normal((8, 3)) + 1, rng.standard_normal((8, 3)) + 1]
    signal, noise = signal_and_noise(norms_of(blocks, np.eye(3)))
    small = np.mean([np.sum(block.mean(axis=0) ** 2) for block in blocks])
    big = np.sum(np.concatenate(blocks).mean(axis=0) ** 2)
    assert signal == pytest.approx((16 * big - 8 * small) / 8)  # M18 eq. A.2
    assert noise == pytest.approx((small - big) / (1 / 8 - 1 / 16))


def test_one_block_has_no_signal() -> None:
    with pytest.raises(ValueError, match="two blocks"):
        signal_and_noise(SumNorms(of_total=1.0, of_blocks=1.0, examples=4, squared_sizes=16))


def test_noise_given_the_exact_signal() -> None:
    norms = SumNorms(of_total=0.0, of_blocks=5.0 * 4 + 3.0 * 8, examples=8, squared_sizes=4)
    assert noise_given_signal(norms, 5.0) == pytest.approx(3.0)


# --- lines --------------------------------------------------------------------------------------------


def test_coefficients_reproduce_a_quartic() -> None:
    p = np.array([3.0, -1.2, 0.1, -0.02])
    x = np.array(line.NODES)
    changes = sum(p[i] * x ** (i + 1) for i in range(4))
    assert line.coefficients(changes) == pytest.approx(p, abs=1e-12)


@given(st.tuples(st.floats(0.1, 5), st.floats(-4, 0.5), st.floats(-0.5, 0.5), st.floats(-0.3, 0.05)))
def test_best_step_is_the_highest_point_of_a_dense_grid(p: tuple[float, ...]) -> None:
    grid = np.linspace(0, 2, 200_001)
    heights = sum(p[i] * grid ** (i + 1) for i in range(4))
    _, height = line.best_step(np.array(p))
    assert float(height) == pytest.approx(float(np.max(heights)), rel=1e-6, abs=1e-9)


def test_effective_curvature_of_a_parabola_is_its_curvature() -> None:
    scale = np.array([0.5, 2.0])
    slope, kappa = np.asarray(3.0), np.array([4.0, 1.5])
    curves = np.zeros((2, 4))
    curves[:, 0] = 99.0  # replaced by the pooled slope
    curves[:, 1] = -0.5 * kappa * scale**2
    found, step = line.effective_curvature(curves, slope, scale)
    assert found == pytest.approx(kappa)
    assert step == pytest.approx(slope / kappa)
    assert line.curvature(curves, scale) == pytest.approx(kappa)


def test_effective_curvature_is_continuous_where_the_slope_vanishes() -> None:
    scale = np.array([1.0])
    curves = np.array([[0.0, -2.0, 0.0, 0.0]])
    values = [float(line.effective_curvature(curves, np.asarray(a), scale)[0][0]) for a in (-1e-3, 0.0, 1e-6)]
    assert values == pytest.approx([4.0, 4.0, 4.0])


@pytest.mark.parametrize("factor", [0.01, 0.3, 1.0, 3.0, 100.0])
def test_effective_curvature_of_a_parabola_does_not_depend_on_the_scale(factor: float) -> None:
    """Also where the top lies far beyond the last node: an early version measured its own scale there."""
    scale, kappa = np.array([factor]), 2.0
    curves = np.array([[0.0, -0.5 * kappa * factor**2, 0.0, 0.0]])
    found, step = line.effective_curvature(curves, np.asarray(3.0), scale)
    assert float(found[0]) == pytest.approx(kappa)
    assert float(step[0]) == pytest.approx(1.5)


def test_effective_curvature_is_not_positive_where_the_loss_falls_without_end() -> None:
    found, _ = line.effective_curvature(np.array([[1.0, 0.2, 0.0, 0.0]]), np.asarray(1.0), np.array([1.0]))
    assert float(found[0]) < 0


def test_effective_curvature_survives_a_loss_that_curves_downward() -> None:
    """ΔL = x + ½x² − ⅓x³ has no second-order maximum and a third-order one at x = 1.618."""
    found, step = line.effective_curvature(
        np.array([[1.0, 0.5, -1 / 3, 0.0]]), np.asarray(1.0), np.array([1.0])
    )
    assert float(step[0]) == pytest.approx((1 + 5**0.5) / 2)
    assert float(found[0]) > 0


# --- the law ------------------------------------------------------------------------------------------

SIZES = np.array([4.0, 16.0, 64.0, 256.0])


@given(st.floats(-0.01, 5), st.floats(1, 1000), st.booleans())
def test_the_fit_recovers_a_law_exactly(alpha: float, beta: float, weighted: bool) -> None:
    kappa = alpha + beta / SIZES
    blocks = np.array([16, 6, 1, 0])
    weight: Any = np.linalg.inv(law.relative_scatter(SIZES, blocks, alpha, beta)) if weighted else None
    found = law.fit_curvature(SIZES, kappa, weight)
    assert float(found[0]) == pytest.approx(alpha, abs=1e-7 * beta)
    assert float(found[1]) == pytest.approx(beta, rel=1e-6)
    assert float(law.fit_noise(SIZES, kappa, alpha, weight)) == pytest.approx(beta, rel=1e-6)


def test_the_fit_of_many_samples_equals_the_fit_of_each() -> None:
    rng = np.random.default_rng(0)
    kappa = (0.5 + 40 / SIZES) * np.exp(0.2 * rng.standard_normal((5, 4)))
    alpha, beta = law.fit_curvature(SIZES, kappa)
    for row in range(5):
        assert (alpha[row], beta[row]) == pytest.approx(law.fit_curvature(SIZES, kappa[row]))


def test_the_scatter_is_that_of_normal_gradients() -> None:
    """Simulated uᵀu for u = G + ξ in 3 dimensions, in which V₁ and V₂ have the assumed ratio 4bc to 2c²."""
    rng = np.random.default_rng(0)
    d, c, b = 3, 40.0, 1.0
    sizes, blocks = np.array([4.0, 16.0]), np.array([2, 0])
    G = np.full(d, math.sqrt(b / d))
    kappas = np.empty((40_000, 2))
    noise = math.sqrt(c / d)
    for row in range(len(kappas)):
        draws = G + noise * rng.standard_normal((16, d))
        means = [draws[:4].mean(axis=0), draws[4:8].mean(axis=0), draws.mean(axis=0)]
        squares = [float(u @ u) for u in means]
        kappas[row] = (squares[0] + squares[1]) / 2, squares[2]
    covariance = np.cov((kappas / (b + c / sizes)).T)
    model = law.relative_scatter(sizes, blocks, b, c) - 0.1 * np.eye(2)
    assert covariance / covariance[0, 0] == pytest.approx(model / model[0, 0], abs=0.06)


def test_without_noise_every_batch_size_weighs_the_same() -> None:
    for beta in (0.0, -3.0):
        assert (law.relative_scatter(SIZES, np.array([16, 6, 1, 0]), -1.0, beta) == np.eye(4)).all()


# --- intervals ----------------------------------------------------------------------------------------


def test_leave_one_out_equals_leaving_one_out() -> None:
    values = np.random.default_rng(0).standard_normal((6, 2))
    for i, mean in enumerate(intervals.leave_one_out_means(values)):
        assert mean == pytest.approx(np.delete(values, i, axis=0).mean(axis=0))


def test_jackknife_error_of_a_mean_is_the_usual_one() -> None:
    values = np.random.default_rng(0).standard_normal(20)
    error = intervals.jackknife_error(intervals.leave_one_out_means(values))
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(20))


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.floats(4, 1000))
def test_the_limits_of_an_inverse_solve_the_score_equation(psi: float, h: float, largest: float) -> None:
    estimate = intervals.inverse_interval(psi, h, largest)
    base = 1 / largest

    def score(limit: float) -> float:
        return (limit - psi) ** 2 - h**2 * (2 * limit + base) / (2 * psi + base)

    assert score(1 / estimate.low) == pytest.approx(0, abs=1e-9 * (psi + h) ** 2 + 1e-12 / estimate.low**2)
    if estimate.high is not None:
        assert estimate.value == pytest.approx(1 / psi)
        assert estimate.low < 1 / psi < estimate.high


def test_an_inverse_that_reaches_zero_has_no_upper_limit() -> None:
    estimate = intervals.inverse_interval(0.01, 0.1, 64.0)
    assert (estimate.value, estimate.high) == (None, None)
    assert 0 < estimate.low < 100


def test_the_inverse_interval_covers() -> None:
    """Squared norms of noisy means, 12 replicates, 3000 times: 95% within 4 standard errors (1.6%).

    The plain t interval covers less and misses on one side, which is why the score is there.
    """
    rng = np.random.default_rng(2)
    d, B, c, b = 6, 30.0, 60.0, 1.0
    G = np.full(d, math.sqrt(b / d))
    covered = below = above = 0
    for _ in range(3000):
        u = G + math.sqrt(c / d / B) * rng.standard_normal((12, d))
        values = (np.sum(u**2, axis=1) - c / B) / c
        error = values.std(ddof=1) / math.sqrt(12)
        estimate = intervals.inverse_interval(values.mean(), intervals.t_quantile(12) * error, B)
        below += c / b < estimate.low
        above += estimate.high is not None and c / b > estimate.high
        covered += estimate.low <= c / b and (estimate.high is None or c / b <= estimate.high)
    assert 0.934 <= covered / 3000 <= 0.966
    assert max(below, above) / 3000 < 0.045


def test_the_residual_test_is_uniform_under_the_law_and_sees_a_misfit() -> None:
    rng = np.random.default_rng(3)
    p_values = []
    for shift in [0.0] * 300 + [0.2]:
        samples = 0.1 * rng.standard_normal((20, 4)) + shift * np.array([1, -1, 1, -1])
        fit = np.stack([np.ones(4), np.arange(4.0)])
        hat = np.eye(4) - fit.T @ np.linalg.inv(fit @ fit.T) @ fit
        out = intervals.leave_one_out_means(samples) @ hat
        test = intervals.residual_test(samples.mean(axis=0) @ hat, out)
        assert test is not None
        assert test[1] == 2
        p_values.append(test[2])
    # A uniform p-value is below 0.05 in 15 of 300, standard deviation 3.8.
    assert sum(p < 0.05 for p in p_values[:300]) < 31
    assert p_values[-1] < 1e-4


def test_too_few_replicates_give_no_test() -> None:
    assert intervals.residual_test(np.zeros(4), np.random.default_rng(0).standard_normal((4, 4))) is None


# --- the plan of a pass -------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 5000), min_size=1, max_size=8))
def test_a_pass_serves_every_batch_size_with_exactly_the_largest(chosen: set[int]) -> None:
    sizes = sorted(chosen)
    stages = plan_pass(sizes)
    assert [stage.batch_size for stage in stages] == sizes
    drawn = 0
    for stage in stages:
        if stage.blocks == 0:
            assert drawn <= stage.batch_size
            drawn = stage.batch_size
        drawn += stage.blocks * stage.batch_size
    assert drawn == sizes[-1]


def test_the_usual_pass_has_many_small_updates() -> None:
    stages = plan_pass(batch_sizes_up_to(512))
    assert [(stage.batch_size, stage.blocks) for stage in stages] == [(8, 16), (32, 6), (128, 1), (512, 0)]


# --- the trade-off ------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.floats(0.5, 1e6))
def test_the_hyperbola(batch_size: int, critical: float) -> None:
    law = Law(critical)
    assert (law.steps(batch_size) - 1) * (law.examples(batch_size) - 1) == pytest.approx(1)  # M18 eq. 2.11


@given(st.integers(1, 10**6), st.floats(0.5, 1e6), st.floats(0.5, 4))
def test_examples_are_steps_times_the_batch_size(batch_size: int, critical: float, sharpness: float) -> None:
    law = Law(critical, sharpness)
    assert law.examples(batch_size) == pytest.approx(law.steps(batch_size) * batch_size / critical)
    assert law.steps(batch_size) == pytest.approx(
        (1 + (critical / batch_size) ** sharpness) ** (1 / sharpness)
    )


def test_at_the_critical_batch_size_both_are_as_many_times_the_fewest() -> None:
    assert (Law(64.0).steps(64), Law(64.0).examples(64)) == pytest.approx((2, 2))
    assert (Law(64.0, 2.0).steps(64), Law(64.0, 2.0).examples(64)) == pytest.approx(
        (math.sqrt(2), math.sqrt(2))
    )


@given(st.floats(1e-6, 1e300), st.floats(0.5, 1e6), st.floats(0.5, 4))
def test_the_batch_size_of_an_overhead_spends_it(overhead: float, critical: float, sharpness: float) -> None:
    law = Law(critical, sharpness)
    assert law.examples(law.batch_size(overhead)) == pytest.approx(1 + overhead, rel=1e-9)


@given(st.floats(1, 1e5), st.floats(0.7, 2.5), st.floats(1e-5, 1), st.floats(1e-6, 1e-2), st.integers(1, 64))
def test_the_fastest_batch_size_beats_its_neighbours(
    critical: float, sharpness: float, fixed: float, each: float, world: int
) -> None:
    law = Law(critical, sharpness)

    def time(size: float) -> float:
        return law.steps(size) * (fixed + each * size / world)

    best = law.fastest(fixed, each, world)
    assert time(best) <= time(0.99 * best)
    assert time(best) <= time(1.01 * best)


def test_usual_sizes_divide_among_the_devices() -> None:
    assert usual_batch_sizes(50) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]
    assert usual_batch_sizes(100, 6) == [6, 12, 18, 24, 36, 48, 72, 96]
    assert usual_batch_sizes(5, 6) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_the_pareto_front(points: list[tuple[float, float]]) -> None:
    kept = [point for point, best in zip(points, pareto_front(points), strict=True) if best]
    assert min(points) in kept
    for time, examples in sorted(set(kept)):
        assert all(examples > other for when, other in kept if when > time)


# --- step times ---------------------------------------------------------------------------------------


def throughput(
    sizes: list[int], seconds: list[float], optimizer: float = 0.0, exchange: list[float] | None = None
) -> Throughput:
    """Times of one device, or with an exchange of gradients those of two."""
    line = fit_line(sizes, seconds)
    return Throughput(
        step_times=tuple(
            StepTime(micro_batch_size=m, seconds=t, spread=0.0, loading_seconds=0.0, peak_memory_bytes=None,
                     exchange_seconds=e)
            for m, t, e in zip(sizes, seconds, exchange or [0.0] * len(sizes), strict=True)
        ),
        world_size=1 if exchange is None else 2, parallel=None if exchange is None else "ddp",
        optimizer_seconds=optimizer, fixed_seconds=line.fixed_seconds,
        seconds_per_example=line.seconds_per_example, worst_misfit=line.worst_misfit,
        largest_micro_batch_size=sizes[-1], limited_by="memory", memory_bytes=None, seconds=0.0,
    )  # fmt: skip


def test_a_straight_line_is_found_and_a_bent_one_is_told() -> None:
    line = fit_line([1, 2, 4, 8], [3.5, 4.0, 5.0, 7.0])
    assert (line.fixed_seconds, line.seconds_per_example) == pytest.approx((3.0, 0.5))
    assert line.worst_misfit < 1e-9
    assert fit_line([1, 2, 4, 8], [4.0, 4.0, 4.0, 12.0]).worst_misfit > 0.2
    falling = fit_line([1, 2, 4], [3.0, 2.9, 2.8])  # noise: neither part is negative
    assert falling.seconds_per_example == 0


@given(
    st.integers(1, 600),
    st.lists(st.floats(1e-3, 1e-1), min_size=5, max_size=5),
    st.floats(0, 9e-4),
)
def test_the_best_split_is_the_best_of_all(examples: int, seconds: list[float], optimizer: float) -> None:
    times = StepTimes(throughput([1, 2, 4, 8, 16], seconds, optimizer))
    split = times.best_split(examples)
    assert split.micro_batch_size * split.accumulation_steps == examples
    assert split.micro_batch_size <= 16
    for size in range(1, 17):
        if examples % size == 0:
            assert split.seconds <= times.seconds(size, examples // size) * 1.01 * (1 + 1e-12)


def test_of_splits_that_take_the_same_time_the_one_with_the_fewest_steps_is_best() -> None:
    times = StepTimes(throughput([1, 2, 4, 8], [1.0, 2.0, 4.0, 8.0]))
    assert [times.best_split(n).accumulation_steps for n in (1, 8, 24)] == [1, 1, 3]
    clearly = StepTimes(throughput([1, 2, 4, 8], [1.0, 2.0, 4.0, 8.4]))
    assert clearly.best_split(8).accumulation_steps == 2


def with_limits(known: Throughput, widths: list[float]) -> Throughput:
    """The same times, each known within a factor."""
    steps = tuple(
        replace(step, low_seconds=step.seconds / width, high_seconds=step.seconds * width)
        for step, width in zip(known.step_times, widths, strict=True)
    )
    return replace(known, step_times=steps)


MICRO_BATCHES = [1, 2, 4, 8, 16, 32, 64, 128]


def test_times_matter_near_the_fastest_batch_size_alone() -> None:
    """t = 30 + m and B_crit = 30: the fastest batch size is 30; at 1 a run takes 8 times as long, at 128 1.6 times."""
    known, purpose = throughput(MICRO_BATCHES, [30.0 + m for m in MICRO_BATCHES]), Purpose(law=Law(30.0))
    assert purpose.unsettled(with_limits(known, [1.0] * 8)) == []
    assert purpose.unsettled(with_limits(known, [1.3, *[1.0] * 6, 1.3])) == []
    assert purpose.unsettled(with_limits(known, [1.3] * 8)) == [8, 16, 32, 64, 128]
    assert purpose.unsettled(with_limits(known, [1.04] * 8)) == []
    limited = replace(purpose, max_compute_overhead=0.25)
    assert limited.unsettled(with_limits(known, [*[1.0] * 4, *[1.3] * 4])) == []
    assert limited.unsettled(with_limits(known, [1.3] * 8)) == [4, 8]


@given(
    critical=st.floats(0.1, 3000),
    world=st.sampled_from([1, 4]),
    group=st.sampled_from([1, 3, 8, 100, 1000]),
    seconds=st.lists(st.floats(1e-3, 3e-2), min_size=8, max_size=8),
    widths=st.lists(st.floats(1.0, 2.0), min_size=8, max_size=8),
    wider=st.lists(st.floats(1.0, 2.0), min_size=8, max_size=8),
)
def test_wider_limits_settle_nothing(
    critical: float, world: int, group: int, seconds: list[float], widths: list[float], wider: list[float]
) -> None:
    known, purpose = (
        throughput(MICRO_BATCHES, seconds),
        Purpose(law=Law(critical), world_size=world, group=group),
    )
    asked = purpose.unsettled(with_limits(known, widths))
    wide = [one * more for one, more in zip(widths, wider, strict=True)]
    assert set(asked) <= set(purpose.unsettled(with_limits(known, wide))) <= set(MICRO_BATCHES)
    assert purpose.unsettled(with_limits(known, [1.0] * 8)) == []


def test_accumulation_does_not_repeat_the_optimizer_step() -> None:
    times = StepTimes(throughput([1, 2, 4, 8], [3.5, 4.0, 5.0, 7.0], optimizer=1.0))
    assert times.seconds(4, 3) == pytest.approx(1.0 + 3 * 4.0)
    assert times.seconds(8, 3) == pytest.approx(3 * 7.0)  # no faster than the best measured micro-batch
    assert times.seconds(6) == pytest.approx(6.0)


def test_accumulation_does_not_repeat_the_exchange_of_gradients() -> None:
    times = StepTimes(throughput([8], [10.0], exchange=[2.0]))
    assert times.seconds(8) == pytest.approx(10.0)
    assert times.seconds(8, 3) == pytest.approx(10.0 + 2 * 8.0)
    assert times.seconds(8, exchange=False) == pytest.approx(8.0)
    assert times.seconds(8, 3, exchange=False) == pytest.approx(8.0 + 2 * 8.0)
    between = StepTimes(throughput([4, 8], [9.0, 13.0], exchange=[4.0, 2.0]))
    assert between.exchange_seconds(6) == pytest.approx(3.0)
    assert between.seconds(6, 3) == pytest.approx(11.0 + 2 * 8.0)


def test_the_exchange_of_gradients_changes_the_best_split() -> None:
    """Alone two micro-batches of 4 take 10 and one of 8 takes 11; with what each waits it is 14 and 13."""
    times = StepTimes(throughput([4, 8], [9.0, 13.0], exchange=[4.0, 2.0]))
    split = times.best_split(8)
    assert (split.micro_batch_size, split.accumulation_steps, split.seconds) == (8, 1, pytest.approx(13.0))
    assert times.seconds(4, 2) == pytest.approx(9.0 + 5.0)
    alone = times.best_split(8, exchange=False)
    assert (alone.micro_batch_size, alone.accumulation_steps, alone.seconds) == (4, 2, pytest.approx(10.0))


def test_beyond_the_largest_the_exchange_takes_no_longer() -> None:
    """Alone 1 + m seconds, and 3, 2 and 0 of exchange: the time goes on along the line of one device alone."""
    measured = throughput([1, 2, 4], [5.0, 5.0, 5.0], exchange=[3.0, 2.0, 0.0])
    alone = line_of(measured, exchange=False)
    assert (alone.fixed_seconds, alone.seconds_per_example) == pytest.approx((1.0, 1.0))
    assert alone.worst_misfit < 1e-9
    assert line_of(measured).seconds_per_example == pytest.approx(0.0)
    assert StepTimes(measured).seconds(10) == pytest.approx(11.0)


@given(
    st.lists(st.floats(1e-3, 1e-1), min_size=5, max_size=5),
    st.lists(st.floats(0, 0.99), min_size=5, max_size=5),
    st.floats(0, 0.2),
)
@example(
    [0.03125, 0.015625, 0.015625, 0.0625, 0.0625], [0.0, 0.0, 0.0, 0.75, 0.0], 0.125
)  # less exchange at 9 than 8
def test_more_examples_and_more_steps_never_take_less(
    seconds: list[float], waiting: list[float], optimizer: float
) -> None:
    exchange = [part * t for part, t in zip(waiting, seconds, strict=True)]
    times = StepTimes(throughput([1, 2, 4, 8, 16], seconds, optimizer, exchange))
    for k in (1, 2, 5):
        taken = [times.seconds(m, k) for m in range(1, 20)]
        alone = [times.seconds(m, k, exchange=False) for m in range(1, 20)]
        for lower, upper in (*pairwise(taken), *pairwise(alone), *zip(alone, taken, strict=True)):
            assert 0 < lower <= upper * (1 + 1e-12)
    for m in (1, 3, 16):
        steps = [times.seconds(m, k) for k in range(1, 6)]
        assert all(lower <= upper * (1 + 1e-12) for lower, upper in pairwise(steps))


@given(st.lists(st.floats(1e-3, 1e-1), min_size=5, max_size=5), st.floats(0, 0.2), st.integers(1, 600))
def test_accumulation_never_trains_more_examples_a_second_than_was_measured(
    seconds: list[float], optimizer: float, examples: int
) -> None:
    """However long the optimizer is said to take: of micro-batches of 424 µs, 24 never take 424 µs."""
    sizes = [1, 2, 4, 8, 16]
    times = StepTimes(throughput(sizes, seconds, optimizer))
    best = max(m / times.seconds(m) for m in sizes)
    split = times.best_split(examples)
    assert examples / split.seconds <= best * (1 + 1e-12)


def test_a_larger_micro_batch_never_takes_less() -> None:
    times = StepTimes(throughput([1, 2, 4], [3.0, 2.0, 5.0]))
    assert times.seconds(1) == times.seconds(2) == pytest.approx(2.5)


# --- trajectories -------------------------------------------------------------------------------------


def test_a_trajectory_is_weighted_by_progress() -> None:
    """Half of the steps at B_noise 10, half at 1000, batch 10: weights 1/2 and 1/101."""
    found = trajectory_critical_batch_size([10.0, 1000.0], [0, 100], 10)
    assert found == pytest.approx((10 / 2 + 1000 / 101) / (1 / 2 + 1 / 101))


#: ΔL along lines, with slope 1 at the start, and whether the nodes support the best step at a scale.
SHAPES: dict[str, Callable[[Array], Array]] = {
    "parabola": lambda x: x - x**2 / 2,
    "quartic wall": lambda x: x - x**2 / 2 - 1000 * x**4,
    "walls like |x|": lambda x: x - 5 * np.maximum(np.abs(x) - 0.05, 0.0),
    "bounded": lambda x: 0.1 * np.tanh(10 * x) - 0.1 * x**2,
    "saturated and lopsided": lambda x: np.where(x < 0, 0.1 * np.tanh(10 * x), 0.05 * np.tanh(20 * x) - x**2),
}


@pytest.mark.parametrize(
    ("shape", "scale", "supported"),
    [
        *[("parabola", scale, True) for scale in (0.01, 0.6, 1.0, 2.0)],
        ("parabola", 8.0, False),
        ("quartic wall", 0.05, True),
        *[("quartic wall", scale, False) for scale in (0.4, 1.0)],
        ("walls like |x|", 0.02, True),
        *[("walls like |x|", scale, False) for scale in (0.5, 2.0, 20.0)],
        ("bounded", 0.04, True),
        *[("bounded", scale, False) for scale in (1.0, 4.0, 64.0)],
        ("saturated and lopsided", 0.02, True),
        *[("saturated and lopsided", scale, False) for scale in (0.4, 2.0, 16.0)],
    ],
)
def test_a_top_is_believed_only_where_the_nodes_support_it(shape: str, scale: float, supported: bool) -> None:
    """Several lines with noise in their slopes, as draws have it: the shape decides, not the noise."""
    noise = 0.02 * np.random.default_rng(0).standard_normal(8)
    nodes = np.array(line.NODES)
    curves = np.array([line.coefficients(SHAPES[shape](nodes * scale) + s * scale * nodes) for s in noise])
    close = SHAPES[shape](scale / 8 * np.array([-1.0, 1.0]))
    starts = (close[1] - close[0]) * 4 + noise * scale
    assert support.lines_are_supported(curves, starts, scale, 0.0) is supported


def test_a_noise_free_line_meets_its_slope_and_all_its_nodes() -> None:
    p = np.array([2.0, -1.5, 0.3, -0.1, 0.05])
    changes = line.height(p[None, :], np.array(line.NODES))
    assert line.coefficients_given_slope(changes, 2.0) == pytest.approx(p)


def test_a_slope_gap_is_the_largest_that_is_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    curves, scales = np.zeros((12, 3, 4)), np.array([0.5, 1.0, 2.0])
    slopes = 1 + 0.01 * rng.standard_normal(12)
    curves[..., 0] = scales * (1 + np.array([3.0, 0.01, 0.01]) * rng.standard_normal((12, 3)))
    assert support.slope_gap(curves, scales, slopes) is None
    curves[:, 1, 0] *= 0.5
    assert support.slope_gap(curves, scales, slopes) == pytest.approx(-0.5, abs=0.02)


#: The gain of a clipped policy along its mean gradient, with slope 1 at the start: it falls, rises a little, and falls.
_POLICY = (
    [0, 0.14, 0.28, 0.55, 1.1, 1.7, 1.9, 2.2, 2.8, 4.2, 5.6, 8.3, 10, 14, 30],
    [0, 0.142, 0.26, 0.48, 0.91, 1.07, 1.04, 1.02, 1.03, 1.21, 1.35, 0.78, -0.18, -3.6, -18.0],
)
#: ΔL along a line, and whether it falls a second time.
LINES: dict[str, tuple[Callable[[Array], Array], bool]] = {
    "parabola": (lambda x: x - x**2 / 2, False),
    "quartic wall": (lambda x: x - x**2 / 2 - x**4, False),
    "bounded": (lambda x: 0.5 * (1 - np.exp(-2 * x)), False),
    "a small ripple": (lambda x: x - x**2 / 2 + 0.02 * np.sin(8 * x), False),
    "lower far away": (lambda x: np.minimum(x - x**2 / 2, 2.0) + 1.5e3 * np.exp(-((x - 12) ** 2) / 8), True),
    "a lower one that is less deep": (lambda x: np.maximum(x - x**2 / 2, 0.3 - (x - 5) ** 2), True),
    "a plateau": (lambda x: np.where(x < 1, x - x**2 / 2, 0.45 + 0.02 * x - 0.0004 * x**3), False),
    "a clipped policy": (lambda x: np.interp(x, *_POLICY), True),
}


@pytest.mark.parametrize("name", LINES)
def test_a_second_descent_is_seen_beyond_the_noise(name: str) -> None:
    """Noise-free, and on four sets of examples whose slopes differ; a line that is all noise has no second descent."""
    loss, falls_again = LINES[name]
    steps: Any = 1.25 ** np.arange(-6, 13)
    changes = loss(steps)[None, :]
    assert (support.second_descent(steps, changes) is not None) is falls_again
    slopes = 0.005 * np.random.default_rng(0).standard_normal((4, 1))
    assert (support.second_descent(steps, changes + slopes * steps) is not None) is falls_again
    noise = np.random.default_rng(1).standard_normal((4, len(steps)))
    assert support.second_descent(steps, loss(steps) + 20 * noise) is None


def test_a_gain_above_the_believed_best_one_is_a_second_descent() -> None:
    """Between two tops so close together that no step was evaluated in the dip."""
    steps, changes = np.array([1.0, 2.0, 4.0]), np.array([[0.5, 0.7, 0.9]])
    assert support.second_descent(steps, changes, believed=1) == 4.0
    assert support.second_descent(steps, changes) is None
    assert support.second_descent(steps, np.array([[0.5, 0.7, 0.8]]), believed=1) is None
    scatter = np.outer([0.1, -0.1, 0.1, -0.1], [0, 0, 1])
    assert support.second_descent(steps, changes + 0.1 * scatter, believed=1) == 4.0
    assert support.second_descent(steps, changes + scatter, believed=1) is None


@pytest.mark.parametrize(
    ("top", "beyond"), [(0.5, False), (1.0, False), (2.0, False), (2.4, False), (3.5, True)]
)
def test_a_best_step_far_beyond_the_last_node_is_seen(top: float, beyond: bool) -> None:
    """Parabolas whose best step lies at `top` times the scale, with curvatures that scatter by a tenth."""
    scatter = 1 + 0.1 * np.random.default_rng(0).standard_normal((12, 1))
    curves = np.zeros((12, 1, 4))
    curves[..., 0], curves[..., 1] = 1.0, -scatter / (2 * top)
    assert support.best_step_is_beyond(curves, np.ones(1), 1.0).tolist() == [beyond]


def test_a_batch_that_gains_more_than_the_whole_dataset_is_seen_beyond_chance() -> None:
    """Curvatures a²/(2ΔL): far below that of the limit with little scatter, below it by a little, and by chance."""
    rng = np.random.default_rng(0)
    curvatures = np.array([0.5, 0.9, 0.5]) + np.array([0.02, 0.02, 0.5]) * rng.standard_normal((20, 3))
    out = (curvatures.sum(axis=0) - curvatures) / 19
    assert support.outgrows(curvatures.mean(axis=0), out, 1.0).tolist() == [True, False, False]


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-160, 1e-60, 1e60, 1e100])
def test_curvatures_of_any_size_have_a_fit(size: float) -> None:
    sizes, curvatures = np.array([1.0, 4.0, 16.0]), size * np.array([3.0, 2.0, 1.5])
    alpha, beta = law.fit_curvature(sizes, curvatures)
    assert np.isfinite([alpha, beta, law.fit_noise(sizes, curvatures, size)]).all()
    if size > 1e-70:
        unit = law.fit_curvature(sizes, curvatures / size)
        assert (alpha / size, beta / size) == pytest.approx(unit)


def test_a_batch_size_without_any_gradient_does_not_end_the_fit() -> None:
    """A contrastive loss of a single example is constant."""
    sizes, curvatures = np.array([1.0, 4.0, 16.0]), np.array([[0.0, 2.0, 1.5], [0.0, 1.9, 1.6]])
    for fitted in (*law.fit_curvature(sizes, curvatures), law.fit_noise(sizes, curvatures, 1.0)):
        assert np.all(np.isfinite(fitted))
