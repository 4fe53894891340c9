"""What all runs of a sweep share: the task, the start, the evaluation examples, the optimizer at any rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import torch

from bnoise_cli.maths.rate_search import rate_at
from bnoise_cli.measurement.building.build import build_task, learning_rate_of, make_optimizer, resume
from bnoise_cli.measurement.building.checkpoint import read_checkpoint
from bnoise_cli.measurement.building.optimizer_state import load_optimizer_state
from bnoise_cli.measurement.probing.checks import check_task
from bnoise_cli.measurement.ranks import ALONE, Ranks
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.training.evaluation import evaluation_examples
from bnoise_cli.measurement.training.lanes import SingleLane, StackedLanes
from bnoise_cli.measurement.training.runner import Runner
from bnoise_cli.measurement.training.start import Start
from bnoise_cli.measurement.training.steps import Trainer
from bnoise_cli.spec.load import Spec

#: The loss of a run is the mean over the whole dataset if it has at most `_WHOLE` examples, and otherwise over this
#: many of them at least.
_WHOLE, _LEAST_EVALUATED = 2048, 256
#: Distance between the seeds of two repetitions: two configs with neighbouring seeds share no repetition.
_NEXT_SEED = 1_000_003


class SweepTask:
    """A task that can be trained many times from one start.

    Attributes:
        base_rate: the config's learning rate.
        on_warmup: told every step on the way to the start.
        unused_state: why the optimizer state of the checkpoint was not used, or None.
    """

    def __init__(self, spec: Spec, device: torch.device, ranks: Ranks = ALONE) -> None:
        config = spec.config
        self.spec, self.config, self.device = spec, config, device
        self.task = build_task(spec, device, ranks)
        self.findings = check_task(self.task, config.probe.seed)
        optimizer = make_optimizer(spec, self.task.trainable)
        self.optimizer_type, self.base_rate = type(optimizer), learning_rate_of(optimizer)
        self.unused_state: str | None = None
        self.on_warmup: Callable[[int], None] = lambda _: None

    @cached_property
    def runner(self) -> Runner:
        """Makes the runs; they begin after the warm-up, with the optimizer's state."""
        config, task = self.config, self.task
        optimizer = self._optimizer_at_the_start()
        if config.sweep.warmup_steps:
            trainer = Trainer(
                task,
                optimizer,
                batch_size=config.training.batch_size,
                max_grad_norm=config.training.max_grad_norm,
                seed=config.probe.seed,
            )
            trainer.train_until(config.sweep.warmup_steps, self.on_warmup)
        draws = Draws(config.probe.seed, Stream.EVALUATION_EXAMPLES)
        return Runner(
            task,
            Start(task, optimizer),
            partial(make_optimizer, self.spec),
            base_rate=self.base_rate,
            evaluation=lambda task: evaluation_examples(task, draws, least=_LEAST_EVALUATED, whole=_WHOLE),
            max_grad_norm=config.training.max_grad_norm,
        )

    def _optimizer_at_the_start(self) -> torch.optim.Optimizer:
        """The config's optimizer, with the state that the checkpoint or the user's program kept of it."""
        optimizer = make_optimizer(self.spec, self.task.trainable)
        resume(self.spec, optimizer)
        if checkpoints := self.spec.checkpoints():
            saved = read_checkpoint(checkpoints[0]).optimizer_state
            if saved is not None:
                self.unused_state = load_optimizer_state(optimizer, self.task.trainable, saved)
        return optimizer

    @property
    def start_loss(self) -> float:
        """The loss at the start."""
        return self.runner.start_loss

    @property
    def evaluated(self) -> int:
        """The number of examples whose mean loss counts; the warm-up comes before it."""
        return len(self.runner.evaluation.indices)

    def rate(self, point: int) -> float:
        """The learning rate of a grid point; 0 is the config's own."""
        return rate_at(self.base_rate, point)

    def draws(self, seed: int) -> Draws:
        """The examples of a run: the same stream for every batch size and learning rate."""
        return Draws(self.config.probe.seed + _NEXT_SEED * seed, Stream.TRAINING_RUN)

    def lane(self, batch_size: int, rate: float, seed: int) -> SingleLane:
        """A run from the start, in the model itself."""
        return self.runner.lane(batch_size, rate, self.draws(seed))

    def stack(self, batch_size: int, rates: Sequence[float], seeds: Sequence[int]) -> StackedLanes:
        """Runs from the start, side by side."""
        streams = {seed: self.draws(seed) for seed in set(seeds)}
        return self.runner.stack(batch_size, rates, [streams[seed] for seed in seeds])
