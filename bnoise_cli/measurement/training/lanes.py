"""Training runs from one start: one in the model itself, or several stacked into one model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from bnoise_cli.errors import NotFiniteError
from bnoise_cli.measurement.task.batch_norms import set_evaluation_mode
from bnoise_cli.measurement.task.draws import Draws, Indices, Stream
from bnoise_cli.measurement.task.losses import mean_loss
from bnoise_cli.measurement.task.passes import even_parts
from bnoise_cli.measurement.task.task import Objective, Task
from bnoise_cli.measurement.task.user_code import user_code
from bnoise_cli.measurement.training.start import Start
from bnoise_cli.measurement.training.steps import evaluating, set_training_mode, take_step

#: Builds the optimizer of a run over its parameters, at its learning rate and in the state of the start.
MakeOptimizer = Callable[[Sequence[Tensor], float], torch.optim.Optimizer]


#: The fused kernels of attention cannot be stacked; the plain one can.
_BATCHED_ATTENTION = partial(sdpa_kernel, SDPBackend.MATH)


class Lanes(Protocol):
    """Runs at one batch size under way side by side, each with its own weights, learning rate and draws."""

    def step(self, lanes: Sequence[int]) -> None:
        """One training step of these runs. Weights that are not finite are no error: the losses show them."""

    def losses(self, lanes: Sequence[int]) -> list[float]:
        """The loss of each on the evaluation examples; may be NaN or infinite."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The examples whose mean loss says how far a run has come, and the task that reads them once for all runs."""

    task: Task
    indices: Indices

    def loss(self) -> float:
        """The loss at the present weights; NaN if it is not finite."""
        return evaluation_loss(self.task, self.indices)


class SingleLane:
    """One run, in the model's own parameters."""

    def __init__(
        self,
        task: Task,
        start: Start,
        optimizer: torch.optim.Optimizer,
        *,
        batch_size: int,
        draws: Draws,
        evaluation: Evaluation,
        max_grad_norm: float | None,
    ) -> None:
        start.restore()
        set_training_mode(optimizer)
        self._task, self.optimizer = task, optimizer
        self._batch_size, self._max_grad_norm = batch_size, max_grad_norm
        self._draws, self._evaluation = draws, evaluation
        self._broken = False
        self._parked: list[Tensor] = []

    def leave(self) -> None:
        """Keep this run's weights and buffers in the host's memory, so that another run can use the model."""
        self._parked = [value.detach().to("cpu", copy=True) for value in self._in_model()]
        _move_state(self.optimizer, torch.device("cpu"))

    def enter(self) -> None:
        """Put them back into the model."""
        with torch.no_grad():
            for value, kept in zip(self._in_model(), self._parked, strict=True):
                value.copy_(kept)
        self._parked = []
        _move_state(self.optimizer, self._task.parameters[0].device)

    def _in_model(self) -> list[Tensor]:
        return [*self._task.parameters, *self._task.model.buffers()]

    def step(self, lanes: Sequence[int]) -> None:  # noqa: ARG002  there is only one
        if self._broken:
            return
        self._task.model.train()
        try:
            indices = self._draws.indices(self._batch_size, self._task.batches.length)
            take_step(self._task, self.optimizer, indices, self._max_grad_norm, self._draws)
        except NotFiniteError:
            self._broken = True

    def losses(self, lanes: Sequence[int]) -> list[float]:  # noqa: ARG002
        if self._broken:
            return [math.nan]
        with evaluating(self.optimizer):
            return [self._evaluation.loss()]


