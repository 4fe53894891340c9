"""Does this task fit the theory? Found out on a few examples, before anything is believed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.activations import fit_micro_batch
from bnoise_cli.measurement.batch_norms import batch_norms
from bnoise_cli.measurement.batches import Draws, Indices
from bnoise_cli.measurement.outcome import TaskFindings
from bnoise_cli.measurement.preserve import preserved
from bnoise_cli.measurement.task import Task
from bnoise_cli.measurement.weighing import FORMS, IGNORED, Weighing, tokens_in

_EXAMPLES = 16
#: Over so many examples the mean number of tokens is taken.
_LENGTHS = 256
#: Losses of the same examples and masks may differ by this part: the order of sums on a GPU.
_REPEATABLE = 1e-5
#: The gradient of a batch may differ from the mean of its halves' by this part of its norm.
_ROUNDING = 1e-3


def check_task(task: Task, seed: int) -> TaskFindings:
    """Try the loss and the gradient on a few examples, and set `task.stochastic`.

    Raises:
        RunError: the loss is no finite scalar, does not repeat, depends on no parameter, or changes the
            parameters when it is computed.
    """
    draws = Draws(seed, 1 << 21)
    normalised = batch_norms(task.model)
    with preserved(task.model, seed) as origin:
        indices = draws.indices(_EXAMPLES, task.batches.length)
        _read(task, indices)
        fit_micro_batch(task, Draws(seed, 1 << 27))
        task.stochastic = True
        same, other = draws.seed(), draws.seed()

        def thrice(part: Indices) -> NDArray[np.float64]:
            batch, what = task.batches.fetch(part), f"a batch of {len(part)} examples"
            return np.array(
                [task.finite_loss_value(batch, masks, what, part) for masks in (same, same, other)]
            )

        parts = [n / _EXAMPLES * values for n, values in task.in_micro_batches(indices, thrice)]
        values = np.sum(parts, axis=0)
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
            gap = _mean_gap(task, draws, without_masks=stochastic)
    task.stochastic = stochastic
    task.group = task.micro_batch_size if normalised or gap > _ROUNDING else 1
    parameters = sum(p.numel() for p in task.model.parameters())
    return TaskFindings(
        loss=float(values[0]),
        stochastic=stochastic or task.batches.random,
        batch_norms=len(normalised),
        group=task.group,
        mean_gap=gap,
        is_mean=gap <= _ROUNDING,
        streamed=task.batches.length if task.batches.streamed else None,
        frozen=1 - sum(p.numel() for p in task.parameters) / parameters,
        by_tokens=task.weighing.tokens_per_example if task.weighing is not None else None,
        tokens_per_example=_per_example(task, draws, tokens_in),
    )


def _read(task: Task, indices: Indices) -> None:
    """Read a batch twice, to learn of the dataset.

    One whose examples differ every time has no exact mean gradient; one that leaves the global random streams alone is
    read ahead from now on.
    """
    before = _random_states()
    once, again = (tree_leaves(task.batches.fetch(indices)) for _ in range(2))
    if _random_states() == before:
        task.batches.read_ahead()
    task.batches.random = any(
        not torch.equal(one, other)
        for one, other in zip(once, again, strict=True)
        if isinstance(one, Tensor) and one.shape == other.shape
    )


def _random_states() -> tuple[bytes, bytes, int]:
    _, keys, position, *_ = np.random.get_state(legacy=True)
    own = torch.random.get_rng_state().numpy().tobytes()
    return own, np.asarray(keys).tobytes() + str(position).encode(), hash(random.getstate())


def _mean_gap(task: Task, draws: Draws, *, without_masks: bool) -> float:
    """|gradient of a batch − mean of its halves'| over its norm, on the largest small batch that fits.

    Halves weigh as much as they have examples; where that leaves a gap and weighing by tokens leaves none, the loss is
    a mean over tokens, and `task.weighing` is set.
    """
    if without_masks:
        task.model.eval()
    size = task.micro_batch_size
    indices = draws.indices(min(_EXAMPLES, max(2, size)), task.batches.length)
    try:
        while len(indices) > 1:
            task.micro_batch_size = len(indices)
            whole = task.zeros()
            task.add_gradient(whole, indices, draws)
            if task.micro_batch_size == len(indices):
                return _gap_of_halves(task, whole, indices, draws)
            size = min(size, task.micro_batch_size)
            indices = indices[: 2 * (task.micro_batch_size // 2)]
        return 0.0
    finally:
        task.micro_batch_size = size


def _gap_of_halves(task: Task, whole: list[Tensor], indices: Indices, draws: Draws) -> float:
    """Of the sum `whole` of the gradients of a batch; that of its halves is computed anew for every weighing."""
    middle = len(indices) // 2
    first, second = indices[:middle], indices[middle:]
    norm = task.squared_norms(whole)[0] / len(indices) ** 2
    if norm == 0:
        return 0.0
    halves = task.zeros()

    def gap(one: float, other: float) -> float:
        """With these weights of the halves' means."""
        torch._foreach_zero_(halves)
        task.add_gradient(halves, first, draws)
        torch._foreach_mul_(halves, one / len(first) / (other / len(second)))
        task.add_gradient(halves, second, draws)
        torch._foreach_mul_(halves, other / len(second) / (one + other))
        torch._foreach_add_(halves, whole, alpha=-1 / len(indices))
        return math.sqrt(task.squared_norms(halves)[0] / norm)

    by_examples = gap(len(first), len(second))
    if by_examples <= _ROUNDING:
        return by_examples
    batches = [task.batches.fetch(part) for part in (first, second)]
    ignored = getattr(task.objective, "ignore_index", IGNORED)
    for count in FORMS:
        one, other = (count(batch, ignored) for batch in batches)
        if one and other and (by_tokens := gap(one, other)) <= _ROUNDING:
            mean = _per_example(task, draws, partial(count, ignored=ignored))
            task.weighing = Weighing(count, ignored, mean or 1.0)
            return by_tokens
    return by_examples


def _per_example(task: Task, draws: Draws, count: Callable[[Any], int | None]) -> float | None:
    """The mean of a count over some examples; None where batches have no such form."""
    indices, total = draws.indices(_LENGTHS, task.batches.length), 0
    if count(task.batches.fetch(indices[:2])) is None:
        return None
    for begin in range(0, _LENGTHS, task.micro_batch_size):
        total += count(task.batches.fetch(indices[begin : begin + task.micro_batch_size])) or 0
    return total / _LENGTHS
