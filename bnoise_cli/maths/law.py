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
#: A curvature below this fraction of the largest counts as zero: a loss without a gradient at some batch size.
_ZERO = 1e-6
#: Scatter that evaluation adds at every batch size, beside that of the gradients; merely chosen.
_EVALUATION_SCATTER = 0.1


def fit_curvature(batch_sizes: Array, curvatures: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Fit κ(B) = α + β/B by least squares on relative residuals.

    With κ the effective curvature a²/(2ΔL_opt) this is the law of M18 eq. 2.7 in its log-parameters to
    first order: B_noise = β/α and ΔL_max = a²/(2α). With κ = E[uᵀHu] it is eq. 2.5: α = b, β = c. α may
    come out negative, which no fit in log-parameters could say and which an honest interval needs.

    Args:
        batch_sizes: B, shape (K,), in examples, K ≥ 2.
        curvatures: κ, shape (..., K).
        weight: inverse covariance of the relative residuals up to a factor, shape (K, K), from
            `relative_scatter`; None for the identity.

    Returns:
        (α, β), each of shape (...,).
    """
    inverse = 1.0 / batch_sizes
    unit = positive(curvatures).max(axis=-1)  # fourth powers of curvatures overflow in no unit of the loss
    curvatures = curvatures / unit[..., None]
    fitted = positive(curvatures)
    alpha = beta = np.zeros(curvatures.shape[:-1])
    for _ in range(_ROUNDS):
        constant, slope, data = 1 / fitted, inverse / fitted, curvatures / fitted
        s0, s1, s2 = (
            _product(u, v, weight) for u, v in ((constant, constant), (constant, slope), (slope, slope))
        )
        t0, t1 = _product(constant, data, weight), _product(slope, data, weight)
        determinant = s0 * s2 - s1 * s1
        alpha = (s2 * t0 - s1 * t1) / determinant
        beta = (s0 * t1 - s1 * t0) / determinant
        fitted = _floored(alpha, beta, inverse)
    return alpha * unit, beta * unit


def fit_noise(
    batch_sizes: Array, curvatures: Array, limit: Array | float, weight: Array | None = None
) -> Array:
    """β of κ(B) = α + β/B where α is known exactly, shape (...,); otherwise as `fit_curvature`."""
    inverse = 1.0 / batch_sizes
    unit = np.maximum(positive(curvatures).max(axis=-1), np.abs(limit))
    curvatures, known = curvatures / unit[..., None], np.asarray(limit / unit)
    fitted = positive(curvatures)
    beta = np.zeros(curvatures.shape[:-1])
    for _ in range(_ROUNDS):
        slope = inverse / fitted
        data = (curvatures - known[..., None]) / fitted
        beta = _product(slope, data, weight) / _product(slope, slope, weight)
        fitted = _floored(known, beta, inverse)
    scaled: Array = beta * unit
    return scaled


def relative_scatter(batch_sizes: Array, blocks: Array, alpha: float, beta: float) -> Array:
    """Covariance of the relative residuals of one replicate, up to a factor.

    For normal gradients u = G + ξ the curvature uᵀHu has variance V₁/B + V₂/B²; taking the spectrum as
    flat, V₁ ∝ 4bc and V₂ ∝ 2c². Different blocks are independent; the mean of all examples drawn by then,
    a batch of B_j, shares V₁/B_j + V₂/B_j² with everything before it. The factor between V₁ and V₂ does not need to
    be right: it only weighs the points, and the intervals come from the replicates. In simulation these
    weights give a tenth less error than equal ones, and estimated covariances give more.

    Args:
        batch_sizes: B, shape (K,), in the order in which they are drawn.
        blocks: separate updates averaged at each, shape (K,); 0 for the mean of all drawn so far.
        alpha, beta: of a first fit.

    Returns:
        Shape (K, K).
    """
    if beta <= 0:  # no noise to scatter
        return np.eye(len(batch_sizes))
    noise = beta / batch_sizes
    limit = max(alpha, _LEAST_SHARE * float(noise[-1]))
    kappa = limit + noise
    variance = (4 * limit * noise + 2 * noise**2) / np.maximum(blocks, 1)
    covariance = np.diag(variance)
    for later in range(len(batch_sizes)):
        if blocks[later] == 0:
            shared = 4 * limit * noise[later] + 2 * noise[later] ** 2
            covariance[:later, later] = covariance[later, :later] = shared
    scatter: Array = covariance / np.outer(kappa, kappa) + _EVALUATION_SCATTER * np.eye(len(kappa))
    return scatter


def positive(curvatures: Array) -> Array:
    """Magnitudes to divide by, shape (..., K): none is zero, and if all are, they count as 1."""
    size = np.abs(curvatures)
    largest = size.max(axis=-1, keepdims=True)
    floored: Array = np.where(largest > 0, np.maximum(size, _ZERO * largest), 1.0)
    return floored


def _product(u: Array, v: Array, weight: Array | None) -> Array:
    product: Array = np.sum((u if weight is None else u @ weight) * v, axis=-1)
    return product


def _floored(alpha: Array, beta: Array, inverse: Array) -> Array:
    noise = np.abs(beta)[..., None] * inverse
    return positive(np.maximum(alpha[..., None] + noise, _LEAST_SHARE * noise))
