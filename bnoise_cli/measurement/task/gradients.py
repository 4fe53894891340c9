"""Gradients of chosen examples: sums over passes, and their norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnoise_cli import clock
from bnoise_cli.errors import NotFiniteError, RunError
from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.passes import passes
from bnoise_cli.measurement.task.sharding import local_part
from bnoise_cli.measurement.task.task import Spent, Task
from bnoise_cli.measurement.task.user_code import user_code
from bnoise_cli.numbers import counted

#: Norms are added up in pieces of this many numbers. On a CPU torch sums squares in float32, which loses half a percent
#: over 40 million numbers, and 3e-7 over a piece. A GPU sums in a tree; there pieces bound the temporary memory.
_PIECE, _PIECE_ON_GPU = 1 << 16, 1 << 24


@dataclass(frozen=True, slots=True)
class Block:
    """A sum S of the gradients of a few examples that went through the model together."""

    examples: int
    # The factor of their mean gradient in the sum: the number of examples, or as `Traits.weighing` counts them.
    weight: float
    # |S|²
    squared_norm: float
    # SᵀPS
    preconditioned: float


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass whose gradient the device may still be computing."""

    # Number of examples on all ranks.
    examples: int
    # Indices of the examples on this rank.
    own: Indices
    # The factor of this rank's mean gradient in the sum.
    weight: float
    # Mean loss, |S|, √(SᵀPS) on the device; shape (3,).
    seen: Tensor


def add_gradient(task: Task, into: list[Tensor], indices: Indices, draws: Draws) -> list[Block]:
    """Add the gradients of the examples at `indices` to `into`; returns the norms of each pass's sum.

    If the loss is a mean over tokens, the gradient of an example is the sum over its tokens divided by the mean number
    of tokens per example, so that sums over examples stay sums of independent draws.

    Raises:
        RunError: NaN or infinite loss or gradient, or no memory for a single example.
    """
    made: list[_Pass] = []
    for count, (own, weight, loss, gradient) in passes(task, indices, lambda own: _pass(task, own, draws)):
        if not task.sharded:  # Otherwise the backward pass has added up the gradients of all ranks.
            task.ranks.all_reduce_(gradient)
        torch._foreach_add_(into, gradient)
        seen = torch.cat([loss.double().reshape(1), _norms(task, gradient)])
        made.append(_Pass(count, own, weight, seen))
        del gradient  # frees the gradient before the next pass
    task.spend(Spent(gradient=len(indices)))
    return _blocks(task, made) if made else []


def _blocks(task: Task, made: Sequence[_Pass]) -> list[Block]:
    """Loss and norms of each pass. The only place that synchronises with the GPU and between ranks."""
    losses, *norms = torch.stack([one.seen for one in made], dim=1).tolist()
    failure: Exception | None = None
    for one, loss in zip(made, losses, strict=True):
        if failure is None and not math.isfinite(loss):
            examples = task.names(one.own)
            failure = NotFiniteError(f"{_no_loss(task, loss, len(one.own))} The examples are {examples}.")
    if (failure := task.ranks.first_failure(failure)) is not None:
        raise failure
    weights = task.ranks.all_reduce([one.weight for one in made])
    plain, weighted = ([norm**2 for norm in of_all] for of_all in norms)
    if task.sharded:
        plain, weighted = task.ranks.all_reduce(plain), task.ranks.all_reduce(weighted)
    for one, square in zip(made, plain, strict=True):
        if not math.isfinite(square):
            raise NotFiniteError(
                f"the gradient of {one.examples * task.batches.group} examples is not finite. Lower the learning "
                "rate of the warm-up, or look for a division or a logarithm at zero in the loss."
            )
    counts = [one.examples for one in made]
    return [Block(*numbers) for numbers in zip(counts, weights, plain, weighted, strict=True)]


def seconds_per_gradient_example(task: Task, draws: Draws) -> float:
    """Forward and backward in one pass: the shorter of two times, after one to warm up."""
    into, seconds = task.zeros(), []
    for _ in range(3):
        begun = clock.monotonic()
        indices = draws.indices(task.at_once, task.batches.length)
        add_gradient(task, into, indices, draws)
        seconds.append((clock.monotonic() - begun) / len(indices))
    return min(seconds[1:])


