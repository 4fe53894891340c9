"""The loss along an update: from its change at a few step sizes to the best step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Where a line is evaluated, in units of its step-size scale. Half to twice the expected best step, and
#: one negative step: with the start that is a polynomial of degree 4, which a quadratic loss meets exactly.
NODES = (-0.5, 0.5, 1.0, 2.0)
#: No best step is looked for beyond this one: there the polynomial has no nodes and only guesses.
LAST_NODE = NODES[-1]

_POWERS = np.arange(1, len(NODES) + 1)
_INVERSE = np.linalg.inv(np.array(NODES)[:, None] ** _POWERS)
#: Grid on which the highest point is looked for before Newton's method polishes it.
_GRID = np.linspace(0.0, LAST_NODE, 65)


def coefficients(changes: Array) -> Array:
    """Polynomial p₁x + p₂x² + p₃x³ + p₄x⁴ through ΔL at the `NODES`, x the step over its scale.

    Args:
        changes: ΔL = L(θ) − L(θ − ε·u), shape (..., 4), in nats or the loss's unit.

    Returns:
        p₁ … p₄, shape (..., 4), in the unit of `changes`.
    """
    return changes @ _INVERSE.T


def best_step(curves: Array) -> tuple[Array, Array]:
    """The highest point of averaged curves for x in [0, 2], where x = 0 counts as no gain.

    Takes the maximum of the averaged curve, never of single draws: the mean of the draws' own maxima does not
    vanish as B → 0.

    Args:
        curves: p₁, p₂, …, shape (..., degree).

    Returns:
        (x, height), each of shape (...,).
    """
    x = _GRID[np.argmax(height(curves[..., None, :], _GRID), axis=-1)]
    for _ in range(4):
        bend = _second_derivative(curves, x)
        concave = np.where(bend < 0, bend, -1.0)
        with np.errstate(over="ignore"):  # an infinite step is clipped
            newton = np.clip(x - _derivative(curves, x) / concave, 0.0, LAST_NODE)
        x = np.where(bend < 0, newton, x)
    return x, height(curves, x)


def height(p: Array, x: Array) -> Array:
    """p₁x + p₂x² + …, with the powers along the last axis of `p`."""
    value = np.zeros_like(x)
    for power in range(p.shape[-1], 0, -1):
        value = x * (value + p[..., power - 1])
    return value


def _derivative(p: Array, x: Array) -> Array:
    slope = np.zeros_like(x)
    for power in range(p.shape[-1], 0, -1):
        slope = slope * x + power * p[..., power - 1]
    return slope


def _second_derivative(p: Array, x: Array) -> Array:
    bend = np.zeros_like(x)
    for power in range(p.shape[-1], 1, -1):
        bend = bend * x + power * (power - 1) * p[..., power - 1]
    return bend


def coefficients_given_slope(changes: Array, slope: float) -> Array:
    """Polynomial of degree 5 through ΔL at the `NODES` that leaves the start with the exact slope.

    It meets the four changes and the slope. `effective_curvature` replaces one of the changes by the slope.

    Args:
        changes: ΔL at the `NODES`, shape (4,), without noise.
        slope: dΔL/dx at x = 0, which is GᵀPG times the step size of x = 1.

    Returns:
        p₁ … p₅, shape (5,).
    """
    nodes = np.array(NODES)
    rest = np.linalg.solve(nodes[:, None] ** (_POWERS + 1), changes - slope * nodes)
    return np.concatenate([[slope], rest])


def effective_curvature(curves: Array, slope: Array, scale: Array) -> tuple[Array, Array]:
    """a²/(2·ΔL_opt): the curvature of the parabola with this slope and this best improvement.

    On a quadratic loss it is b + c/B itself (M18 eq. 2.5 to 2.7), so the law for ΔL_opt(B) reads
    "effective curvature is linear in 1/B". It stays finite and linear in the data if the slope is
    lost in noise; 1/ΔL_opt does not. It is not positive if the loss falls without end.

    Args:
        curves: p₁ … p₄ averaged over draws, shape (..., K, 4). p₁ is replaced: E[slope] = a for every
            batch size (a control variate that leaves only the higher orders as noise).
        slope: a, shape (...,), loss per unit of step size.
        scale: step size of x = 1 at each batch size, shape (K,).

    Returns:
        (effective curvature, best step size ε), each of shape (..., K).
    """
    controlled = curves.copy()
    controlled[..., 0] = slope[..., None] * scale
    x, gain = best_step(controlled)
    inside, rising = (gain > 0) & (x < LAST_NODE), gain > 0
    # Best step a²/(2ΔL_opt) of a curve with its top inside; else of the parabola through the last node, which
    # is the same on a quadratic loss. Taking the height at the end for the top would measure the scale.
    linear = slope[..., None] * x * scale
    top = slope[..., None] ** 2 / (2 * np.where(inside, gain, 1.0))
    parabola = 2 * (linear - gain) / np.where(rising, x * scale, 1.0) ** 2
    kappa = np.where(inside, top, np.where(rising, parabola, curvature(curves, scale)))
    beyond = rising & ~inside & (kappa > 0)
    step = np.where(beyond, slope[..., None] / np.where(beyond, kappa, 1.0), x * scale)
    return kappa, step


def curvature(curves: Array, scale: Array) -> Array:
    """uᵀHu from the second-order coefficient, shape (..., K): E = b + c/B (M18 eq. 2.5)."""
    return -2 * curves[..., 1] / scale**2
