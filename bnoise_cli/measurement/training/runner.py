"""Training runs from one start at any batch size and learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.training.lanes import Evaluation, SingleLane, StackedLanes
from bnoise_cli.measurement.training.start import Start
from bnoise_cli.measurement.training.steps import evaluating


class Runner:
    """Makes runs of one task from one start.

    Args:
        make_optimizer: builds the config's optimizer over some parameters.
        base_rate: the config's learning rate.
        evaluation: chooses the examples whose mean loss counts, at the weights of the start.
        max_grad_norm: of gradient clipping, or None.

    Attributes:
        evaluation: these examples.
        start_loss: the loss before the first step.
    """

    def __init__(
        self,
        task: Task,
        start: Start,
        make_optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer],
        *,
        base_rate: float,
        evaluation: Callable[[Task], Indices],
        max_grad_norm: float | None,
    ) -> None:
        self.task = task.in_memory()
        self.start, self.base_rate, self._max_grad_norm = start, base_rate, max_grad_norm
        self._make_optimizer = make_optimizer
        start.restore()
        with evaluating(self.optimizer(task.trainable, base_rate)):
            self.evaluation = Evaluation(self.task.read_once(), evaluation(self.task))
            self.start_loss = self.evaluation.loss()

    def lane(self, batch_size: int, rate: float, draws: Draws) -> SingleLane:
        """A run from the start, in the model itself."""
        return SingleLane(
            self.task,
            self.start,
            self.optimizer(self.task.trainable, rate),
            batch_size=batch_size,
            draws=draws,
            evaluation=self.evaluation,
            max_grad_norm=self._max_grad_norm,
        )

    def stack(self, batch_size: int, rates: Sequence[float], draws: Sequence[Draws]) -> StackedLanes:
        """Runs from the start, side by side."""
        return StackedLanes(
            self.task,
            self.start,
            self.optimizer,
            batch_size=batch_size,
            rates=rates,
            draws=draws,
            evaluation=self.evaluation,
            max_grad_norm=self._max_grad_norm,
        )

    def optimizer(self, parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
        """The config's optimizer at another learning rate, in the state of the start."""
        made = self._make_optimizer(parameters)
        self.start.prepare(made, rate / self.base_rate)
        return made
