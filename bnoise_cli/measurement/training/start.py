"""Where training runs begin: weights, buffers and the state of the optimizer."""

from __future__ import annotations

import copy
from typing import Any

import torch

from bnoise_cli.measurement.task.task import Task


class Start:
    """A copy of the weights, the buffers and the optimizer's state as they are now.

    Args:
        optimizer: the optimizer that has trained so far; None if every run begins with a fresh one.
    """

    def __init__(self, task: Task, optimizer: torch.optim.Optimizer | None = None) -> None:
        self._task = task
        self.parameters = [p.detach().clone() for p in task.parameters]
        self._buffers = [b.detach().clone() for b in task.model.buffers()]
        self._optimizer_state = copy.deepcopy(optimizer.state_dict()) if optimizer is not None else None

    def restore(self) -> None:
        """Put weights and buffers back into the model."""
        with torch.no_grad():
            torch._foreach_copy_(self._task.parameters, self.parameters)
            for buffer, value in zip(self._task.model.buffers(), self._buffers, strict=True):
                buffer.copy_(value)

    def prepare(self, optimizer: torch.optim.Optimizer, ratio: float) -> None:
        """Give a new optimizer the state of the start, and `ratio` times its learning rates.

        Other settings of the parameter groups come with the state, because some optimizers count steps there.
        """
        if self._optimizer_state is not None:
            state: dict[str, Any] = copy.deepcopy(self._optimizer_state)
            optimizer.load_state_dict(state)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * ratio
