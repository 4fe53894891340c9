"""What is measured: a model, its loss and its data, as gradients and losses of chosen examples."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnoise_cli.errors import NotFiniteError, RunError
from bnoise_cli.measurement.task.batches import Batches, Draws, Indices
from bnoise_cli.measurement.task.passes import even_parts, passes
from bnoise_cli.measurement.task.ranks import ALONE, Ranks
from bnoise_cli.measurement.task.sharding import is_sharded, local_part
from bnoise_cli.measurement.task.user_code import user_code
from bnoise_cli.measurement.task.weighing import Weighing
from bnoise_cli.numbers import counted

#: On a CPU torch adds a tensor's squares up in a few float32 sums, which lose half a percent of 40 million of them;
#: pieces of this size lose 3e-7. A GPU adds in a tree: there they only bound what is made besides.
_PIECE, _PIECE_ON_GPU = 1 << 16, 1 << 24
#: f(model, batch) → the mean loss over the batch's examples, a scalar tensor.
Objective = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, slots=True)
class Block:
    """A sum S of the gradients of a few examples that went through the model together."""

    examples: int
    weight: float  # of their mean in the sum: the number of examples, or what `Task.weighing` makes of it
    squared_norm: float  # |S|²
    preconditioned: float  # SᵀPS


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass of which the device may still be making the gradient."""

    examples: int  # of all ranks
    own: Indices  # of this one
    weight: float  # of this rank's mean
    seen: Tensor  # mean loss, |S|, √(SᵀPS); shape (3,)


