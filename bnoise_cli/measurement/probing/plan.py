"""What each replicate of a probe does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnoise_cli.maths import line
from bnoise_cli.maths.analysis import Design, Limit
from bnoise_cli.maths.pass_plan import Stage, plan_pass

#: Time for evaluations over time for gradients. At a fixed number of gradients, 2 gave 0.70 of the variance
#: that 1 gave on a linear regression with 10,000 inputs, and 0.9 on a small GPT, for 1.5 times the time.
_EVALUATION_SHARE = 1.5
#: A forward and backward pass in forward passes, and what one evaluation example costs on a line.
_BACKWARD_COST, _LINE_COST = 3, 1 + len(line.NODES)
_FEWEST_EVALUATED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What each replicate does."""

    design: Design
    stages: tuple[Stage, ...]
    evaluation_examples: int  # at each batch size
    slope: float  # GᵀPG, as far as it was known

    @property
    def largest(self) -> int:
        """Gradient examples of one replicate."""
        return self.stages[-1].batch_size


def make_plan(
    batch_sizes: Sequence[int],
    scales: Sequence[float],
    slope: float,
    limit: Limit | None,
    lower_at: float | None,
) -> Plan:
    """A pass over these batch sizes with evaluation examples in proportion to its gradients.

    A fixed split of the time is never far from the best one, whatever the two variances are: at three to
    two at most two and a half times as costly.
    """
    stages = plan_pass(batch_sizes)
    affordable = int(_EVALUATION_SHARE * batch_sizes[-1] * _BACKWARD_COST / (len(stages) * _LINE_COST))
    made = Design(
        batch_sizes=np.array(batch_sizes, dtype=np.float64),
        scales=np.array(scales, dtype=np.float64),
        blocks=np.array([stage.blocks for stage in stages]),
        limit=limit,
        lower_at=lower_at,
    )
    evaluated = max(affordable, _FEWEST_EVALUATED)
    return Plan(design=made, stages=stages, evaluation_examples=evaluated, slope=slope)
