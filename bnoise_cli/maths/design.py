"""The design of a probe: batch sizes that bracket the noise scale, and the step size to evaluate at each.

The curvature along a mean gradient over B examples is α + β/B (M18 eq. 2.5 and 2.8), so the noise scale is β/α.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bnoise_cli.maths.pass_plan import batch_sizes_up_to

#: The largest batch is at least this many times the noise scale, by the pilot's estimate.
_MARGIN = 6.0
#: The largest batch is no smaller than this, so that there are batch sizes to compare.
_SMALLEST = 16
#: Lower limits for curvatures that are lost in noise, because a step size needs a positive one: β is at least this
#: fraction of the curvature along the first updates times their examples, α at least this fraction of β over all
#: examples drawn.
_LEAST_NOISE, _LEAST_FLAT = 0.05, 0.2


def is_bracketed(flat: float, noise: float, drawn: int) -> bool:
    """Whether a batch of `drawn` examples is far enough above the noise scale."""
    return drawn * flat >= _MARGIN * noise


def positive_curvatures(
    flat: float, noise: float, *, first_curvature: float, first: int, drawn: int
) -> tuple[float, float]:
    """α and β, raised to small positive numbers if the fit lost them in noise or the loss falls without end.

    Args:
        flat, noise: α and β, as fitted.
        first_curvature: the curvature along updates of `first` examples.
        drawn: examples of the largest update.
    """
    noise = max(noise, _LEAST_NOISE * abs(first_curvature) * first, 1e-30)
    return max(flat, _LEAST_FLAT * noise / drawn), noise


def choose_batch_sizes(flat: float, noise: float, *, drawn: int, most: int, exact: bool) -> tuple[int, ...]:
    """Batch sizes up to a power of two that lies well above the noise scale.

    Args:
        flat, noise: α and β, positive.
        drawn: examples of the largest update that was measured.
        most: the largest batch that the budget allows.
        exact: whether α is exact. If not, the wanted size is moved half way to `drawn`, and is at least half of it:
            too large a batch costs less than too small a one.
    """
    wanted = _MARGIN * noise / flat
    largest = wanted if exact else max((wanted * drawn) ** 0.5, drawn / 2)
    return batch_sizes_up_to(max(_SMALLEST, min(_power_of_two(largest), _power_of_two(most))))


def step_scales(slope: float, flat: float, noise: float, batch_sizes: Sequence[int]) -> list[float]:
    """The best step size at each batch size, a/(α + β/B), with a = GᵀPG."""
    return [slope / (flat + noise / size) for size in batch_sizes]


def _power_of_two(value: float) -> int:
    """The nearest power of two, by ratio."""
    exponent = round(math.log2(max(value, 1.0)))
    return 1 << exponent