class Task:
    """A training task at fixed weights.

    Attributes:
        model, objective, batches: what was built from the config.
        trainable: the trainable parameters as model and optimizer hold them, tied ones once.
        parameters: what of them this rank holds: the parameters themselves, or its parts of sharded ones.
        sharded: whether the parameters are spread over `ranks`, so that every pass is one of all of them.
        ranks: the processes that share the examples of every pass.
        preconditioner: P, the positive diagonal in an update u = P·g; None for P = 1.
        micro_batch_size: examples that go through the model on one device at once; halved when memory runs out from
            `planned_micro_batch_size`.
        stochastic: whether the loss of given examples depends on random masks.
        group: examples that must go through the model together, because the loss is no mean over them; 1 where it is.
        weighing: how much the mean loss of a batch counts; None where that is its number of examples.
        autocast: the type in which the model computes, where that is lower than that of its parameters.
        full_lines: whether losses along updates are computed without `autocast`, to tell them apart.
        gradient_examples, evaluation_examples: what has been spent so far.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batches: Batches,
        *,
        micro_batch_size: int,
        preconditioner: list[Tensor] | None = None,
        autocast: torch.dtype | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self.batches = batches
        self.ranks = ranks
        self.trainable: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.parameters = [local_part(p) for p in self.trainable]
        self.sharded = any(is_sharded(p) for p in self.trainable)
        self.preconditioner = preconditioner
        self.micro_batch_size = self.planned_micro_batch_size = micro_batch_size
        self.stochastic = True
        self.group = 1
        self.weighing: Weighing | None = None
        self.autocast = autocast
        self.full_lines = False
        self.gradient_examples = 0
        self.evaluation_examples = 0
        self.objective = objective
        if not self.parameters:
            raise RunError(
                "the probe needs trainable parameters; this model has none with requires_grad. "
                "Unfreeze what the planned run trains."
            )
        if any(is_lazy(p) for p in self.trainable):
            raise RunError(
                "the probe needs parameters with a shape; this model has lazy ones that are not yet initialised. "
                "Run one batch through the model before it is returned."
            )
        if any(p.is_complex() for p in self.parameters):
            raise RunError(
                "the probe needs real parameters; this model has complex ones. Hold them as pairs of reals."
            )
        low = sorted({str(p.dtype) for p in self.parameters if p.dtype.itemsize < 4})
        if low:
            raise RunError(
                f"the probe needs parameters in float32 or better, because it compares losses that differ "
                f"little; it found {', '.join(low)}. Set probe.precision_mode: bf16-mixed, which keeps the parameters "
                "in float32 and computes in bfloat16, or build the model in float32."
            )

    @property
    def dtype(self) -> str:
        """The type of the parameters, and that of the computation where it is another."""
        kept = str(self.parameters[0].dtype).removeprefix("torch.")
        return (
            kept
            if self.autocast is None
            else f"{kept}, computed in {str(self.autocast).removeprefix('torch.')}"
        )

    def zeros(self) -> list[Tensor]:
        """A place to add up gradients: one copy of `parameters`."""
        return [torch.zeros_like(p) for p in self.parameters]

    def loss(self, batch: Any, mask_seed: int, what: str) -> Tensor:
        """The mean loss of a batch, differentiable.

        Raises:
            RunError: the user's code failed, or the loss is no finite scalar; says for which batch.
            OutOfMemoryError: the batch does not fit.
        """
        if self.stochastic:
            torch.manual_seed((mask_seed + self.ranks.rank) % 2**63)
        kind = self.parameters[0].device.type
        with (
            user_code(f"computing the loss of {what}"),
            torch.autocast(kind, self.autocast, enabled=self.autocast is not None),
        ):
            value = self.objective(self.model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = (
                f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(type(value))
            )
            raise RunError(
                f"the loss must be one number, the mean over the batch; {what} gave {shape}. "
                "Use reduction='mean', or return loss.mean()."
            )
        return value.reshape(())

    def loss_value(self, batch: Any, mask_seed: int, what: str) -> Tensor:
        """The mean loss of a batch in float64, without a graph and without waiting for it; may be NaN or infinite."""
        with torch.no_grad():
            return self.loss(batch, mask_seed, what).double()

    def in_groups(self) -> Task:
        """The same task where every draw is of `group` examples, which go through the model together."""
        if self.group == 1:
            return self
        task = copy.copy(self)
        task.batches, task.group = self.batches.grouped(self.group), 1
        task.micro_batch_size = task.planned_micro_batch_size = 1
        if self.weighing is not None:
            task.weighing = replace(
                self.weighing, tokens_per_example=self.group * self.weighing.tokens_per_example
            )
        return task

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Compute in the type of the parameters inside."""
        kept, self.autocast = self.autocast, None
        try:
            yield
        finally:
            self.autocast = kept

    @property
    def at_once(self) -> int:
        """Examples of one pass: where the parameters are sharded, those of all ranks."""
        return self.micro_batch_size * (self.ranks.size if self.sharded else 1)

    @contextmanager
    def apart(self) -> Iterator[Ranks]:
        """Inside, this rank makes passes of its own, whose parameters are not sharded; gives all ranks."""
        kept, self.ranks = self.ranks, ALONE
        try:
            yield kept
        finally:
            self.ranks = kept

    def deal(
        self, indices: Indices, draws: Draws, work: Callable[[Indices], tuple[float, float]]
    ) -> tuple[float, float]:
        """Sums of what `work` finds on each micro-batch of `indices`, which the ranks take in turn.

        Micro-batches are those of a single process where the loss is no mean over examples; else each rank has one at
        least. Sharded parameters need all ranks for each.

        Raises:
            RunError: what `work` raised on any rank.
        """
        if self.sharded:
            return work(indices)
        sums, failure, planned = [0.0, 0.0], None, self.micro_batch_size
        with self.apart() as ranks:
            size = planned if self.group > 1 else min(planned, -(-len(indices) // ranks.size))
            for number, part in enumerate(even_parts(indices, size)):
                if number % ranks.size != ranks.rank:
                    draws.seed()  # of the masks that another rank uses
                    continue
                try:
                    sums = [have + found for have, found in zip(sums, work(part), strict=True)]
                except RunError as error:
                    failure = error
                    break
        changed = failure is not None or self.micro_batch_size < planned
        weight, value, changes = self.ranks.total([*sums, changed])
        if changes:
            self.settle(failure)
        return weight, value

    def settle(self, failure: RunError | None) -> None:
        """After passes apart: one rank's failure is everyone's, and so is the smallest micro-batch.

        Raises:
            RunError: the failure of the first rank that had one.
        """
        if (found := self.ranks.agree(failure)) is not None:
            raise found
        self.micro_batch_size = min(self.ranks.gather(self.micro_batch_size))

    def _weighed(self, own: Indices, part: Indices) -> tuple[float, Any]:
        """How much the mean loss of this rank's examples counts, in examples of average weight, and a batch of `part`.

        Tokens are counted before the batch goes to the device, which would have to be waited for.
        """
        batch = self.batches.read(part)
        weight = float(len(own))
        if self.weighing is not None and len(own):
            weight = self.weighing.weight(batch)
        return weight, self.batches.on_device(batch)

    def add_gradient(self, into: list[Tensor], indices: Indices, draws: Draws) -> list[Block]:
        """Add the gradients of the examples at `indices` to `into`; returns the norms of each pass's sum.

        Where a loss is a mean over tokens, the gradient of an example is that of its tokens' sum over the tokens of an
        average example: sums over examples stay sums of independent draws.

        Raises:
            RunError: NaN or infinite loss or gradient, or no memory for a single example.
        """
        made: list[_Pass] = []
        for count, (own, weight, loss, gradient) in passes(self, indices, lambda own: self._pass(own, draws)):
            if not self.sharded:  # else the backward pass has added them up
                self.ranks.add(gradient)
            torch._foreach_add_(into, gradient)
            seen = torch.cat([loss.double().reshape(1), self._norms(gradient)])
            made.append(_Pass(count, own, weight, seen))
            del gradient  # not to be held during the next pass
        self.gradient_examples += len(indices)
        return self._blocks(made) if made else []

    def _blocks(self, made: Sequence[_Pass]) -> list[Block]:
        """What passes came to; here alone is waited for the device, and the ranks exchange numbers."""
        losses, *norms = torch.stack([one.seen for one in made], dim=1).tolist()
        failure: Exception | None = None
        for one, loss in zip(made, losses, strict=True):
            if failure is None and not math.isfinite(loss):
                examples = _few(self.batches.examples(one.own))
                failure = NotFiniteError(f"{self._no_loss(loss, len(one.own))} The examples are {examples}.")
        if (failure := self.ranks.agree(failure)) is not None:
            raise failure
        weights = self.ranks.total([one.weight for one in made])
        plain, weighted = ([norm**2 for norm in of_all] for of_all in norms)
        if self.sharded:
            plain, weighted = self.ranks.total(plain), self.ranks.total(weighted)
        for one, square in zip(made, plain, strict=True):
            if not math.isfinite(square):
                raise NotFiniteError(
                    f"the gradient of {one.examples * self.batches.group} examples is not finite. Lower the learning "
                    "rate of the warm-up, or look for a division or a logarithm at zero in the loss."
                )
        counts = [one.examples for one in made]
        return [Block(*numbers) for numbers in zip(counts, weights, plain, weighted, strict=True)]

    def mean_values(
        self, indices: Indices, evaluate: Callable[[Any, Indices], Sequence[float]]
    ) -> Iterator[tuple[float, list[float]]]:
        """For each pass over `indices` its weight and the means of values that `evaluate` finds on a batch of it.

        Args:
            evaluate: f(batch, indices) → means over the batch.
        """

        def of_own(own: Indices) -> list[float]:
            part = own if len(own) else indices[:1]  # in a sharded model every rank takes part
            share, batch = self._weighed(own, part)
            values = evaluate(batch, part)
            if not len(own):
                return [0.0] * (1 + len(values))
            return [share, *(share * value for value in values)]

        for _, found in passes(self, indices, of_own):
            share, *sums = self.ranks.total(found)
            yield share, [value / share if share else 0.0 for value in sums]

    def seconds_per_gradient_example(self, draws: Draws) -> float:
        """Forward and backward in one pass: the shorter of two times, after one to warm up."""
        into, seconds = self.zeros(), []
        for _ in range(3):
            begun = time.monotonic()
            indices = draws.indices(self.at_once, self.batches.length)
            self.add_gradient(into, indices, draws)
            seconds.append((time.monotonic() - begun) / len(indices))
        return min(seconds[1:])

    def squared_norms(self, vector: list[Tensor]) -> tuple[float, float]:
        """(|v|², vᵀPv) in float64, of a vector that is spread as the parameters are."""
        plain, weighted = (norm**2 for norm in self._norms(vector).tolist())
        if self.sharded:
            plain, weighted = self.ranks.total([plain, weighted])
        return plain, weighted

    def _norms(self, vector: list[Tensor]) -> Tensor:
        """(|v|, √(vᵀPv)) in float64 of what this rank holds, on the device; without waiting for it."""
        pieces = _pieces(vector)
        norms = [_norm(list(torch._foreach_norm(pieces)))]
        if self.preconditioner is not None:
            pairs = zip(pieces, _pieces(self.preconditioner), strict=True)
            norms.append(_norm([(v * p.sqrt()).norm() for v, p in pairs]))
        return torch.stack([norms[0], norms[-1]])

    def _pass(self, own: Indices, draws: Draws) -> tuple[Indices, float, Tensor, list[Tensor]]:
        """This rank's examples, their weight, mean loss, and gradient as it adds up to that of the pass."""
        part = own if len(own) else np.zeros(1, dtype=np.int64)  # in a sharded model every rank takes part
        weight, batch = self._weighed(own, part)
        # The backward pass of sharded parameters gives the mean over the ranks.
        scale = weight * (self.ranks.size if self.sharded else 1)
        loss, gradient = self._backward(batch, len(part), draws, scale)
        return part, weight, loss, gradient

    def gradient(self, batch: Any, examples: int, draws: Draws) -> list[Tensor]:
        """The gradient of a batch's mean loss, by the backward pass that training makes.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
            RunError: it depends on no parameter, or the user's code failed.
            OutOfMemoryError: the batch does not fit.
        """
        loss, gradient = self._backward(batch, examples, draws, 1.0)
        if not math.isfinite(value := float(loss)):
            raise NotFiniteError(self._no_loss(value, examples))
        return gradient

    def _backward(self, batch: Any, examples: int, draws: Draws, scale: float) -> tuple[Tensor, list[Tensor]]:
        """The mean loss, which may be NaN or infinite, and its gradient times `scale`; without waiting for them."""
        what = self._batch_of(examples)
        loss = self.loss(batch, draws.seed(), what)
        if not loss.requires_grad:
            raise RunError(
                "the loss does not depend on any trainable parameter. "
                "Check that the objective uses the model's output and detaches nothing."
            )
        self._forget_gradient()
        try:
            with user_code(f"computing the gradient of {what}"):
                loss.backward(torch.full_like(loss, scale))  # type: ignore[no-untyped-call]
            return loss.detach(), [_dense(p) for p in self.trainable]
        finally:
            self._forget_gradient()

    def _batch_of(self, examples: int) -> str:
        return f"a batch of {counted(examples * self.batches.group)}"

    def _no_loss(self, value: float, examples: int) -> str:
        return (
            f"the loss of {self._batch_of(examples)} is {value}. Lower the learning rate of the warm-up, start from a "
            "checkpoint, or look for the cause in the data."
        )

    def _forget_gradient(self) -> None:
        for parameter in self.trainable:
            parameter.grad = None

    def expect(self, *coming: Indices) -> None:
        """Say which examples will be asked for next, so that they can be read in the meantime."""
        ranks = self.ranks
        parts = (ranks.own(part) for indices in coming for part in even_parts(indices, self.at_once))
        self.batches.expect(part for part in parts if len(part))

    def finite_loss_values(
        self, batch: Any, mask_seeds: Sequence[int], what: str, indices: Indices
    ) -> list[float]:
        """`loss_value` with each seed, where a loss that is not finite is an error that names the examples."""
        values: list[float] = torch.stack(
            [self.loss_value(batch, seed, what) for seed in mask_seeds]
        ).tolist()
        for value in values:
            self.require_finite(value, what, indices)
        return values

    def require_finite(self, value: float, what: str, indices: Indices) -> None:
        """
        Raises:
            NotFiniteError: the loss of a batch of these examples is not.
        """
        if not math.isfinite(value):
            examples = _few(self.batches.examples(indices))
            raise NotFiniteError(f"the loss of {what} is {value}: the examples are {examples}.")

    def mean_loss(self, indices: Indices, draws: Draws) -> float:
        """The mean loss of the examples at `indices` at the present weights."""

        def evaluate(batch: Any, part: Indices) -> list[float]:
            what = f"a batch of {len(part) * self.batches.group} evaluation examples"
            return self.finite_loss_values(batch, [draws.seed()], what, part)

        def of_part(part: Indices) -> tuple[float, float]:
            found = list(self.mean_values(part, evaluate))
            return math.fsum(weight for weight, _ in found), math.fsum(
                weight * value for weight, [value] in found
            )

        weight, value = self.deal(indices, draws, of_part)
        return value / weight


def _dense(parameter: Tensor) -> Tensor:
    """What this rank holds of its gradient; zero where it has none, dense where an embedding's is sparse."""
    found = parameter.grad
    if found is None:
        return torch.zeros_like(local_part(parameter))
    return found.to_dense() if found.is_sparse else local_part(found)


def _pieces(vector: list[Tensor]) -> list[Tensor]:
    """The same numbers in tensors of at most `_PIECE` each."""
    size = _PIECE if vector[0].device.type == "cpu" else _PIECE_ON_GPU
    return [piece for tensor in vector for piece in torch.split(tensor.reshape(-1), size)]


def _norm(norms: list[Tensor]) -> Tensor:
    """That of a whole vector, in float64, from those of its parts."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms), dtype=torch.float64)
    return norm


def _few(indices: Indices) -> str:
    shown = ", ".join(str(int(index)) for index in indices[:8])
    return f"number {shown}" + (" and others" if len(indices) > 8 else "")
