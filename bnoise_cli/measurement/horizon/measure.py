"""The horizon of one start: from the weights and the optimizer's state as they are to the curve."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bnoise_cli import clock
from bnoise_cli.errors import MistakeError, RunError
from bnoise_cli.maths.horizon import Level, StepsTo
from bnoise_cli.maths.rate_search import rate_at
from bnoise_cli.measurement.horizon.runs import HorizonRuns
from bnoise_cli.measurement.horizon.search import Search
from bnoise_cli.measurement.outcome import HorizonFound, HorizonProgress
from bnoise_cli.measurement.task.activations import most_at_once
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.user_code import enough_memory
from bnoise_cli.measurement.training.evaluation import evaluation_examples
from bnoise_cli.measurement.training.runner import Runner
from bnoise_cli.measurement.training.start import Start
from bnoise_cli.records import HorizonRun

#: The loss of a run is the mean over at least this many examples, or over the whole dataset if it has at most `_WHOLE`.
_LEAST_EVALUATED, _WHOLE = 64, 256
#: Examples that go through the model at once: at most this many, if as many times as this fit the memory. Larger
#: passes than the planned ones save time; the runs that are stacked side by side need the memory.
_PASS, _SIDE_BY_SIDE = 512, 16
#: The curve counts from this many steps of the largest batch on, or from the fewer that are asked for.
_FIRST_COUNTED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonSettings:
    """What is planned, where to look, and how long."""

    batch_size: int
    base_rate: float
    max_grad_norm: float | None
    guess: float
    steps: int | None
    precision: float
    budget_seconds: float
    max_examples: float
    seed: int
    step: int


def measure_horizon(
    task: Task,
    optimizer: torch.optim.Optimizer,
    make_optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer],
    settings: HorizonSettings,
    *,
    on_progress: Callable[[HorizonProgress], None] = lambda _: None,
    stacks: Callable[[int], bool] | None = None,
) -> HorizonFound:
    """Train short runs from the present state; the caller gives the model back (`preserved`).

    Ctrl-C and a failure of the user's code end the runs; what they have shown is kept. With a budget in time no pass
    begins after its end.

    Args:
        optimizer: the one that has trained so far; every run begins with a copy of its state.
        make_optimizer: builds the config's optimizer over some parameters.
        stacks: whether runs at a batch size go side by side; found by trying both if left out.

    Raises:
        OutOfTimeError: before the first run.
    """
    task = copy.copy(task)
    seconds = settings.budget_seconds if math.isinf(settings.max_examples) else math.inf
    with task.within(seconds):
        return _measure(task, optimizer, make_optimizer, settings, on_progress, stacks)


def _measure(
    task: Task,
    optimizer: torch.optim.Optimizer,
    make_optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer],
    settings: HorizonSettings,
    on_progress: Callable[[HorizonProgress], None],
    stacks: Callable[[int], bool] | None,
) -> HorizonFound:
    known = _Known(settings, on_progress)
    if task.traits.group == 1 and not task.sharded:
        most = most_at_once(task, Draws(settings.seed, Stream.HORIZON_MEMORY, settings.step))
        task.take_micro_batch(max(task.micro_batch_size, min(_PASS, most // _SIDE_BY_SIDE)))
    draws = Draws(settings.seed, Stream.HORIZON_EVALUATION, settings.step)
    runner = Runner(
        task,
        Start(task, optimizer),
        make_optimizer,
        base_rate=settings.base_rate,
        evaluation=lambda task: evaluation_examples(task, draws, least=_LEAST_EVALUATED, whole=_WHOLE),
        max_grad_norm=settings.max_grad_norm,
    )
    runs = HorizonRuns(
        runner,
        lambda size, stream: Draws(settings.seed, Stream.HORIZON_RUN, settings.step, size, stream),
        budget_seconds=settings.budget_seconds,
        budget_examples=settings.max_examples,
        on_step=known.tell_step,
        stacks=stacks,
    )
    search = Search(
        runs,
        start_loss=runner.start_loss,
        guess=settings.guess,
        planned=settings.batch_size,
        least=task.traits.group,
        most=task.batches.length,
        group=task.traits.group,
        most_steps=settings.steps,
        precision=settings.precision,
        on_level=known.take_levels,
    )
    interrupted, failure = False, None
    try:
        with enough_memory("training short runs"):
            search.run()
    except KeyboardInterrupt:
        interrupted = True
    except RunError as error:
        failure = task.ranks.publish(error)
    except Exception as error:
        failure = task.ranks.publish(MistakeError.of(error))
    return HorizonFound(
        base_rate=settings.base_rate,
        start_loss=runner.start_loss,
        stands_still=search.stands_still,
        levels=known.levels,
        batches=tuple(_batches(search, known.levels)),
        runs=tuple(_runs(search, settings.base_rate, known.levels)),
        gradient_examples=runs.gradient_examples,
        evaluation_examples=runs.evaluation_examples,
        seconds=known.seconds,
        out_of_time=runs.out_of_time,
        asked=settings.steps,
        obstacle=search.obstacle,
        interrupted=interrupted,
        failure=failure,
    )


class _Known:
    """What a horizon under way knows, for its progress: the levels that count, and its time so far."""

    def __init__(self, settings: HorizonSettings, on_progress: Callable[[HorizonProgress], None]) -> None:
        self._settings, self._on_progress = settings, on_progress
        self._first = min(_FIRST_COUNTED, settings.steps or _FIRST_COUNTED)
        self._begun = clock.monotonic()
        self.levels: tuple[Level, ...] = ()

    @property
    def seconds(self) -> float:
        return clock.monotonic() - self._begun

    def take_levels(self, found: Sequence[Level]) -> None:
        self.levels = tuple(level for level in found if level.steps >= self._first)

    def tell_step(self, batch_size: int, step: int) -> None:
        self._on_progress(
            HorizonProgress(
                levels=self.levels,
                batch_size=batch_size,
                step=step,
                seconds=self.seconds,
                budget_seconds=self._settings.budget_seconds,
            )
        )


def _batches(search: Search, levels: Sequence[Level]) -> Iterator[StepsTo]:
    """The fewest steps of each batch size to the last loss, at a learning rate at which no run diverged."""
    for there in levels[-1].arrivals if levels else ():
        if (safe := search.safe.steps_to(there.batch_size, levels[-1].loss)) is not None:
            yield safe


def _runs(search: Search, base_rate: float, levels: Sequence[Level]) -> list[HorizonRun]:
    found = []
    for size in sorted(search.trained.known):
        for point, rate in sorted(search.trained.known[size].items()):
            loss = rate.means[-1]
            found.append(
                HorizonRun(
                    batch_size=size,
                    learning_rate=rate_at(base_rate, point),
                    replicates=rate.replicates,
                    steps=rate.last,
                    loss=loss if math.isfinite(loss) else None,
                    arrived=search.safe.arrival_of(size, point, levels[-1].loss) if levels else None,
                )
            )
    return found
