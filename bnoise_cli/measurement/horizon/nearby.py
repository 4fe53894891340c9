"""Which batch sizes of a level deserve more runs."""

from __future__ import annotations

import math
from dataclasses import replace

from bnoise_cli.maths.horizon import Level, fit_law
from bnoise_cli.measurement.horizon.curve import KNOWN
from bnoise_cli.measurement.horizon.learning_rates import LearningRates
from bnoise_cli.measurement.horizon.trained import Trained

#: Replicates of one batch size are doubled only if the interval becomes narrower by at least this fraction of what all
#: examples become more by: the lower one while the limits are not known, the higher one afterwards. Twice as many of
#: everything would narrow it by 0.3.
_WORTH_KNOWING, _WORTH = 0.1, 0.5


def most_useful(level: Level, learning_rates: LearningRates, trained: Trained) -> int | None:
    """The batch size whose replicates, doubled, narrow the interval most for their examples; None: not worth it."""
    found: dict[int, float] = {}
    worth = _WORTH_KNOWING if level.fit.log_error > math.log(KNOWN) else _WORTH
    for i, point in enumerate(level.arrivals):
        expected = level.fit.log_steps(point.batch_size)  # as if its distance from the law were noise
        doubled = replace(
            point, log_steps=expected, variance=point.variance / 2, replicates=2 * point.replicates
        )
        fit = fit_law([*level.arrivals[:i], doubled, *level.arrivals[i + 1 :]])
        narrower = 1 - fit.log_error / level.fit.log_error if fit is not None else 0.0
        rates = learning_rates.valley(point.batch_size, level.loss).values()
        if not rates:  # those that arrived have diverged since
            continue
        dearer = point.batch_size * point.replicates * sum(rate.last for rate in rates) / trained.examples
        if doubled.replicates <= learning_rates.most_replicates and narrower > worth * dearer:
            found[point.batch_size] = narrower / dearer
    return max(found, key=lambda size: found[size], default=None)


def around_recommended(level: Level) -> list[int]:
    """The trained batch sizes next to B_crit on either side, ascending: most often one between them is recommended."""
    below = [size for size in level.sizes if math.log(size) <= level.fit.log_critical]
    above = [size for size in level.sizes if math.log(size) > level.fit.log_critical]
    return [*below[-1:], *above[:1]]
