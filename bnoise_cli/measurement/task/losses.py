"""Losses of chosen examples, by forward passes only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from bnoise_cli.errors import NotFiniteError
from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.passes import passes, split_over_ranks
from bnoise_cli.measurement.task.task import Task


def mean_values(
    task: Task, indices: Indices, evaluate: Callable[[Any, Indices], Sequence[float]]
) -> Iterator[tuple[float, list[float]]]:
    """For each pass over `indices` its weight and the means of values that `evaluate` finds on a batch of it.

    Args:
        evaluate: f(batch, indices) → means over the batch.
    """

    def of_own(own: Indices) -> list[float]:
        part = own if len(own) else indices[:1]  # in a sharded model every rank takes part
        share, batch = task.weighed(own, part)
        values = evaluate(batch, part)
        if not len(own):
            return [0.0] * (1 + len(values))
        return [share, *(share * value for value in values)]

    for _, found in passes(task, indices, of_own):
        share, *sums = task.ranks.all_reduce(found)
        yield share, [value / share if share else 0.0 for value in sums]


def finite_loss_values(
    task: Task, batch: Any, mask_seeds: Sequence[int], what: str, indices: Indices
) -> list[float]:
    """`loss_value` with each seed. A loss that is not finite is an error that names the examples."""
    values: list[float] = torch.stack([task.loss_value(batch, seed, what) for seed in mask_seeds]).tolist()
    for value in values:
        require_finite(task, value, what, indices)
    return values


def require_finite(task: Task, value: float, what: str, indices: Indices) -> None:
    """
    Raises:
        NotFiniteError: the loss of a batch of these examples is not.
    """
    if not math.isfinite(value):
        examples = task.names(indices)
        raise NotFiniteError(f"the loss of {what} is {value}: the examples are {examples}.")


def mean_loss(task: Task, indices: Indices, draws: Draws) -> float:
    """The mean loss of the examples at `indices` at the present weights."""

    def evaluate(batch: Any, part: Indices) -> list[float]:
        what = f"a batch of {len(part) * task.batches.group} evaluation examples"
        return finite_loss_values(task, batch, [draws.seed()], what, part)

    def of_part(part: Indices) -> tuple[float, float]:
        found = list(mean_values(task, part, evaluate))
        return math.fsum(weight for weight, _ in found), math.fsum(
            weight * value for weight, [value] in found
        )

    weight, value = split_over_ranks(task, indices, draws, of_part)
    return value / weight
