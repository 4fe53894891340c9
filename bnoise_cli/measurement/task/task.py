"""What is measured: a model, its loss and its data, as gradients and losses of chosen examples."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.ranks import ALONE, Ranks
from bnoise_cli.measurement.task.batches import Batches, Indices
from bnoise_cli.measurement.task.preserve import BufferPlace, HeldBuffers
from bnoise_cli.measurement.task.sharding import is_sharded, local_part
from bnoise_cli.measurement.task.user_code import remedy_of_a_loss, user_code
from bnoise_cli.measurement.task.weighing import Weighing

#: f(model, batch) → the mean loss over the batch's examples, a scalar tensor.
Objective = Callable[[nn.Module, Any], Tensor]


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
        changing_buffers: those that computing the loss changes, BatchNorm's statistics left out.
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
        self.changing_buffers: tuple[BufferPlace, ...] = ()
        self._held = HeldBuffers(())
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
        self._held.restore()
        if self.stochastic:
            seed = (mask_seed + self.ranks.rank) % 2**63
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
        kind = self.parameters[0].device.type
        with (
            user_code(f"computing the loss of {what}", remedy=remedy_of_a_loss),
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
            task.weighing = replace(self.weighing, per_example=self.group * self.weighing.per_example)
        return task

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules of the model and, if it is one, of the loss, by name."""
        found = dict(self.model.named_modules())
        own = getattr(self.objective, "criterion", self.objective)
        if isinstance(own, nn.Module):
            found |= dict(own.named_modules(prefix="loss"))
        return found

    @contextmanager
    def holding_buffers(self) -> Iterator[None]:
        """Inside, every pass begins with `changing_buffers` as they are now; they are given back so."""
        kept, self._held = self._held, HeldBuffers(self.changing_buffers)
        try:
            yield
        finally:
            self._held.restore()
            self._held = kept

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

    def weighed(self, own: Indices, part: Indices) -> tuple[float, Any]:
        """How much the mean loss of this rank's examples counts, in examples of average weight, and a batch of `part`.

        Tokens are counted before the batch goes to the device, which would have to be waited for.
        """
        batch = self.batches.read(part)
        weight = float(len(own))
        if self.weighing is not None and len(own):
            weight = self.weighing.weight(batch)
        return weight, self.batches.on_device(batch)

    def names(self, indices: Indices) -> str:
        """The first few of these examples, as the dataset numbers them."""
        examples = self.batches.examples(indices)
        shown = ", ".join(str(int(index)) for index in examples[:8])
        return f"number {shown}" + (" and others" if len(examples) > 8 else "")
