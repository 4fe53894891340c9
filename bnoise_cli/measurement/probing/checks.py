"""Does this task fit the theory? Found out on a few examples, before anything is believed."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.outcome import TaskFindings
from bnoise_cli.measurement.task.activations import fit_micro_batch
from bnoise_cli.measurement.task.batch_norms import batch_norms
from bnoise_cli.measurement.task.batches import Draws, Indices, Stream, map_tensors
from bnoise_cli.measurement.task.gradients import gradient, squared_norms
from bnoise_cli.measurement.task.losses import finite_loss_values, mean_loss, mean_values
from bnoise_cli.measurement.task.passes import same_on_all
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.user_code import OutOfMemoryError
from bnoise_cli.measurement.task.weighing import FORMS, IGNORED, Weighing, tokens_in

_EXAMPLES = 16
#: Over so many examples the mean number of tokens is taken.
_LENGTHS = 256
#: Losses of the same examples and masks may differ by this part: the order of sums on a GPU.
_REPEATABLE = 1e-5
#: The gradient of a batch may differ from the mean of its halves' by this part of its norm: bfloat16 inside a model, a
#: small term that balances experts.
_ROUNDING = 1e-2
#: Reading so many examples in the background pays from about so many seconds on: handing a batch from one thread to
#: another took 0.6 ms beside small operations of torch.
_HAND_OVER = 1e-3
#: No other weighing is looked for below the first; one by tokens must leave at most this part of the gap.
_EXACT, _BETTER = 1e-5, 0.3


def check_task(task: Task, seed: int) -> TaskFindings:
    """Try the loss and the gradient on a few examples, and set `task.stochastic`.

    Raises:
        RunError: the loss is no finite scalar, does not repeat, depends on no parameter, or changes the
            parameters when it is computed.
    """
    draws = Draws(seed, Stream.CHECKS)
    normalised = batch_norms(task.model)
    with preserved(task.model, seed) as origin:
        indices = draws.indices(_EXAMPLES, task.batches.length)
        _read(task, indices)
        fit_micro_batch(task, Draws(seed, Stream.CHECK_MEMORY))
        task.stochastic = True
        same, other = draws.seed(), draws.seed()

        def thrice(batch: Any, part: Indices) -> list[float]:
            return finite_loss_values(
                task, batch, (same, same, other), f"a batch of {len(part)} examples", part
            )

        few = indices[: max(_EXAMPLES // task.at_once, 1) * task.at_once]
        with same_on_all(task):
            parts = [weight / len(few) * np.array(found) for weight, found in mean_values(task, few, thrice)]
        values = task.ranks.broadcast(np.sum(parts, axis=0))
        if any(not torch.equal(p, value) for p, value in zip(task.parameters, origin, strict=True)):
            raise RunError(
                "computing the loss changed the model's parameters in place. The probe holds them fixed: "
                "move the change out of forward()."
            )
        if not abs(values[0] - values[1]) <= _REPEATABLE * abs(values[0]):
            raise RunError(
                "the loss must repeat on the same examples with the same random masks; it gave "
                f"{values[0]:.9g} and then {values[1]:.9g}. Look for a random generator of its own, a counter or "
                "a cache in the model or the loss; line evaluations would measure that and not the step."
            )
        stochastic = not abs(values[0] - values[2]) <= _REPEATABLE * abs(values[0])
        for layer in normalised:
            layer.eval()  # what else is there that is no mean?
        with task.full_precision():
            gap = task.ranks.broadcast(_mean_gap(task, draws, without_masks=stochastic))
        for layer in normalised:
            layer.train()
        task.stochastic = stochastic
        task.group = task.micro_batch_size if normalised or gap > _ROUNDING else 1
        if task.group == 1 and gap > _ROUNDING:
            raise RunError(
                "the loss of a batch is no mean over its examples, and one device of the planned run takes a single "
                "one. Set training.batch_size (over world_size) to what a device takes at once, two or more."
            )
        loss = float(values[0])
        if task.group > 1:
            groups = task.in_groups()
            loss = mean_loss(groups, draws.indices(1, groups.batches.length), draws)
    parameters = sum(p.numel() for p in task.model.parameters())
    return TaskFindings(
        loss=loss,
        stochastic=stochastic or task.batches.random,
        batch_norms=len(normalised),
        group=task.group,
        mean_gap=gap,
        is_mean=gap <= _ROUNDING,
        streamed=task.batches.length if task.batches.streamed else None,
        frozen=1 - sum(p.numel() for p in task.trainable) / parameters,
        by_tokens=task.weighing.tokens_per_example if task.weighing is not None else None,
        tokens_per_example=_per_example(task, draws, tokens_in),
        loss_parameters=getattr(task.objective, "parameters_left", 0),
    )


def _read(task: Task, indices: Indices) -> None:
    """Read a batch twice and another one, to learn of the dataset.

    One whose examples differ every time has no exact mean gradient; one that takes its time and leaves the global
    random streams alone is read ahead from now on.
    """
    before = _random_states()
    once, again = (tree_leaves(task.batches.fetch(indices)) for _ in range(2))
    # Other examples, which no cache holds yet; and nothing is done for the first time.
    begun = time.perf_counter()
    task.batches.fetch((indices + task.batches.length // 2) % task.batches.length)
    if time.perf_counter() - begun > _HAND_OVER and _random_states() == before:
        task.batches.read_ahead()
    task.batches.random = any(
        task.ranks.all_gather(
            any(
                not torch.equal(one, other)
                for one, other in zip(once, again, strict=True)
                if isinstance(one, Tensor) and one.shape == other.shape
            )
        )
    )


def _random_states() -> tuple[bytes, bytes, int]:
    _, keys, position, *_ = np.random.get_state(legacy=True)
    own = torch.random.get_rng_state().numpy().tobytes()
    return own, np.asarray(keys).tobytes() + str(position).encode(), hash(random.getstate())


def _mean_gap(task: Task, draws: Draws, *, without_masks: bool) -> float:
    """|gradient of a batch − mean of its halves'| over its norm, on the largest small batch that fits.

    Halves weigh as much as they have examples. If that leaves a gap and weighing by tokens leaves none, the loss is a
    mean over tokens, and `task.weighing` is set. Batches of few examples are tried until one shows a gap: two halves
    of as many tokens show none.
    """
    if without_masks:
        task.model.eval()
    size, gap = min(_EXAMPLES, max(2, task.micro_batch_size)), 0.0
    for _ in range(_EXAMPLES // size):
        gap = _gap_that_fits(task, draws.indices(size, task.batches.length), draws)
        if gap > _EXACT or task.weighing is not None:
            break
    return gap


def _gap_that_fits(task: Task, indices: Indices, draws: Draws) -> float:
    """The gap on the first of the examples, as many as fit the memory."""
    while len(indices) > 1:
        try:
            return _gap_of_halves(task, indices, draws)
        except OutOfMemoryError:
            indices = indices[: len(indices) // 2]
    return 0.0


def _gap_of_halves(task: Task, indices: Indices, draws: Draws) -> float:
    """The halves are cut out of one batch that was read once: examples and their collation may be random."""
    count, middle = len(indices), len(indices) // 2
    batch, sizes = task.batches.fetch(indices), (middle, len(indices) - middle)
    if any(isinstance(x, Tensor) and x.ndim > 0 and len(x) == count for x in tree_leaves(batch)):
        halves = [_cut(batch, count, slice(0, middle)), _cut(batch, count, slice(middle, count))]
    else:  # of no form that is known
        halves = [task.batches.fetch(indices[:middle]), task.batches.fetch(indices[middle:])]
    whole, sums = task.zeros(), task.zeros()
    torch._foreach_add_(whole, gradient(task, batch, count, draws))
    norm = squared_norms(task, whole)[0]
    if norm == 0:
        return 0.0

    def gap(weights: Sequence[float]) -> float:
        """With these weights of the halves' means."""
        torch._foreach_zero_(sums)
        for half, size, weight in zip(halves, sizes, weights, strict=True):
            torch._foreach_add_(sums, gradient(task, half, size, draws), alpha=weight / sum(weights))
        torch._foreach_sub_(sums, whole)
        return math.sqrt(squared_norms(task, sums)[0] / norm)

    by_examples = gap(sizes)
    if by_examples <= _EXACT:
        return by_examples
    ignored = getattr(task.objective, "ignore_index", IGNORED)
    counted = [(form, [form(half, ignored) or 0 for half in halves]) for form in FORMS]
    gaps = [(gap(counts), place) for place, (_, counts) in enumerate(counted) if all(counts)]
    by_tokens, place = min(gaps, default=(math.inf, 0))
    if by_tokens > min(_ROUNDING, _BETTER * by_examples):
        return by_examples
    form = counted[place][0]
    mean = _per_example(task, draws, partial(form, ignored=ignored))
    task.weighing = Weighing(form, ignored, mean or 1.0)
    return by_tokens


def _cut(batch: Any, count: int, part: slice) -> Any:
    """Some of the examples of a batch: of every tensor that has one row for each."""
    return map_tensors(batch, lambda x: x[part] if x.ndim > 0 and len(x) == count else x)


def _per_example(task: Task, draws: Draws, count: Callable[[Any], int | None]) -> float | None:
    """The mean of a count over some examples; None where batches have no such form."""
    indices, total = draws.indices(_LENGTHS, task.batches.length), 0
    if count(task.batches.fetch(indices[:2])) is None:
        return None
    for begin in range(0, _LENGTHS, task.micro_batch_size):
        total += count(task.batches.fetch(indices[begin : begin + task.micro_batch_size])) or 0
    return total / _LENGTHS
