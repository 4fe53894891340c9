"""Branches of the same number of examples: the largest batch that loses nothing by it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bnoise_cli.maths.intervals import t_quantile
from bnoise_cli.measurement.outcome import BranchEnd
from bnoise_cli.records import BatchOutcome, CriticalBatchSize, Limits

DEFINITION = (
    "the largest batch whose branch, like those of all smaller ones, ends the same number of examples with a loss "
    "at most {tolerance:g} above that of the smallest; after arXiv:2505.23971"
)


def branch_outcomes(ends: Sequence[BranchEnd]) -> tuple[BatchOutcome, ...]:
    """The mean loss over seeds at every batch size; None where a branch diverged."""
    outcomes = []
    for size in sorted({end.batch_size for end in ends}):
        own = [end for end in ends if end.batch_size == size]
        losses = [end.loss for end in own if end.loss is not None]
        whole = len(losses) == len(own)
        outcomes.append(
            BatchOutcome(
                batch_size=size,
                learning_rate=own[0].learning_rate,
                steps=float(own[0].taken),
                steps_limits=None,
                examples=float(own[0].taken * size),
                fitted=None,
                predicted=None,
                loss=math.fsum(losses) / len(losses) if whole else None,
                loss_limits=Limits(low=min(losses), high=max(losses)) if whole else None,
            )
        )
    return tuple(outcomes)


def branch_critical(ends: Sequence[BranchEnd], tolerance: float) -> CriticalBatchSize:
    """Where the loss passes the tolerance, on a line in log B, with what the spread of the seeds makes of it.

    The lower limit is the largest batch that is within the tolerance for sure, the upper one the smallest that is
    beyond it for sure, by a t interval on the difference of means; one seed knows no spread, and
    then they are the two neighbours. Open above where no branch is beyond it.
    """
    batches = branch_outcomes(ends)
    definition = DEFINITION.format(tolerance=tolerance)
    losses = {b.batch_size: [e.loss for e in ends if e.batch_size == b.batch_size] for b in batches}
    base, sizes = batches[0], [b.batch_size for b in batches]
    if base.loss is None:
        return CriticalBatchSize(value=None, low=0.0, high=None, basis="sweep", definition=definition)
    half = _half_width(list(losses.values()))
    excess = [math.inf if b.loss is None else b.loss - base.loss - tolerance for b in batches]
    beyond = next((i for i, value in enumerate(excess) if value > 0), None)
    sure = next((i for i, value in enumerate(excess) if value - half > 0), None)
    low = next((i for i, value in enumerate(excess) if value + half > 0), len(sizes)) - 1
    if beyond is None or sure is None:
        return CriticalBatchSize(
            value=None, low=float(sizes[max(low, 0)]), high=None, basis="sweep", definition=definition
        )
    value = float(sizes[beyond])
    if beyond > 0 and math.isfinite(excess[beyond]):
        part = -excess[beyond - 1] / (excess[beyond] - excess[beyond - 1])
        value = float(np.exp(np.interp(part, [0, 1], np.log([sizes[beyond - 1], sizes[beyond]]))))
    return CriticalBatchSize(
        value=value,
        low=min(float(sizes[max(low, 0)]), value),
        high=max(float(sizes[sure]), value),
        basis="sweep",
        definition=definition,
    )


def _half_width(losses: Sequence[Sequence[float | None]]) -> float:
    """Of the difference of two means over seeds, by the pooled variance; 0 with one seed."""
    known = [np.array([v for v in seeds if v is not None]) for seeds in losses]
    free = sum(max(len(values) - 1, 0) for values in known)
    if free == 0:
        return 0.0
    pooled = sum(float(np.sum((values - values.mean()) ** 2)) for values in known if len(values)) / free
    count = max(len(values) for values in known)
    return t_quantile(free + 1) * math.sqrt(2 * pooled / count)
