"""Real training steps of a task, timed."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from bnoise_cli.errors import NotFiniteError
from bnoise_cli.measurement.batches import Draws
from bnoise_cli.measurement.memory import available_bytes, forget_peak, give_back, peak_bytes
from bnoise_cli.measurement.task import Task
from bnoise_cli.measurement.throughput import TimedStep, measure_throughput
from bnoise_cli.measurement.user_code import OutOfMemoryError, user_code
from bnoise_cli.records import Throughput
from bnoise_cli.spec.schema import Config

#: Micro-batches up to one device's part of so many B_crit are tried: there a run takes 65 times the fewest examples.
_LARGEST_OF_USE = 64
#: Timing takes about this part of the time of the measurement before it.
_SHARE = 0.12


def time_training_steps(
    task: Task,
    optimizer: torch.optim.Optimizer,
    origin: list[Tensor],
    config: Config,
    critical: float | None,
    *,
    budget_seconds: float,
) -> Throughput:
    """Time steps of the planned run; to be called last and inside `preserved`, it uses the optimizer up.

    Args:
        origin: the weights, as `preserved` gives them.
        critical: B_crit, in examples; micro-batches far beyond one device's part of it have no use.
        budget_seconds: what the measurement before it took; a part of that is used.
    """
    plan = config.training
    local = max(plan.batch_size, _LARGEST_OF_USE * (critical or 0.0)) / plan.world_size
    steps = TrainingSteps(task, optimizer, origin, max_grad_norm=plan.max_grad_norm, seed=config.probe.seed)
    most = max(1, min(int(local), task.batches.length))
    return measure_throughput(steps, most=most, budget_seconds=_SHARE * budget_seconds)


class TrainingSteps:
    """Takes training steps at learning rate zero: all the work, and the weights stay where they are."""

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
        self._draws = Draws(seed, 1 << 23)
        self.memory_bytes = available_bytes(self._device)
        for group in optimizer.param_groups:
            group["lr"] = 0.0

    def step(self, micro_batch_size: int) -> TimedStep:
        """One training step.

        Raises:
            OutOfMemoryError: it does not fit; nothing of it is held any more.
            RunError: the user's code failed.
        """
        forget_peak(self._device)
        try:
            return self._step(micro_batch_size)
        except OutOfMemoryError:
            self._optimizer.zero_grad(set_to_none=True)
        give_back(self._device)
        raise OutOfMemoryError

    def _step(self, size: int) -> TimedStep:
        task = self._task
        begun = time.perf_counter()
        batch = task.batches.fetch(self._draws.indices(size, task.batches.length))
        read = self._now()
        with user_code(f"a training step of {size} examples"):
            loss = task.loss(batch, self._draws.seed(), f"a micro-batch of {size} examples")
            loss.backward()  # type: ignore[no-untyped-call]
            gone_back = self._now()
            if self._max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(task.parameters, self._max_grad_norm)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        done = self._now()
        return TimedStep(
            seconds=done - read,
            optimizer_seconds=done - gone_back,
            loading_seconds=read - begun,
            peak_memory_bytes=self._peak_after(size),
        )

    def _peak_after(self, size: int) -> int | None:
        """The peak of a step; a gradient that is not finite spoils weights even at rate zero, and is an error."""
        peak = peak_bytes(self._device)
        norms = torch.stack([norm.double() for norm in torch._foreach_norm(self._task.parameters)])
        if not bool(torch.isfinite(norms).all()):
            with torch.no_grad():
                torch._foreach_copy_(self._task.parameters, self._origin)
            self._optimizer.state.clear()
            raise NotFiniteError(f"the gradient of {size} examples is not finite.")
        return peak

    def _now(self) -> float:
        """The time when the device has done all it was told."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
