"""Steps and examples at a batch size, relative to the fewest possible."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bnoise_cli.records import TradeoffRow


def tradeoff_row(batch_size: int, critical_batch_size: float) -> TradeoffRow:
    """S(B) = S_min·(1 + B_crit/B), E(B) = E_min·(1 + B/B_crit); source: M18 eq. 2.11 and 2.12."""
    steps = 1 + critical_batch_size / batch_size
    examples = 1 + batch_size / critical_batch_size
    return TradeoffRow(
        batch_size=batch_size,
        steps_ratio=steps,
        examples_ratio=examples,
        time_efficiency=1 / steps,
        compute_efficiency=1 / examples,
    )


def tradeoff(critical_batch_size: float, others: Iterable[int]) -> tuple[TradeoffRow, ...]:
    """Powers of two from a sixteenth to sixteen times B_crit, and the batch sizes asked for."""
    middle = round(math.log2(max(critical_batch_size, 1.0)))
    sizes = {2**power for power in range(max(0, middle - 4), middle + 5)} | set(others)
    return tuple(tradeoff_row(size, critical_batch_size) for size in sorted(sizes))


def trajectory_critical_batch_size(
    noise_scales: Sequence[float], steps: Sequence[int], batch_size: int
) -> float:
    """B_crit of a stretch of training: noise scales weighted by the progress made at each.

    A step at batch size B_t counts for w_t = 1/(1 + B_noise,t/B_t) noise-free steps, so S_min = Σw_t,
    E_min = Σ w_t·B_noise,t and B_crit = E_min/S_min (M18 section 2.2 and appendix D, the trapezoidal
    rule over the probed steps instead of a sum over all of them).

    Args:
        noise_scales: B_noise at each probed step, in examples.
        steps: the probed steps, ascending.
        batch_size: B_t, in examples.
    """
    if len(steps) == 1:
        return noise_scales[0]
    fewest_steps = fewest_examples = 0.0
    for i, noise_scale in enumerate(noise_scales):
        before = steps[max(i - 1, 0)]
        after = steps[min(i + 1, len(steps) - 1)]
        progress = (after - before) / 2 / (1 + noise_scale / batch_size)
        fewest_steps += progress
        fewest_examples += progress * noise_scale
    return fewest_examples / fewest_steps
