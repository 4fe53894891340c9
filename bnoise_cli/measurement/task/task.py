"""A model, its loss and its data, which give gradients and losses of chosen examples."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnoise_cli import clock
from bnoise_cli.errors import OutOfTimeError, RunError
from bnoise_cli.measurement.ranks import ALONE, Ranks
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.draws import Indices
from bnoise_cli.measurement.task.preserve import BufferPlace, HeldBuffers, seed_streams
from bnoise_cli.measurement.task.sharding import is_sharded, local_part
from bnoise_cli.measurement.task.user_code import remedy_of_a_loss, user_code
from bnoise_cli.measurement.task.weighing import Weighing

#: f(model, batch) → the mean loss over the batch's examples, a scalar tensor.
Objective = Callable[[nn.Module, Any], Tensor]
#: torch's words under `no_grad` if a loss takes gradients itself, for a penalty on them or for forces of an energy.
_NO_GRAPH = "does not require grad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What the checks find out about a task (`probing/checks.py`)."""

    #: Whether the loss of given examples depends on random masks.
    stochastic: bool = True
    #: Whether the dataset makes an example anew each time that it is read.
    random_data: bool = False
    #: Examples that must go through the model together because the loss is not a mean over them; 1 if it is.
    group: int = 1
    #: How much the mean loss of a batch counts; None: by its number of examples.
    weighing: Weighing | None = None
    #: The buffers that computing the loss changes, without BatchNorm's statistics.
    changing_buffers: tuple[BufferPlace, ...] = ()


@dataclass(frozen=True, slots=True)
class Spent:
    """Examples that have gone through the model: forward and backward, and forward alone."""

    gradient: int = 0
    evaluation: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.gradient + other.gradient, self.evaluation + other.evaluation)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.gradient - other.gradient, self.evaluation - other.evaluation)


