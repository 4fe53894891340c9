"""What is measured: a model, its loss and its data, as gradients and losses of chosen examples."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.batches import Batches, Draws, Indices
from bnoise_cli.measurement.user_code import OutOfMemoryError, user_code
from bnoise_cli.measurement.weighing import Weighing
from bnoise_cli.numbers import counted

T = TypeVar("T")
#: f(model, batch) → the mean loss over the batch's examples, a scalar tensor.
Objective = Callable[[nn.Module, Any], Tensor]


class NotFiniteError(RunError):
    """A loss or a gradient is NaN or infinite."""


@dataclass(frozen=True, slots=True)
class Block:
    """A sum S of the gradients of a few examples that went through the model together."""

    examples: int
    weight: float  # of their mean in the sum: the number of examples, or what `Task.weighing` makes of it
    squared_norm: float  # |S|²
    preconditioned: float  # SᵀPS


class Task:
    """A training task at fixed weights.

    Attributes:
        model, objective, batches: what was built from the config.
        parameters: the trainable parameters, tied ones once.
        preconditioner: P, the positive diagonal in an update u = P·g; None for P = 1.
        micro_batch_size: examples that go through the model at once; halved when memory runs out from
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
    ) -> None:
        self.model = model
        self.batches = batches
        self.parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
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
        if any(is_lazy(p) for p in self.parameters):
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
        """A place to add up gradients: one copy of the trainable parameters."""
        return [torch.zeros_like(p) for p in self.parameters]

    def loss(self, batch: Any, mask_seed: int, what: str) -> Tensor:
        """The mean loss of a batch, differentiable.

        Raises:
            RunError: the user's code failed, or the loss is no finite scalar; says for which batch.
            OutOfMemoryError: the batch does not fit.
        """
        if self.stochastic:
            torch.manual_seed(mask_seed)
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

    def loss_value(self, batch: Any, mask_seed: int, what: str) -> float:
        """The mean loss of a batch as a Python float, without a graph; may be NaN or infinite."""
        with torch.no_grad():
            return float(self.loss(batch, mask_seed, what).double())

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

    def weight(self, batch: Any, examples: int) -> float:
        """How much the mean loss of a batch of so many examples counts, in examples of average weight."""
        return float(examples) if self.weighing is None else self.weighing.weight(batch)

    def add_gradient(self, into: list[Tensor], indices: Indices, draws: Draws) -> list[Block]:
        """Add the gradients of the examples at `indices` to `into`; returns the norms of each micro-batch's sum.

        Where a loss is a mean over tokens, the gradient of an example is that of its tokens' sum over the tokens of an
        average example: sums over examples stay sums of independent draws.

        Raises:
            RunError: NaN or infinite loss or gradient, or no memory for a single example.
        """
        blocks = []
        for count, (weight, gradient) in self.in_micro_batches(
            indices, lambda part: self._gradient(part, draws)
        ):
            plain, weighted = self.squared_norms(gradient)
            if not math.isfinite(plain):
                raise NotFiniteError(
                    f"the gradient of {count * self.batches.group} examples is not finite. Lower the learning rate of "
                    "the warm-up, or look for a division or a logarithm at zero in the loss."
                )
            torch._foreach_add_(into, gradient, alpha=weight)
            blocks.append(Block(count, weight, plain * weight**2, weighted * weight**2))
        self.gradient_examples += len(indices)
        return blocks

    def seconds_per_gradient_example(self, draws: Draws) -> float:
        """Forward and backward on one micro-batch: the shorter of two times, after one to warm up."""
        into, seconds = self.zeros(), []
        for _ in range(3):
            begun = time.monotonic()
            indices = draws.indices(self.micro_batch_size, self.batches.length)
            self.add_gradient(into, indices, draws)
            seconds.append((time.monotonic() - begun) / len(indices))
        return min(seconds[1:])

    def squared_norms(self, vector: list[Tensor]) -> tuple[float, float]:
        """(|v|², vᵀPv) in float64."""
        plain = _sum_of_squares(vector)
        if self.preconditioner is None:
            return plain, plain
        norms = [
            (v * p.sqrt()).norm() for v, p in zip(vector, self.preconditioner, strict=True)
        ]  # one at a time
        return plain, float((torch.stack(norms).double() ** 2).sum())

    def _gradient(self, indices: Indices, draws: Draws) -> tuple[float, list[Tensor]]:
        """The weight of the batch at `indices` and the gradient of its mean loss."""
        batch = self.batches.fetch(indices)
        try:
            gradient = self.gradient(batch, len(indices), draws)
        except NotFiniteError as error:
            examples = _few(self.batches.examples(indices))
            raise NotFiniteError(f"{error} The examples are {examples}.") from None
        return self.weight(batch, len(indices)), gradient

    def gradient(self, batch: Any, examples: int, draws: Draws) -> list[Tensor]:
        """The gradient of a batch's mean loss, by the backward pass that training makes.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
            RunError: it depends on no parameter, or the user's code failed.
            OutOfMemoryError: the batch does not fit.
        """
        what = f"a batch of {counted(examples * self.batches.group)}"
        loss = self.loss(batch, draws.seed(), what)
        if not torch.isfinite(loss):
            raise NotFiniteError(
                f"the loss of {what} is {loss.item()}. Lower the learning rate of the warm-up, start from a "
                "checkpoint, or look for the cause in the data."
            )
        if not loss.requires_grad:
            raise RunError(
                "the loss does not depend on any trainable parameter. "
                "Check that the objective uses the model's output and detaches nothing."
            )
        self._forget_gradient()
        try:
            with user_code(f"computing the gradient of {what}"):
                loss.backward()  # type: ignore[no-untyped-call]
            return [_dense(p) for p in self.parameters]
        finally:
            self._forget_gradient()

    def _forget_gradient(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def in_micro_batches(self, indices: Indices, run: Callable[[Indices], T]) -> Iterator[tuple[int, T]]:
        """Apply `run` to `indices` in parts that fit the memory; yields (examples, result) of each.

        Raises:
            RunError: no memory for a single example.
        """
        self.expect(indices)
        start = 0
        while start < len(indices):
            part = indices[start : start + even_part(len(indices) - start, self.micro_batch_size)]
            try:
                result = run(part)
            except OutOfMemoryError as error:
                if len(part) == 1:
                    raise RunError(
                        f"out of memory with {_amount(self.batches.group)}. Free memory on the device, use a larger "
                        f"one or a smaller model. The allocator said: {error}"
                    ) from None
                self.micro_batch_size = len(part) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start += len(part)
            yield len(part), result

    def expect(self, *coming: Indices) -> None:
        """Say which examples will be asked for next, so that they can be read in the meantime."""
        self.batches.expect(
            [part for indices in coming for part in _even_parts(indices, self.micro_batch_size)]
        )

    def finite_loss_value(self, batch: Any, mask_seed: int, what: str, indices: Indices) -> float:
        """As `loss_value`, where a loss that is not finite is an error that names the examples."""
        value = self.loss_value(batch, mask_seed, what)
        if not math.isfinite(value):
            examples = _few(self.batches.examples(indices))
            raise NotFiniteError(f"the loss of {what} is {value}: the examples are {examples}.")
        return value

    def mean_loss(self, indices: Indices, draws: Draws) -> float:
        """The mean loss of the examples at `indices` at the present weights."""

        def evaluate(part: Indices) -> tuple[float, float]:
            what, batch = (
                f"a batch of {len(part) * self.batches.group} evaluation examples",
                self.batches.fetch(part),
            )
            return self.weight(batch, len(part)), self.finite_loss_value(batch, draws.seed(), what, part)

        parts = [found for _, found in self.in_micro_batches(indices, evaluate)]
        return math.fsum(weight * value for weight, value in parts) / math.fsum(weight for weight, _ in parts)


def _amount(group: int) -> str:
    return "a single example" if group == 1 else f"the {group} examples that one device is to take at once"


def _dense(parameter: Tensor) -> Tensor:
    """Its gradient; zero where it has none, dense where an embedding's is sparse."""
    found = parameter.grad
    if found is None:
        return torch.zeros_like(parameter)
    return found.to_dense() if found.is_sparse else found


def _sum_of_squares(vector: list[Tensor]) -> float:
    norms = torch.stack([norm.double() for norm in torch._foreach_norm(vector)])
    return float((norms**2).sum())


def even_part(count: int, most: int) -> int:
    """The size of the first of as few, as equal parts of `count` as hold at most `most` each."""
    return -(-count // -(-count // most))


def _even_parts(indices: Indices, most: int) -> Iterator[Indices]:
    while len(indices):
        size = even_part(len(indices), most)
        yield indices[:size]
        indices = indices[size:]


def _few(indices: Indices) -> str:
    shown = ", ".join(str(int(index)) for index in indices[:8])
    return f"number {shown}" + (" and others" if len(indices) > 8 else "")
