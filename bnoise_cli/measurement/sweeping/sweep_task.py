"""What all runs of a sweep share: the task, the start, the evaluation examples, the optimizer at any rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bnoise_cli.maths.rate_search import PER_DOUBLING
from bnoise_cli.measurement.building.build import build_task, learning_rate_of, make_optimizer
from bnoise_cli.measurement.probing.checks import check_task
from bnoise_cli.measurement.ranks import ALONE, Ranks
from bnoise_cli.measurement.task.batches import Draws, Stream
from bnoise_cli.measurement.training.lanes import SingleLane, StackedLanes, Start, evaluation_loss
from bnoise_cli.measurement.training.steps import Trainer
from bnoise_cli.spec.load import Spec

#: The loss of a run is the mean over the whole dataset up to so many examples, and over this many of a larger one.
_WHOLE, _EVALUATION_EXAMPLES = 2048, 256
#: Between the seeds of two repetitions, so that neighbouring seeds of the config share none.
_NEXT_SEED = 1_000_003


class SweepTask:
    """A task that can be trained many times from one start.

    Attributes:
        base_rate: the config's learning rate.
        evaluation: indices of the examples whose mean loss counts.
        on_warmup: told every step on the way to the start.
    """

    def __init__(self, spec: Spec, device: torch.device, ranks: Ranks = ALONE) -> None:
        config = spec.config
        self.spec, self.config, self.device = spec, config, device
        self.task = build_task(spec, device, ranks)
        self.findings = check_task(self.task, config.probe.seed)
        optimizer = make_optimizer(spec, self.task.trainable)
        self.optimizer_type, self.base_rate = type(optimizer), learning_rate_of(optimizer)
        length = self.task.batches.length
        draws = Draws(config.probe.seed, Stream.EVALUATION_EXAMPLES)
        self.evaluation = (
            np.arange(length) if length <= _WHOLE else draws.indices(_EVALUATION_EXAMPLES, length)
        )
        self.on_warmup: Callable[[int], None] = lambda _: None

    @cached_property
    def start(self) -> Start:
        """Where every run begins: after the warm-up, if there is one."""
        config, task = self.config, self.task
        if config.sweep.warmup_steps:
            trainer = Trainer(
                task,
                make_optimizer(self.spec, task.trainable),
                batch_size=config.training.batch_size,
                max_grad_norm=config.training.max_grad_norm,
                seed=config.probe.seed,
            )
            trainer.train_until(config.sweep.warmup_steps, self.on_warmup)
        return Start(task)

    @cached_property
    def start_loss(self) -> float:
        """The loss at the start."""
        self.start.restore()
        return evaluation_loss(self.task, self.evaluation)

    def rate(self, point: int) -> float:
        """The learning rate of a grid point; 0 is the config's own."""
        return float(self.base_rate * 2 ** (point / PER_DOUBLING))

    def optimizer(self, parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
        """A fresh optimizer as the config has it, at another rate."""
        made = make_optimizer(self.spec, parameters)
        for group in made.param_groups:
            group["lr"] *= rate / self.base_rate
        return made

    def lane(self, batch_size: int, rate: float, seed: int) -> SingleLane:
        """A run from the start, in the model itself."""
        return SingleLane(
            self.task,
            self.start,
            self.optimizer(self.task.trainable, rate),
            batch_size=batch_size,
            seed=self._draws_seed(seed),
            evaluation=self.evaluation,
            max_grad_norm=self.config.training.max_grad_norm,
        )

    def stack(self, batch_size: int, rates: Sequence[float], seeds: Sequence[int]) -> StackedLanes:
        """Runs from the start, side by side."""
        return StackedLanes(
            self.task,
            self.start,
            self.optimizer,
            batch_size=batch_size,
            rates=rates,
            seeds=[self._draws_seed(seed) for seed in seeds],
            evaluation=self.evaluation,
            max_grad_norm=self.config.training.max_grad_norm,
        )

    def _draws_seed(self, seed: int) -> int:
        return self.config.probe.seed + _NEXT_SEED * seed
