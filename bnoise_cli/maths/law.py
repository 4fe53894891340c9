"""The law ΔL_opt(B) = ΔL_max/(1 + B_noise/B), fitted as a straight line in 1/B."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Rounds of reweighting; the weights are the inverse fitted values, and settle at once.
_ROUNDS = 4
#: The fitted curvature at any B is at least this share of its noise part, so that a weight stays finite
#: where the fitted limit is negative.
_LEAST_SHARE = 0.3


def fit_curvature(batch_sizes: Array, curvatures: Array) -> tuple[Array, Array]:
    """Fit κ(B) = α + β/B by least squares on relative residuals.

    With κ the effective curvature a²/(2ΔL_opt) this is the law of M18 eq. 2.7 in its log-parameters to
    first order: B_noise = β/α and ΔL_max = a²/(2α). With κ = E[uᵀHu] it is eq. 2.5: α = b, β = c. α may
    come out negative, which no fit in log-parameters could say and which an honest interval needs.
    Every batch size weighs the same: relative scatter is about equal at equal evaluation budgets, and in
    simulation (nested Gaussian gradients, 7 to 40 replicates) equal weights did no worse than estimated
    variances or an estimated covariance.

    Args:
        batch_sizes: B, shape (K,), in examples, K ≥ 2.
        curvatures: κ, shape (..., K).

    Returns:
        (α, β), each of shape (...,).
    """
    inverse = 1.0 / batch_sizes
    fitted = np.maximum(np.abs(curvatures), 1e-300)
    alpha = beta = np.zeros(curvatures.shape[:-1])
    for _ in range(_ROUNDS):
        weight = 1.0 / fitted**2
        s0, s1, s2 = (np.sum(weight * inverse**power, axis=-1) for power in (0, 1, 2))
        t0, t1 = (np.sum(weight * curvatures * inverse**power, axis=-1) for power in (0, 1))
        determinant = s0 * s2 - s1 * s1
        alpha = (s2 * t0 - s1 * t1) / determinant
        beta = (s0 * t1 - s1 * t0) / determinant
        fitted = _floored(alpha, beta, inverse)
    return alpha, beta


def fit_noise(batch_sizes: Array, curvatures: Array, limit: float) -> Array:
    """β of κ(B) = α + β/B where α is known exactly; relative residuals, shapes as `fit_curvature`."""
    inverse = 1.0 / batch_sizes
    fitted = np.maximum(np.abs(curvatures), 1e-300)
    beta = np.zeros(curvatures.shape[:-1])
    for _ in range(_ROUNDS):
        weight = 1.0 / fitted**2
        beta = np.sum(weight * inverse * (curvatures - limit), axis=-1) / np.sum(
            weight * inverse**2, axis=-1
        )
        fitted = _floored(np.full_like(beta, limit), beta, inverse)
    return beta


def _floored(alpha: Array, beta: Array, inverse: Array) -> Array:
    noise = np.abs(beta)[..., None] * inverse
    return np.maximum(alpha[..., None] + noise, np.maximum(_LEAST_SHARE * noise, 1e-300))
