"""The learning rate to start from when the batch size changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bnoise_cli.maths.optimizers import OPTIMIZERS
from bnoise_cli.maths.tradeoff import steps_ratio
from bnoise_cli.numbers import count, significant
from bnoise_cli.records import BatchOutcome
from bnoise_cli.spec.targets import arguments, is_target, target_name

#: The rule in words, and its source, by the power of `OptimizerRule`.
_RULES = {
    1.0: "proportional to 1/(1 + B_crit/B) (arXiv:1812.06162 eq. 2.6)",
    0.5: "proportional to 1/sqrt(1 + B_crit/B) (arXiv:2205.10287)",
}


def measured_learning_rate(batches: Sequence[BatchOutcome], batch_size: int) -> tuple[float | None, str]:
    """The best rates of a sweep, interpolated on logarithms; beyond them that of the nearest batch size."""
    known = [(batch.batch_size, batch.learning_rate) for batch in batches if batch.learning_rate]
    if not known:
        return None, "no learning rate reached the goal: re-tune it"
    sizes, rates = np.log(np.array(known, dtype=float)).T
    value = math.exp(float(np.interp(math.log(batch_size), sizes, rates)))
    return _rounded(value), "between the best rates that the sweep found: a starting point, re-tune it"


def learning_rate(
    optimizer: dict[str, Any], planned: int, batch_size: int, critical: float
) -> tuple[float | None, str]:
    """The planned rate carried over to another batch size, and the rule in words.

    SGD: ε ∝ 1/(1 + B_noise/B), M18 eq. 2.6. Adaptive optimizers, which divide by the size of the noisy gradient:
    its square root, as for their stochastic differential equation in Malladi et al. (arXiv:2205.10287).

    Args:
        optimizer: the config's `optimizer:`.
        planned: the batch size that the config's learning rate is for.
        batch_size: the one it is wanted for.
        critical: B_crit, in examples.
    """
    name = str(target_name(optimizer)).rpartition(".")[2].rpartition(":")[2] if is_target(optimizer) else ""
    positional, keywords = arguments(optimizer)
    rate = keywords.get("lr", positional[0] if positional else None)
    rule = OPTIMIZERS.get(name)
    if rule is None:
        return None, f"no rule is known for {name or 'this optimizer'}: re-tune it"
    words = _RULES[rule.rate_power]
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        return None, f"{words}: re-tune it"
    ratio = steps_ratio(planned, critical) / steps_ratio(batch_size, critical)
    there = f"from the planned {rate:g} at {count(planned)}"
    value = rate * math.pow(ratio, rule.rate_power)
    return _rounded(value), f"{there}, {words}: a starting point, re-tune it"


def _rounded(value: float) -> float:
    return float(significant(value).replace(",", ""))
