"""Steps and examples at a batch size, relative to the fewest possible."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Law:
    """Steps S and examples E = B·S of training to one loss, at the best learning rate of each batch size B.

        S(B) = S_min·(1 + (B_crit/B)^p)^(1/p)        E(B) = E_min·(1 + (B/B_crit)^p)^(1/p)

    B_crit = E_min/S_min. For a single step p = 1, and this is M18 eq. 2.11. Training turns more sharply from "twice the
    batch, half the steps" to "no fewer steps": on noisy quadratics eq. 2.11 misses the exact log S(B) by 2 to 13% (root
    mean square), and the best p, 0.8 to 2.4, by 2 to 3%.

    Attributes:
        critical: B_crit, in examples.
        sharpness: p.
    """

    critical: float
    sharpness: float = 1.0

    def steps(self, batch_size: float) -> float:
        """S(B)/S_min."""
        return self._ratio(self.critical / batch_size)

    def examples(self, batch_size: float) -> float:
        """E(B)/E_min."""
        return self._ratio(batch_size / self.critical)

    def batch_size(self, overhead: float) -> float:
        """The B of E(B)/E_min = 1 + overhead, with overhead > 0."""
        if self.sharpness == 1:
            return overhead * self.critical  # exactly, because limits are often met exactly
        power = self.sharpness * math.log1p(overhead)  # (1 + overhead)^p − 1 could overflow
        return self.critical * math.exp((power + math.log(-math.expm1(-power))) / self.sharpness)

    def fastest(self, fixed_seconds: float, seconds_per_example: float, world_size: int = 1) -> float:
        """The B of least S(B)·t(B) if t = t₀ + t₁·B/K: (B_crit^p·K·t₀/t₁)^(1/(p + 1)).

        There the derivatives of log S and log t add up to zero. It is infinite if examples take no time.
        """
        if seconds_per_example <= 0:
            return math.inf
        p, ratio = self.sharpness, world_size * fixed_seconds / seconds_per_example
        return math.pow(self.critical, p / (p + 1)) * math.pow(ratio, 1 / (p + 1))

    def _ratio(self, by: float) -> float:
        if by > 1:  # a power of it could overflow
            return by * self._ratio(1 / by)
        return math.exp(math.log1p(by**self.sharpness) / self.sharpness)
