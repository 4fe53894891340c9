"""The learning rate to start from when the batch size changes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.polynomial import Polynomial

from bnoise_cli.maths.optimizers import OPTIMIZERS
from bnoise_cli.numbers import count, significant
from bnoise_cli.records import Law
from bnoise_cli.results.result import Plan

#: The rule in words, and its source, by the power of `OptimizerRule`.
_RULES = {
    1.0: "proportional to 1/(1 + B_crit/B) (arXiv:1812.06162 eq. 2.6)",
    0.5: "proportional to 1/sqrt(1 + B_crit/B) (arXiv:2205.10287)",
}
#: Batch sizes count for a learning rate with a bell-shaped weight whose standard deviation is a factor of 8.
_NEAR = math.log(8)


def measured_learning_rate(rates: Mapping[int, float], batch_size: int) -> tuple[float | None, str]:
    """The best rate at a batch size: on a parabola through the best rates of all sizes, or between its neighbours.

    The valley of steps over rates is flat, so noise moves the best rate of a single batch size: on eight tasks it
    scattered by 18% about those of sweeps, and the parabola by 12%. The lower of both is taken, because beyond the rate
    of the neighbours a run may diverge, and too low a rate costs less. Beyond the sizes: the rate of the nearest.

    Args:
        rates: batch size → its best learning rate.
    """
    sizes, known = np.log(np.array(sorted(rates.items()), dtype=float)).T
    at = np.clip(math.log(batch_size), sizes[0], sizes[-1])
    weights = np.exp(-(((sizes - at) / _NEAR) ** 2) / 4)  # of residuals: the roots of those of their squares
    smooth = Polynomial.fit(sizes, known, min(2, len(sizes) - 1), w=weights)(at)
    value = math.exp(min(float(smooth), float(np.interp(at, sizes, known))))
    return _rounded(value), "by the best rates of the trained batch sizes: re-tune it"


def learning_rate(plan: Plan, batch_size: int, law: Law) -> tuple[float | None, str]:
    """The planned rate carried over to another batch size, and the rule in words.

    SGD: ε ∝ 1/(1 + B_noise/B), M18 eq. 2.6. Adaptive optimizers divide by the size of the noisy gradient, so theirs
    follows the square root, as for their stochastic differential equation in Malladi et al. (arXiv:2205.10287).

    Args:
        plan: the learning rate is planned for its batch size.
        batch_size: the batch size that needs a learning rate.
        law: of training.
    """
    name = plan.optimizer.rpartition(".")[2].rpartition(":")[2]
    rule = OPTIMIZERS.get(name)
    if rule is None:
        return None, f"no rule is known for {name or 'this optimizer'}: re-tune it"
    words = _RULES[rule.rate_power]
    rate, planned = plan.learning_rate, plan.training.batch_size
    if rate is None:
        return None, f"{words}: re-tune it"
    ratio = law.steps(planned) / law.steps(batch_size)
    there = f"from the planned {rate:g} at {count(planned)}"
    value = rate * math.pow(ratio, rule.rate_power)
    return _rounded(value), f"{there}, {words}: re-tune it"


def _rounded(value: float) -> float:
    return float(significant(value).replace(",", ""))
