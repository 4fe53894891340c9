"""How often the horizon's interval holds the exact critical batch size of a noisy quadratic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.horizon.quadratics import search, spectra

SEEDS = 50


@pytest.mark.parametrize("name", ["1/i", "1/i, sharp trained", "two curvatures", "1/i²"])
def test_the_interval_covers_and_the_value_is_near(name: str) -> None:
    """A 95% interval over 50 seeds holds the truth at least 43 times with a probability of 0.99."""
    quadratic = spectra()[name]
    errors, held = [], 0
    for seed in range(SEEDS):
        last = search(quadratic, seed, steps=16, guess=30.0, most_examples=1e6).levels[-1]
        error = last.fit.log_critical - math.log(quadratic.critical_batch_size(last.loss))
        errors.append(abs(error))
        held += abs(error) <= last.fit.log_error
    assert held >= 43
    assert np.median(errors) <= math.log(1.15)