def squared_norms(task: Task, vector: list[Tensor]) -> tuple[float, float]:
    """(|v|², vᵀPv) in float64 of a vector that is sharded as the parameters are."""
    plain, weighted = (norm**2 for norm in _norms(task, vector).tolist())
    if task.sharded:
        plain, weighted = task.ranks.all_reduce([plain, weighted])
    return plain, weighted


def _norms(task: Task, vector: list[Tensor]) -> Tensor:
    """(|v|, √(vᵀPv)) in float64 of this rank's part of `vector`, on the device and without synchronising."""
    pieces = _pieces(vector)
    norms = [_norm(list(torch._foreach_norm(pieces)))]
    if task.preconditioner is not None:
        pairs = zip(pieces, _pieces(task.preconditioner), strict=True)
        norms.append(_norm([(v * p.sqrt()).norm() for v, p in pairs]))
    return torch.stack([norms[0], norms[-1]])


def _pass(task: Task, own: Indices, draws: Draws) -> tuple[Indices, float, Tensor, list[Tensor]]:
    """This rank's part of a pass: indices, weight, mean loss, and the gradient times the weight."""
    # A sharded model needs every rank in every pass, so a rank without examples computes one with weight 0.
    part = own if len(own) else np.zeros(1, dtype=np.int64)
    weight, batch = task.weighed(own, part)
    # The backward pass of sharded parameters averages over the ranks.
    scale = weight * (task.ranks.size if task.sharded else 1)
    loss, gradient = _backward(task, batch, len(part), draws, scale)
    return part, weight, loss, gradient


def loss_and_gradient(task: Task, batch: Any, examples: int, draws: Draws) -> tuple[float, list[Tensor]]:
    """A batch's mean loss and its gradient, by the same backward pass as in training.

    Raises:
        NotFiniteError: the loss is NaN or infinite.
        RunError: it depends on no parameter, or the user's code failed.
        OutOfMemoryError: the batch does not fit.
        OutOfTimeError: the time of the present phase is over.
    """
    task.require_time()
    loss, gradient = _backward(task, batch, examples, draws, 1.0)
    if not math.isfinite(value := float(loss)):
        raise NotFiniteError(_no_loss(task, value, examples))
    return value, gradient


def _backward(
    task: Task, batch: Any, examples: int, draws: Draws, scale: float
) -> tuple[Tensor, list[Tensor]]:
    """The mean loss, which may be NaN or infinite, and its gradient times `scale`, without synchronising."""
    what = _batch_of(task, examples)
    loss = task.loss(batch, draws.seed(), what)
    if not loss.requires_grad:
        raise RunError(
            "the loss does not depend on any trainable parameter. "
            "Check that the objective uses the model's output and detaches nothing."
        )
    _forget_gradient(task)
    try:
        with user_code(f"computing the gradient of {what}"):
            loss.backward(torch.full_like(loss, scale))  # type: ignore[no-untyped-call]
        return loss.detach(), [_dense(p) for p in task.trainable]
    finally:
        _forget_gradient(task)


def _batch_of(task: Task, examples: int) -> str:
    return f"a batch of {counted(examples * task.batches.group)}"


def _no_loss(task: Task, value: float, examples: int) -> str:
    return (
        f"the loss of {_batch_of(task, examples)} is {value}. Lower the learning rate of the warm-up, start from a "
        "checkpoint, or look for the cause in the data."
    )


def _forget_gradient(task: Task) -> None:
    for parameter in task.trainable:
        parameter.grad = None


def _dense(parameter: Tensor) -> Tensor:
    """The part of its gradient on this rank: zero if it has none, dense if it is sparse."""
    found = parameter.grad
    if found is None:
        return torch.zeros_like(local_part(parameter))
    return found.to_dense() if found.is_sparse else local_part(found)


def _pieces(vector: list[Tensor]) -> list[Tensor]:
    """The same numbers, split into tensors of at most `_PIECE` numbers."""
    size = _PIECE if vector[0].device.type == "cpu" else _PIECE_ON_GPU
    return [piece for tensor in vector for piece in torch.split(tensor.reshape(-1), size)]


def _norm(norms: list[Tensor]) -> Tensor:
    """The norm of a vector in float64 from the norms of its parts."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms), dtype=torch.float64)
    return norm
