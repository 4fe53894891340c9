"""Noisy quadratics under plain SGD, whose expected loss after any number of steps is an exact recursion.

In the eigenbasis of H, with mean m and variance v of each coordinate and gradient noise of variance σ²/B,

    m ← (1 − εh)m      v ← (1 − εh)²v + ε²σ²/B      L = ½·Σ h(m² + v),

so S_B(ℓ), B_crit(ℓ) and the whole horizon curve are known to any precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bnoise_cli.measurement.horizon.search import Search
from bnoise_cli.measurement.horizon.trained import BudgetSpent, stream_of

Array = NDArray[np.float64]
#: The learning rate of grid point 0.
BASE_RATE = 0.1


@dataclass(frozen=True, eq=False)
class Quadratic:
    """Eigenvalues h, noise variances σ² of one example's gradient, and the start m."""

    h: Array
    noise: Array
    start: Array

    @property
    def start_loss(self) -> float:
        return self.loss(self.start)

    def loss(self, weights: Array) -> float:
        return 0.5 * float(np.sum(self.h * weights**2))

    @property
    def noise_scale(self) -> float:
        """tr(HΣ)/(GᵀHG): what one step says."""
        gradient = self.h * self.start
        return float(np.sum(self.h * self.noise) / np.sum(self.h * gradient**2))

    def fewest_steps(self, batch_size: float, loss: float) -> float:
        """S_B(ℓ), over a grid of rates that is refined once around the best."""
        rates = np.geomspace(1e-4, 2.2 / self.h.max(), 160)
        for _ in range(2):
            steps = self._steps(batch_size, loss, rates)
            best = int(np.argmin(steps))
            ratio = (rates[1] / rates[0]) ** 1.5
            rates = np.geomspace(rates[best] / ratio, rates[best] * ratio, 40)
        return float(steps.min())

    def _steps(self, batch_size: float, loss: float, rates: Array) -> Array:
        e = rates[:, None]
        mean, variance = np.repeat(self.start[None], len(rates), 0), np.zeros((len(rates), len(self.h)))
        before, found = np.full(len(rates), self.start_loss), np.full(len(rates), math.inf)
        running, step = np.full(len(rates), True), 0
        while running.any() and step < 3 * float(found.min()):
            step += 1
            mean = (1 - e * self.h) * mean
            variance = (1 - e * self.h) ** 2 * variance + e**2 * self.noise / batch_size
            now = 0.5 * np.sum(self.h * (mean**2 + variance), axis=1)
            for i in np.nonzero(running & (now <= loss))[0]:
                part = math.log(before[i] / loss) / math.log(before[i] / now[i])
                found[i] = part if step == 1 else (step - 1) * (step / (step - 1)) ** part
            running &= (now > loss) & (now < 1e3 * self.start_loss)
            before = now
        return found

    def critical_batch_size(self, loss: float) -> float:
        """B_crit to a loss: the law through exact S_B(ℓ) over a factor of 8 on either side of it."""
        critical = 50.0
        for _ in range(12):
            sizes = critical * 2.0 ** np.arange(-3, 4)
            y = np.log([self.fewest_steps(float(size), loss) for size in sizes])
            before, critical = critical, _law(sizes, y)
            if abs(math.log(critical / before)) < 0.02:
                break
        return critical


def _law(sizes: Array, log_steps: Array) -> float:
    def misfit(p: Array) -> Array:
        sharpness = math.exp(p[2])
        found: Array = p[0] + np.logaddexp(0, sharpness * (p[1] - np.log(sizes))) / sharpness - log_steps
        return found

    start = [log_steps.min(), math.log(sizes[len(sizes) // 2]), 0.0]
    return math.exp(least_squares(misfit, start).x[1])


def _scaled(h: Array, noise: Array, start: Array, noise_scale: float) -> Quadratic:
    plain = Quadratic(h, noise, start)
    return Quadratic(h, noise * noise_scale / plain.noise_scale, start)


@cache
def spectra() -> dict[str, Quadratic]:
    i = np.arange(1, 201, dtype=np.float64)
    few = np.r_[np.ones(5), np.full(100, 0.02)]
    return {
        "1/i": _scaled(1 / i, i**-0.5, np.exp(-5 / i), 100),
        # The sharp directions are trained already: the law of one step is 20 times off.
        "1/i, sharp trained": _scaled(1 / i, i**-0.5, np.exp(-15 / i), 100),
        "two curvatures": _scaled(few, few, np.r_[np.full(5, 0.05), np.ones(100)], 300),
        "1/i²": _scaled(i**-2.0, i**-2.0, i**0.5, 30),
        # B_crit rises with every step.
        "rising": _scaled(1 / i, np.ones(200), np.ones(200), 5),
    }


class QuadraticRuns:
    """Implements `trained.Runs`: SGD on a quadratic, every run with draws of its own."""

    def __init__(self, quadratic: Quadratic, seed: int, most_examples: float = math.inf) -> None:
        self.examples = 0
        self._quadratic, self._seed, self._most = quadratic, seed, most_examples
        self._allowed = 1.0
        self._runs: dict[tuple[int, int, int], tuple[int, Array, np.random.Generator]] = {}

    def allow(self, part: float) -> None:
        self._allowed = part

    def growth(self, part: float, wanted: float) -> float:
        return min(wanted, part * self._most / max(self.examples, 1))

    def extend(self, batch_size: int, points: list[int], replicates: range, step: int) -> list[list[float]]:
        return [[self._run(batch_size, point, r, step) for r in replicates] for point in points]

    def _run(self, batch_size: int, point: int, replicate: int, step: int) -> float:
        q, key = self._quadratic, (batch_size, point, replicate)
        fresh = (0, q.start, np.random.default_rng([self._seed, batch_size, stream_of(point, replicate)]))
        done, weights, generator = self._runs.get(key, fresh)
        if done > step:
            done, weights, generator = fresh
        rate = BASE_RATE * 2 ** (point / 8)
        self.examples += batch_size * (step - done)
        if self.examples > self._allowed * self._most:
            raise BudgetSpent
        for _ in range(step - done):
            noise = np.sqrt(q.noise / batch_size) * generator.standard_normal(len(weights))
            weights = weights - rate * (q.h * weights + noise)
        self._runs[key] = step, weights, generator
        return q.loss(weights)


def search(
    quadratic: Quadratic,
    seed: int,
    *,
    steps: int | None = None,
    most_examples: float = math.inf,
    guess: float | None = None,
) -> Search:
    """A finished search on a quadratic."""
    found = Search(
        QuadraticRuns(quadratic, seed, most_examples),  # type: ignore[arg-type]
        start_loss=quadratic.start_loss,
        guess=guess if guess is not None else quadratic.noise_scale / 2,
        planned=64,
        most_steps=steps,
    )
    found.run()
    return found
