"""The law of steps against the exact steps of noisy quadratics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnoise_cli.maths.steps_fit import fit_steps
from tests.horizon.quadratics import Quadratic, spectra


def loss_after(quadratic: Quadratic, steps: int) -> float:
    """The lowest loss without noise after some steps, over learning rates."""
    rates = np.geomspace(1e-3, 2.2 / quadratic.h.max(), 300)[:, None]
    weights = (1 - rates * quadratic.h) ** steps * quadratic.start
    return float((0.5 * np.sum(quadratic.h * weights**2, axis=1)).min())


@pytest.mark.parametrize("name", list(spectra()))
def test_the_critical_batch_size_does_not_depend_on_which_batch_sizes_were_trained(name: str) -> None:
    """Four sizes around it, most of them above it, or most below: 0.89 to 1.03 of the value of seven around it.

    With a sharpness of 1 (arXiv:1812.06162 eq. 2.11) it is 0.62 to 1.6 of that.
    """
    quadratic = spectra()[name]
    loss = loss_after(quadratic, 16)
    critical = quadratic.critical_batch_size(loss)
    for lowest in (-3, -1, -5):
        sizes = [critical * 2.0**power for power in range(lowest, lowest + 8, 2)]
        steps = [math.log(quadratic.fewest_steps(size, loss)) for size in sizes]
        found = fit_steps(sizes, steps, [0.02**2] * 4, free=12)
        assert found is not None
        assert found.critical.value == pytest.approx(critical, rel=0.14)
        assert found.critical.low < critical < (found.critical.high or math.inf)
        assert found.scatter < 0.03
