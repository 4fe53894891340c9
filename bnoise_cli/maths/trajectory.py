"""Training probed at several points: the progress made around each, B_crit of the stretch, a batch size that adapts.

Throughout, s counts noise-free steps. A step at batch size B makes progress ds = 1/(1 + B_noise/B), so a stretch takes

    S = ∫ (1 + B_noise/B) ds        E = ∫ B dS = ∫ (B + B_noise) ds
    S_min = ∫ ds                    E_min = ∫ B_noise ds              (M18 section 2.2 and appendix D)
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def progress(noise_scales: Sequence[float], steps: Sequence[int], batch_size: float) -> list[float]:
    """∫ds around each probed point, the trapezoidal rule over the steps between them.

    Args:
        noise_scales: B_noise at each probed step, in examples.
        steps: the probed steps, ascending.
        batch_size: B, at which the training between the points was done, in examples.

    Returns:
        Noise-free steps, shape (points,); of a single point, one step's.
    """
    if len(steps) == 1:
        return [1.0]
    spans = [(steps[min(i + 1, len(steps) - 1)] - steps[max(i - 1, 0)]) / 2 for i in range(len(noise_scales))]
    return [span / (1 + scale / batch_size) for span, scale in zip(spans, noise_scales, strict=True)]


def trajectory_critical_batch_size(
    noise_scales: Sequence[float], steps: Sequence[int], batch_size: float
) -> float:
    """B_crit = E_min/S_min of a stretch of training: noise scales weighted by the progress made at each.

    Args: as for `progress`.
    """
    parts = progress(noise_scales, steps, batch_size)
    return _integral(parts, noise_scales) / math.fsum(parts)


def adaptive_batch_size(noise_scale: float, exchange_rate: float) -> float:
    """B(s) = sqrt(r·B_noise(s)), which makes S + E/r least (M18 appendix D).

    The integrand 1 + B_noise/B + (B + B_noise)/r is least at the B of B_noise/B² = 1/r.

    Args:
        exchange_rate: r, the examples that one step is worth; at B_crit of the stretch the two are balanced.
    """
    return math.sqrt(exchange_rate * noise_scale)


def adaptive_gamma(noise_scales: Sequence[float], steps: Sequence[int], batch_size: float) -> float:
    """γ = (∫ sqrt(B_noise) ds)² / (∫ ds · ∫ B_noise ds): the price of an adaptive batch over that of a fixed one.

    With B = sqrt(r·B_noise), (S/S_min − 1)(E/E_min − 1) = γ for every r (M18 appendix D), and the product is 1 for
    any fixed batch size (eq. 2.11). At r = B_crit both factors are sqrt(γ): the run takes 1 + sqrt(γ) times the fewest
    steps and examples instead of 2. γ ≤ 1 (Cauchy and Schwarz), with equality if B_noise is constant.

    Args: as for `progress`.
    """
    parts = progress(noise_scales, steps, batch_size)
    roots = _integral(parts, [math.sqrt(scale) for scale in noise_scales])
    return min(1.0, roots**2 / (math.fsum(parts) * _integral(parts, noise_scales)))  # rounding may exceed 1


def _integral(parts: Sequence[float], values: Sequence[float]) -> float:
    return math.fsum(part * value for part, value in zip(parts, values, strict=True))