class StackedLanes:
    """Runs whose weights are stacked along a new first dimension, so that one pass serves all of them.

    Every run has an optimizer of its own, over views of its slices: any optimizer works, each at its own rate.

    Args:
        rates, draws: of each run. Runs with the same draws, not equal ones, train on the same examples.
    """

    def __init__(
        self,
        task: Task,
        start: Start,
        make_optimizer: MakeOptimizer,
        *,
        batch_size: int,
        rates: Sequence[float],
        draws: Sequence[Draws],
        evaluation: Evaluation,
        max_grad_norm: float | None,
    ) -> None:
        start.restore()
        self._task, self._batch_size, self._max_grad_norm = task, batch_size, max_grad_norm
        self._names = [name for name, p in task.model.named_parameters() if p.requires_grad]
        self._stacked = [torch.stack([value] * len(rates)) for value in start.parameters]
        self._slices = [[stack[i] for stack in self._stacked] for i in range(len(rates))]
        self._optimizers = [
            make_optimizer(slices, rate) for slices, rate in zip(self._slices, rates, strict=True)
        ]
        set_training_mode(*self._optimizers)
        self._draws, self._evaluation = list(draws), evaluation
        self._whole = _Whole(task.model, task.objective)

    def step(self, lanes: Sequence[int]) -> None:
        task = self._task
        task.model.train()
        self._part_from(lanes)
        streams = {id(self._draws[lane]): self._draws[lane] for lane in lanes}
        indices = {
            key: draws.indices(self._batch_size, task.batches.length) for key, draws in streams.items()
        }
        total: list[Tensor] | None = None
        for begin in range(0, self._batch_size, task.micro_batch_size):
            end = min(begin + task.micro_batch_size, self._batch_size)
            task.require_time()
            batches = {key: task.batches.fetch(of_one[begin:end]) for key, of_one in indices.items()}
            gradients = self._gradients(lanes, [batches[id(self._draws[lane])] for lane in lanes])
            if total is None:
                total = [(end - begin) * g for g in gradients]
            else:
                torch._foreach_add_(total, gradients, alpha=end - begin)
        assert total is not None
        torch._foreach_div_(total, self._batch_size)
        for row, lane in enumerate(lanes):
            for parameter, gradient in zip(self._slices[lane], total, strict=True):
                parameter.grad = gradient[row]
            if self._max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(self._slices[lane], self._max_grad_norm)
            with user_code("the optimizer's step"):
                self._optimizers[lane].step()
            self._optimizers[lane].zero_grad(set_to_none=True)

    def _part_from(self, lanes: Sequence[int]) -> None:
        """Give the runs that stay behind a copy of their stream, so that each draws what it would draw alone."""
        going = set(lanes)
        streams = {id(self._draws[lane]) for lane in going}
        copies: dict[int, Draws] = {}
        for lane, draws in enumerate(self._draws):
            if lane not in going and id(draws) in streams:
                self._draws[lane] = copies.setdefault(id(draws), copy.deepcopy(draws))

    def losses(self, lanes: Sequence[int]) -> list[float]:
        with evaluating(*(self._optimizers[lane] for lane in lanes)):
            return self._losses(lanes)

    def _losses(self, lanes: Sequence[int]) -> list[float]:
        task, indices = self._evaluation.task, self._evaluation.indices
        set_evaluation_mode(task.model)
        sums = torch.zeros(len(lanes), dtype=torch.float64)
        chosen = self._chosen(lanes)
        for part in even_parts(indices, task.at_once):
            task.require_time()
            with torch.no_grad(), _BATCHED_ATTENTION():
                values = vmap(self._loss, in_dims=(0, None))(chosen, task.batches.fetch(part))
            sums += len(part) * values.double().cpu()
        return [float(value) for value in sums / len(indices)]

    def weights(self, lane: int) -> list[Tensor]:
        """The parameters of one run as they are now."""
        return self._slices[lane]

    def _gradients(self, lanes: Sequence[int], batches: Sequence[Any]) -> list[Tensor]:
        """Gradients of these runs, each on its own batch; shape (runs, *shape of the parameter)."""
        shared = all(batch is batches[0] for batch in batches)
        together = batches[0] if shared else _stack(batches)
        with _BATCHED_ATTENTION():
            gradient, _ = vmap(grad_and_value(self._loss), in_dims=(0, None if shared else 0))(
                self._chosen(lanes), together
            )
        return [gradient[name] for name in self._names]

    def _chosen(self, lanes: Sequence[int]) -> dict[str, Tensor]:
        rows = None if len(lanes) == len(self._slices) else torch.tensor(list(lanes))
        stacks = self._stacked if rows is None else [s[rows.to(s.device)] for s in self._stacked]
        return dict(zip(self._names, stacks, strict=True))

    def _loss(self, parameters: dict[str, Tensor], batch: Any) -> Tensor:
        named = {f"model.{name}": value for name, value in parameters.items()}
        value: Tensor = functional_call(self._whole, named, (batch,))
        return value.reshape(())


class _Whole(nn.Module):
    """Model and objective as one call, which is what `functional_call` takes."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self._objective = objective

    def forward(self, batch: Any) -> Tensor:
        return self._objective(self.model, batch)


def _stack(batches: Sequence[Any]) -> Any:
    leaves, spec = zip(*(pytree.tree_flatten(batch) for batch in batches), strict=True)
    return pytree.tree_unflatten([torch.stack(parts) for parts in zip(*leaves, strict=True)], spec[0])


def _move_state(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Move the state of each parameter to a device. Step counters stay where the optimizer keeps them."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim > 0:
                state[key] = value.to(device)


def evaluation_loss(task: Task, indices: Indices) -> float:
    """The mean loss of evaluation examples, always with the same random masks; NaN if it is not finite."""
    set_evaluation_mode(task.model)
    try:
        with task.holding_buffers():
            return mean_loss(task, indices, Draws(0, Stream.RUN_EVALUATION))
    except NotFiniteError:
        return math.nan
