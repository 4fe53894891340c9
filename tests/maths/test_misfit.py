"""What the misfit of the law adds to the interval: nothing by chance, and enough when points deviate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from bnoise_cli.maths import law
from bnoise_cli.maths.analysis import Design, Limit, Replicates, analyse
from bnoise_cli.maths.line import NODES, coefficients
from bnoise_cli.maths.misfit import distance_of_witness
from bnoise_cli.records import Estimate

Array = NDArray[np.float64]

TRUTH, SLOPE = 100.0, 1.0
SIZES = np.array([8.0, 32.0, 128.0, 512.0])
CURVATURES = 1 + TRUTH / SIZES
LIMIT = Limit(slope=SLOPE, signal=1.0, improvement=0.5, step_size=1.0, error=0.0, curvature=1.0)
DRAWS, REPLICATES = 200, 40


def estimates(
    deviation: float, scatter: float, limit: Limit | None, cubic: float = 0.0, seed: int = 0
) -> list[Estimate]:
    """Analyses of lines whose curvatures deviate from the law at each batch size, and scatter in each replicate.

    Args:
        cubic: a cubic part of the largest batch's lines, over the height of their parabola; none at the smallest.
    """
    rng = np.random.default_rng(seed)
    scales = SLOPE / CURVATURES
    design = Design(batch_sizes=SIZES, scales=scales, blocks=np.array([16, 4, 1, 0]), limit=limit)
    found = []
    for _ in range(DRAWS):
        kappa = CURVATURES * np.exp(deviation * rng.standard_normal(len(SIZES)))
        each = kappa * (1 + scatter * rng.standard_normal((REPLICATES, len(SIZES))))
        steps = np.array(NODES) * scales[:, None]
        bend = cubic * np.linspace(0.0, 1.0, len(SIZES))[:, None] * np.array(NODES) ** 3 * scales[:, None] / 2
        curves = coefficients(SLOPE * steps - each[..., None] * steps**2 / 2 + bend)
        ones = np.ones(REPLICATES)
        slopes = SLOPE + 1e-3 * rng.standard_normal(REPLICATES)
        replicates = Replicates(curves=curves, slopes=slopes, signals=slopes, noises=TRUTH * ones)
        found.append(analyse(design, replicates).noise_scale)
    return found


def share_that_holds(found: list[Estimate]) -> float:
    return float(np.mean([e.low <= TRUTH and (e.high is None or e.high >= TRUTH) for e in found]))


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_chance_widens_one_interval_in_fifty(limit: Limit | None) -> None:
    """Of 200 on the law 4 are wider, with a standard deviation of 2; all others are as wide as ever."""
    found = estimates(0.0, 0.3, limit)
    widths = np.array([e.relative_half_width for e in found])
    assert np.sum(widths > 1.5 * np.median(widths)) <= 10
    assert share_that_holds(found) >= 0.91


@pytest.mark.parametrize("limit", [None, LIMIT])
@pytest.mark.parametrize("deviation", [0.03, 0.1, 0.3])
def test_points_that_deviate_from_the_law_are_in_the_interval(deviation: float, limit: Limit | None) -> None:
    """However small the statistical errors are. Chance alone would claim ±1%."""
    assert share_that_holds(estimates(deviation, 0.02, limit)) >= 0.91


def test_a_limit_for_each_fit_gives_each_its_own_noise() -> None:
    """Fits with another exact limit each, at once, are the fits one by one."""
    limits = np.array([0.9, 1.0, 1.2])
    curvatures = np.broadcast_to(CURVATURES, (3, len(SIZES)))
    together = law.fit_noise(SIZES, curvatures, limits)
    alone = [law.fit_noise(SIZES, CURVATURES, limit) for limit in limits]
    assert together == pytest.approx(np.array(alone))


def test_the_interval_reaches_half_the_way_to_the_quadratic_witness() -> None:
    """Nothing on a quadratic loss, where c/b and β/α are the same; a factor of 1.5 if the witness is useless."""
    assert distance_of_witness(2.0, 200.0, 3.0, 300.0) == pytest.approx(0.0)
    assert distance_of_witness(1.0, 100.0, 1.0, 144.0) == pytest.approx(math.log(1.2))
    assert distance_of_witness(1.0, 144.0, 1.0, 100.0) == pytest.approx(math.log(1.2))
    for b, c in ((0.001, 100.0), (-1.0, 100.0), (1.0, -100.0)):
        assert distance_of_witness(1.0, 100.0, b, c) == pytest.approx(math.log(1.5))


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_lines_that_are_no_parabolas_widen_the_interval(limit: Limit | None) -> None:
    """A cubic part that grows with the batch size moves the best gain away from the curvature at the start."""
    parabolas, bent = (estimates(0.0, 0.02, limit, cubic=cubic)[0] for cubic in (0.0, 0.15))
    assert parabolas.relative_half_width < 0.03
    assert bent.relative_half_width > 3 * parabolas.relative_half_width
