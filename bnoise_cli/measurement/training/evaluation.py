"""The examples whose mean loss says how far a training run has come."""

from __future__ import annotations

import math

import numpy as np

from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.training.lanes import evaluation_loss

#: As few examples as know the mean loss to this fraction of it, and at most this number. Later a few hard examples make
#: up most of a small loss: with 256 of the digits, runs seemed to need 0.6 to 1.3 times their steps, and a third too
#: low a learning rate looked best.
_LOSS_ERROR, _MOST = 0.03, 2048
#: A dataset of no more than the most examples, and no more than so many times those needed, is evaluated whole:
#: at a tenth of the loss a few hard examples decide, and a sample knows it several times worse than the start.
_NEARLY = 16
#: The losses of this many examples, in so many parts, show how many are needed.
_LOOKED_AT, _PARTS = 256, 16


def evaluation_examples(task: Task, draws: Draws, *, least: int, whole: int) -> Indices:
    """Indices of the evaluation examples, the same for all runs: as few as know the loss at the present weights.

    Args:
        least: never fewer; examples of many terms, as sequences are, need fewer than others.
        whole: a dataset of at most this many examples is evaluated whole.
    """
    length = task.batches.length
    if length <= whole:
        return np.arange(length)
    first = draws.indices(_LOOKED_AT, length)
    if task.traits.group > 1:
        return first
    losses = np.array([evaluation_loss(task, part) for part in np.split(first, _PARTS)])
    mean, error = float(losses.mean()), float(losses.std(ddof=1)) / math.sqrt(_PARTS)
    needed = _MOST if mean == 0 else _LOOKED_AT * (error / (_LOSS_ERROR * abs(mean))) ** 2
    count = math.ceil(min(max(needed, least), _MOST)) if math.isfinite(needed) else _LOOKED_AT
    if length <= min(_NEARLY * count, _MOST):
        return np.arange(length)
    return (
        first[:count] if count <= len(first) else np.append(first, draws.indices(count - len(first), length))
    )
