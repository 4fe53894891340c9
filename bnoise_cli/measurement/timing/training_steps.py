"""Real training steps of a task, timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bnoise_cli import clock
from bnoise_cli.errors import NotFiniteError, RunError
from bnoise_cli.maths.fastest import Purpose
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.memory import available_bytes, forget_peak, give_back, peak_bytes
from bnoise_cli.measurement.task.passes import cut_short
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.threads import cpu_quota, use_threads
from bnoise_cli.measurement.task.user_code import OutOfMemoryError, user_code
from bnoise_cli.measurement.timing.throughput import TimedStep, measure_throughput
from bnoise_cli.records import Law, Threads, Throughput
from bnoise_cli.spec.schema import Config

#: Micro-batches up to one device's part of this many B_crit are tried. At 64 a run takes 65 times the fewest examples.
_LARGEST_OF_USE = 64
#: Timing may take this fraction of the budget.
_SHARE = 0.1


def time_training_steps(
    task: Task,
    optimizer: torch.optim.Optimizer,
    config: Config,
    law: Law | None,
    *,
    group: int,
    budget_seconds: float,
    threads: Threads | None,
) -> Throughput:
    """Time steps of the planned run; to be called last, it uses the optimizer up.

    Args:
        law: of training; micro-batches far beyond one device's part of B_crit have no use.
        group: examples that must go through the model together.
        budget_seconds: of the whole measurement; a part of that is used.
        threads: the number of torch threads to use; None: torch's own.
    """
    plan, ranks = config.training, task.ranks
    local = (
        max(plan.batch_size, _LARGEST_OF_USE * (law.critical if law is not None else 0.0)) / plan.world_size
    )
    most, seed = max(1, min(int(local), task.batches.length)), config.probe.seed
    purpose = _purpose(config, law, group) if law is not None else None
    with (
        preserved(task.model, seed, on_host=True) as origin,
        use_threads(threads.number if threads is not None else None),
    ):
        steps = TrainingSteps(task, optimizer, origin, max_grad_norm=plan.max_grad_norm, seed=seed)
        seconds = ranks.broadcast(_SHARE * budget_seconds)
        found = measure_throughput(steps, most=most, budget_seconds=seconds, purpose=purpose)
    if ranks.size == 1:
        return replace(found, threads=threads)
    return replace(found, world_size=ranks.size, parallel="fsdp" if task.sharded else "ddp")


def _purpose(config: Config, law: Law, group: int) -> Purpose:
    """To recommend a batch size within the overhead that the config allows."""
    allowed = config.advice.max_compute_overhead or config.check.max_compute_overhead
    return Purpose(
        law=law,
        world_size=config.training.world_size,
        group=group,
        max_compute_overhead=allowed,
    )


class TrainingSteps:
    """Takes training steps at learning rate zero, which cost the same and leave the weights as they are.

    Several ranks take a step together, each on its own micro-batch. With DistributedDataParallel, steps are timed with
    and without the exchange of gradients. With sharded parameters the exchange cannot be left out. The time of a step
    is the time of the slowest rank.
    """

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        origin: list[Tensor],
        *,
        max_grad_norm: float | None,
        seed: int,
    ) -> None:
        self._task, self._optimizer, self._max_grad_norm = task, optimizer, max_grad_norm
        self._origin = origin
        self._device = task.parameters[0].device
        self._draws = Draws(seed, Stream.STEP_TIMES, task.ranks.rank)
        self._exchanges = task.ranks.size > 1 and not task.sharded
        self._together: DistributedDataParallel | None = None
        self._unused = False  # whether a parameter has no gradient
        available = task.ranks.all_gather(available_bytes(self._device))
        self.memory_bytes = min((size for size in available if size is not None), default=None)
        for group in optimizer.param_groups:
            group["lr"] = 0.0

    def step(self, micro_batch_size: int) -> TimedStep:
        """One training step of all ranks.

        Raises:
            OutOfMemoryError: the step does not fit one of them. Its memory is free again.
            RunError: the user's code failed.
        """
        alone = self._agreed(micro_batch_size, self._loss_alone, exchanging=self._task.sharded)
        if not self._exchanges:
            return alone
        together = self._agreed(micro_batch_size, self._loss_together, exchanging=True)
        return replace(together, alone_seconds=alone.seconds)

    def _agreed(self, size: int, loss: Callable[[Any, int, str], Tensor], *, exchanging: bool) -> TimedStep:
        """Take a step that fails on all ranks if it fails on one. A failure inside an exchange ends all ranks."""
        failure: Exception | None = None
        forget_peak(self._device)
        begun = clock.perf_counter()
        try:
            batch = self._task.batches.fetch(self._draws.indices(size, self._task.batches.length))
        except (OutOfMemoryError, RunError) as error:
            failure = error
        loading = self._now() - begun
        self._raise_any(failure)  # all ranks begin at once
        try:
            step = self._step(size, batch, loss, loading)
        except (OutOfMemoryError, RunError) as error:
            if exchanging and not isinstance(error, NotFiniteError):
                raise cut_short(self._task, size, error) from error
            failure = error
            self._optimizer.zero_grad(set_to_none=True)
        self._raise_any(failure)
        return _slowest(self._task.ranks.all_gather(step))

    def _raise_any(self, failure: Exception | None) -> None:
        """Raise the failure of any rank on all ranks."""
        found = self._task.ranks.first_failure(failure)
        if isinstance(found, OutOfMemoryError):
            give_back(self._device)
            raise OutOfMemoryError
        if found is not None:
            raise found

    def _loss_alone(self, batch: Any, masks: int, what: str) -> Tensor:
        return self._task.loss(batch, masks, what)

    def _loss_together(self, batch: Any, masks: int, what: str) -> Tensor:
        if self._together is None:
            unused = self._task.ranks.all_reduce([self._unused])[0] > 0
            self._together = DistributedDataParallel(_Loss(self._task), find_unused_parameters=unused)
        loss: Tensor = self._together(batch, masks, what)
        return loss

    def _step(
        self, size: int, batch: Any, loss_of: Callable[[Any, int, str], Tensor], loading_seconds: float
    ) -> TimedStep:
        task, what = self._task, f"a micro-batch of {size} examples"
        begun, busy = self._now(), time.process_time()
        with user_code(f"a training step of {size} examples"):
            loss = loss_of(batch, self._draws.seed(), what)
            loss.backward()  # type: ignore[no-untyped-call]
            gone_back = self._now()
            self._unused = any(p.grad is None for p in task.trainable)
            if self._max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(task.trainable, self._max_grad_norm)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        done, busy = self._now(), (time.process_time() - busy) / min(1.0, cpu_quota() or 1.0)
        here_alone = self._device.type == "cpu" and task.ranks.size == 1
        return TimedStep(
            seconds=done - begun,
            optimizer_seconds=done - gone_back,
            loading_seconds=loading_seconds,
            peak_memory_bytes=self._peak_after(size),
            cpu_seconds=busy if here_alone else None,
        )

    def _peak_after(self, size: int) -> int | None:
        """Peak memory of a step. A gradient that is not finite is an error: it spoils the weights even at rate zero."""
        peak = peak_bytes(self._device)
        norms = torch.stack([norm.double() for norm in torch._foreach_norm(self._task.parameters)])
        if not bool(torch.isfinite(norms).all()):
            with torch.no_grad():
                torch._foreach_copy_(self._task.parameters, self._origin)
            self._optimizer.state.clear()
            raise NotFiniteError(f"the gradient of {size} examples is not finite.")
        return peak

    def _now(self) -> float:
        """The time at which the device has finished its queue."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return clock.perf_counter()


class _Loss(nn.Module):
    """A task's loss as a module, because DistributedDataParallel takes one."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model, self._task = task.model, task

    def forward(self, batch: Any, masks: int, what: str) -> Tensor:
        return self._task.loss(batch, masks, what)


def _slowest(steps: Sequence[TimedStep]) -> TimedStep:
    """A step that begins on all ranks at the same time."""
    if len(steps) == 1:
        return steps[0]
    peaks = [step.peak_memory_bytes for step in steps if step.peak_memory_bytes is not None]
    return TimedStep(
        seconds=max(step.seconds for step in steps),
        optimizer_seconds=max(step.optimizer_seconds for step in steps),
        loading_seconds=max(step.loading_seconds for step in steps),
        peak_memory_bytes=max(peaks, default=None),
    )