class Task:
    """A training task at fixed weights. Only its own methods change what it holds.

    Attributes:
        model, objective, batches: as built from the config.
        trainable: the trainable parameters as model and optimizer hold them, tied ones once.
        parameters: the part of `trainable` that this rank holds: all of it, or its shards.
        sharded: whether the parameters are spread over `ranks`, so that all ranks take part in every pass.
        ranks: the processes that share the examples of every pass.
        preconditioner: P, the positive diagonal in an update u = P·g; None for P = 1.
        planned_micro_batch_size: examples that are to go through the model on one device at once.
        micro_batch_size: examples that do go through at once: fewer than planned if memory ran out.
        traits: the findings of the checks; before the checks, safe assumptions.
        autocast: the type in which the model computes, if it is lower than the type of the parameters.
        full_lines: whether losses along updates are computed without `autocast`, because their differences are small.
        spent: the examples of all passes so far.
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
        traits: Traits = Traits(),
    ) -> None:
        self.model = model
        self.batches = batches
        self.ranks = ranks
        self.trainable: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.parameters = [local_part(p) for p in self.trainable]
        self.sharded = any(is_sharded(p) for p in self.trainable)
        self.preconditioner = preconditioner
        self.micro_batch_size = self.planned_micro_batch_size = micro_batch_size
        self.traits = traits
        self.autocast = autocast
        self.full_lines = False
        self._held = HeldBuffers(())
        self._takes_gradients = False  # until a loss fails without a graph
        self._end = math.inf  # of the present phase, by `clock.monotonic`
        self.spent = Spent()
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
        """The type of the parameters, and the type of the computation if it differs."""
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
            RunError: the user's code failed, or the loss is not a finite scalar. The message names the batch.
            OutOfMemoryError: the batch does not fit.
        """
        self._held.restore()
        if self.traits.stochastic:
            seed_streams((mask_seed + self.ranks.rank) % 2**63)
        kind = self.parameters[0].device.type
        with (
            user_code(f"computing the loss of {what}", remedy=remedy_of_a_loss),
            torch.autocast(kind, self.autocast, enabled=self.autocast is not None),
        ):
            value = self.objective(self.model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
            shape = (
                f"a {'complex ' if value.is_complex() else ''}tensor of shape {tuple(value.shape)}"
                if isinstance(value, Tensor)
                else repr(type(value))
            )
            raise RunError(
                f"the loss must be one number, the mean over the batch; {what} gave {shape}. "
                "Use reduction='mean', or return loss.mean()."
            )
        return value.reshape(())

    def loss_value(self, batch: Any, mask_seed: int, what: str) -> Tensor:
        """The mean loss of a batch in float64, without waiting for it; may be NaN or infinite.

        torch keeps a graph only for a loss that takes gradients itself.
        """
        if not self._takes_gradients:
            try:
                with torch.no_grad():
                    return self.loss(batch, mask_seed, what).double()
            except RunError as error:
                if _NO_GRAPH not in str(error):
                    raise
                self._takes_gradients = True
        return self.loss(batch, mask_seed, what).detach().double()

    def adopt(self, traits: Traits) -> None:
        """Take over the findings of the checks."""
        self.traits = traits

    def spend(self, more: Spent) -> None:
        """Count the examples of a pass, or correct the count by the passes of other ranks."""
        self.spent += more

    def take_micro_batch(self, size: int) -> None:
        """Put `size` examples through the model at once from now on, although another number is planned."""
        self.micro_batch_size = size

    def plan_micro_batch(self, size: int) -> None:
        """Plan to put `size` examples through the model at once, and do so from now on."""
        self.micro_batch_size = self.planned_micro_batch_size = size

    def use_full_lines(self, full: bool) -> None:
        """Compute losses along updates without `autocast` from now on, or with it."""
        self.full_lines = full

    def in_groups(self) -> Task:
        """The same task in which an index stands for a group of examples that go through the model together."""
        group, weighing = self.traits.group, self.traits.weighing
        if group == 1:
            return self
        if weighing is not None:
            weighing = replace(weighing, per_example=group * weighing.per_example)
        task = copy.copy(self)
        task.batches = self.batches.grouped(group)
        task.adopt(replace(self.traits, group=1, weighing=weighing))
        task.plan_micro_batch(1)
        return task

    def in_memory(self) -> Task:
        """The same task with the dataset collated once, if it is small and its examples never change."""
        task = copy.copy(self)
        if not self.traits.random_data:
            task.batches = self.batches.in_memory()
        return task

    def read_once(self) -> Task:
        """The same task whose batches are read once and kept: for losses of the same examples, again and again."""
        task = copy.copy(self)
        task.batches = self.batches.read_once()
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
        """Inside the block every pass begins with the present values of `changing_buffers`, which the end restores."""
        kept, self._held = self._held, HeldBuffers(self.traits.changing_buffers)
        try:
            yield
        finally:
            self._held.restore()
            self._held = kept

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Inside the block no pass begins later than `seconds` from now, nor after the end of a block around it."""
        kept, self._end = self._end, min(self._end, clock.monotonic() + seconds)
        try:
            yield
        finally:
            self._end = kept

    def require_time(self, *, agreed: bool = True) -> None:
        """To be called before every pass.

        Args:
            agreed: whether all ranks go by the clock of the first one.

        Raises:
            OutOfTimeError: the time of a block `within` around this is over.
        """
        if self._end == math.inf:
            return
        over = clock.monotonic() > self._end
        if self.ranks.broadcast(over) if agreed else over:
            raise OutOfTimeError("the time is over. Raise --budget.")

    @contextmanager
    def on_this_rank(self) -> Iterator[Ranks]:
        """Inside the block every pass is made on this rank alone; not for sharded parameters. Yields the ranks."""
        kept, self.ranks = self.ranks, ALONE
        try:
            yield kept
        finally:
            self.ranks = kept

    @contextmanager
    def preconditioned(self, preconditioner: list[Tensor] | None) -> Iterator[None]:
        """Inside the block updates are u = P·g. P is as large as the parameters, so it is freed at the end."""
        kept, self.preconditioner = self.preconditioner, preconditioner
        try:
            yield
        finally:
            self.preconditioner = kept

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Inside the block the model computes in the type of the parameters."""
        kept, self.autocast = self.autocast, None
        try:
            yield
        finally:
            self.autocast = kept

    @property
    def at_once(self) -> int:
        """The number of examples of one pass: on this rank, or on all ranks if the parameters are sharded."""
        return self.micro_batch_size * (self.ranks.size if self.sharded else 1)

    def weighed(self, own: Indices, part: Indices) -> tuple[float, Any]:
        """The weight of this rank's mean loss, in examples of average weight, and a batch of `part`.

        Tokens are counted before the batch goes to the device: counting there would wait for it.
        """
        batch = self.batches.read(part)
        weight = float(len(own))
        if self.traits.weighing is not None and len(own):
            weight = self.traits.weighing.weight(batch)
        return weight, self.batches.on_device(batch)

    def names(self, indices: Indices) -> str:
        """The first few of these examples, as the dataset numbers them."""
        examples = self.batches.examples(indices)
        shown = ", ".join(str(int(index)) for index in examples[:8])
        return f"number {shown}" + (" and others" if len(examples) > 8 else "")
