"""Signal and noise of gradients, from the norms of their sums."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SumNorms:
    """Squared norms of gradient sums over disjoint, independent blocks of examples.

    For any fixed symmetric A: S_j the sum of block j's n_j example gradients, S the sum of all of them.
    """

    of_total: float  # SᵀAS
    of_blocks: float  # Σ_j S_jᵀAS_j
    examples: int  # N = Σ_j n_j
    squared_sizes: int  # Σ_j n_j²


def signal_and_noise(norms: SumNorms) -> tuple[float, float]:
    """Split gradient norms into signal GᵀAG and noise tr(AΣ), both unbiased.

    Source: M18 appendix A.1, eq. A.2, for any number of blocks of any sizes. Different blocks are
    independent, so Σ_{i≠j} S_iᵀAS_j has mean (N² − Σn_j²)·GᵀAG; and E[S_jᵀAS_j] = n_j²·GᵀAG + n_j·tr(AΣ).

    Returns:
        (signal, noise of one example). Signal can be negative: too few examples to see it yet.

    Raises:
        ValueError: fewer than two blocks.
    """
    cross = norms.examples**2 - norms.squared_sizes
    if cross <= 0:
        raise ValueError("signal and noise need at least two blocks")
    signal = (norms.of_total - norms.of_blocks) / cross
    return signal, noise_given_signal(norms, signal)


def noise_given_signal(norms: SumNorms, signal: float) -> float:
    """tr(AΣ) of one example if GᵀAG is known."""
    return (norms.of_blocks - signal * norms.squared_sizes) / norms.examples
