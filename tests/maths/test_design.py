"""The design of a probe from the curvatures α and β that a pilot has found."""

from __future__ import annotations

import pytest

from bnoise_cli.maths import design


def test_a_step_scale_is_the_best_step_of_the_quadratic() -> None:
    """ΔL(ε) = ε·a − ½ε²(α + β/B) is largest at a/(α + β/B)."""
    flat, noise, slope = 0.5, 40.0, 3.0
    for size, scale in zip((2, 80), design.step_scales(slope, flat, noise, (2, 80)), strict=True):
        gains = [e * slope - 0.5 * e**2 * (flat + noise / size) for e in (0.99 * scale, scale, 1.01 * scale)]
        assert max(gains) == gains[1]


@pytest.mark.parametrize("exact", [True, False])
def test_the_largest_batch_lies_well_above_the_noise_scale(exact: bool) -> None:
    sizes = design.choose_batch_sizes(1.0, 100.0, drawn=1024, most=10**6, exact=exact)
    assert list(sizes) == sorted(set(sizes))
    assert 4 * 100 <= sizes[-1] <= 1024
    assert design.is_bracketed(1.0, 100.0, 600)
    assert not design.is_bracketed(1.0, 100.0, 599)


def test_the_budget_bounds_the_largest_batch_and_there_are_sizes_to_compare() -> None:
    assert design.choose_batch_sizes(1.0, 100.0, drawn=1024, most=64, exact=True)[-1] == 64
    small = design.choose_batch_sizes(1.0, 1e-6, drawn=64, most=10**6, exact=True)
    assert small[-1] == 16
    assert len(small) >= 3


def test_curvatures_that_are_lost_in_noise_become_small_and_positive() -> None:
    assert design.positive_curvatures(2.0, 30.0, first_curvature=9.0, first=4, drawn=64) == (2.0, 30.0)
    flat, noise = design.positive_curvatures(-1.0, -5.0, first_curvature=10.0, first=4, drawn=64)
    assert (flat, noise) == (pytest.approx(0.2 * 2.0 / 64), pytest.approx(2.0))
    assert min(design.positive_curvatures(0.0, 0.0, first_curvature=0.0, first=4, drawn=64)) > 0
