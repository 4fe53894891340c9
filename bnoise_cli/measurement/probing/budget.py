"""The budget of one probe, and the parts of it that the pilot, the whole dataset and the replicates may spend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from bnoise_cli import clock
from bnoise_cli.errors import RunError
from bnoise_cli.measurement.task.activations import most_at_once
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.gradients import seconds_per_gradient_example
from bnoise_cli.measurement.task.pass_size import choose_pass_size
from bnoise_cli.measurement.task.passes import same_on_all
from bnoise_cli.measurement.task.task import Spent, Task

#: A budget must hold this many of the largest batches.
_REPLICATES_IN_BUDGET = 13
#: The budget must hold at least this many rounds, even if several ranks each make a replicate per round.
_FEWEST_ROUNDS = 2
#: The pilot doubles its update as long as this fraction of the time lasts, and ends with what it has found after the
#: second one. With all its evaluation examples it costs about this many gradients.
_PILOT_TIME, _MOST_PILOT_TIME, _PILOT_COST = 0.25, 0.6, 1200
#: The reported loss may take this fraction of the time.
_LOSS_TIME = 0.05
#: The whole dataset is used if it costs at most these parts of the examples and of the time.
_LIMIT_EXAMPLES, _LIMIT_TIME = 0.25, 0.1
#: The whole dataset is given up if it takes more than this fraction of the time, the line along its gradient included.
_MOST_LIMIT_TIME = 0.2
#: Gradient of an example plus its share of a line, in gradients: the line of the whole dataset takes seven forward
#: passes.
_LIMIT_COST, _REPLICATE_COST = 10 / 3, 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """How precisely and how long to measure."""

    #: None: the pilot chooses them.
    batch_sizes: tuple[int, ...] | None = None
    #: Relative half width of the 95% interval.
    precision: float = 0.15
    budget_seconds: float = 60.0
    #: Gradient examples. A probe that spends them long before its seconds repeats exactly: times decide nothing.
    max_examples: int | None = None
    seed: int = 0


class ProbeBudget:
    """Time and examples of one probe under way, counted since this object was made.

    If examples are drawn in groups, everything here counts groups, except messages.

    Attributes:
        at_once: replicates that are made at once: ranks that hold the whole model make replicates of their own.
    """

    def __init__(self, task: Task, settings: ProbeSettings, draws: Callable[[Stream], Draws]) -> None:
        self.at_once = 1 if task.sharded else task.ranks.size
        self._task, self._settings, self._draws = task, settings, draws
        self._group, self._ranks = task.batches.group, task.ranks
        self._started, self._before = clock.monotonic(), task.spent

    @property
    def seconds(self) -> float:
        """Seconds since the beginning, on this rank."""
        return clock.monotonic() - self._started

    @property
    def agreed_seconds(self) -> float:
        """Seconds since the beginning, the same number on all ranks."""
        return self._ranks.broadcast(self.seconds)

    @property
    def spent(self) -> Spent:
        """Examples since the beginning."""
        return self._task.spent - self._before

    @property
    def left(self) -> float:
        """Gradient examples that may still be drawn; infinite if only the time is limited."""
        if self._settings.max_examples is None:
            return math.inf
        return self._settings.max_examples // self._group - self.spent.gradient

    def holds_update_of(self, examples: int) -> bool:
        """Whether the pilot's part of the time and of the examples holds the next gradient of that many examples."""
        expected = 0.0
        if self._settings.max_examples is None:
            expected = examples * self._seconds_per_gradient_example
        return self.seconds + expected <= _PILOT_TIME * self._settings.budget_seconds

    @property
    def pilot_seconds(self) -> float:
        """Seconds from now to the end of the pilot."""
        return self._seconds_to(_MOST_PILOT_TIME)

    @property
    def limit_seconds(self) -> float:
        """Seconds that the whole dataset may take."""
        return _MOST_LIMIT_TIME * self._settings.budget_seconds

    @property
    def seconds_left(self) -> float:
        """Seconds from now to the end of the budget."""
        return self._seconds_to(1.0)

    def loss_examples(self, most: int) -> int:
        """Examples of the reported loss: `most`, or the fewer for which there is time."""
        if self._settings.max_examples is not None:
            return most
        each = self._seconds_per_gradient_example / 3
        return max(1, min(most, int(_LOSS_TIME * self._settings.budget_seconds / each)))

    def _seconds_to(self, part: float) -> float:
        return part * self._settings.budget_seconds - self.seconds

    def choose_pass_size(self) -> None:
        """Choose the micro-batch by time, unless the probe must repeat or a trial that does not fit would end it."""
        if self._settings.max_examples is not None or self._group > 1 or self._task.sharded:
            return
        most = most_at_once(self._task, self._draws(Stream.PASS_SIZE))
        choose_pass_size(self._task, most, self._time_an_example, self._settings.budget_seconds)

    def largest_batch(self) -> int:
        """The largest batch of which the budget holds enough replicates."""
        most = self.left / _REPLICATES_IN_BUDGET
        if self._settings.max_examples is None:
            left = self._settings.budget_seconds - self.agreed_seconds
            rounds = max(_REPLICATES_IN_BUDGET / self.at_once, _FEWEST_ROUNDS)
            most = max(left, 0.0) / (rounds * _REPLICATE_COST * self._seconds_per_gradient_example)
        return max(int(min(most, 2**40)), 4)

    def effort(self) -> float:
        """The part of the pilot's usual work that its time holds; 1 if the probe must repeat."""
        if self._settings.max_examples is not None:
            return 1.0
        seconds = _PILOT_TIME * self._settings.budget_seconds
        return seconds * self.at_once / (_PILOT_COST * self._seconds_per_gradient_example)

    def whole_dataset_is_cheap(self) -> bool:
        """Whether the gradient of the whole dataset exists and costs little."""
        traits, length = self._task.traits, self._task.batches.length
        if traits.stochastic or traits.random_data or self._group > 1:
            return False
        most = self._settings.max_examples
        if most is not None and length > _LIMIT_EXAMPLES * most:
            return False
        seconds = length * self._seconds_per_gradient_example * _LIMIT_COST / self.at_once
        return seconds <= _LIMIT_TIME * self._settings.budget_seconds

    def require_time_for(self, largest: int) -> None:
        """Refuse batch sizes of the user's own if the budget cannot hold two replicates.

        Raises:
            RunError: it cannot.
        """
        if self._settings.batch_sizes is None or self._settings.max_examples is not None:
            return
        rounds = -(-2 // self.at_once)
        needed = rounds * largest * _REPLICATE_COST * self._seconds_per_gradient_example
        budget = self._settings.budget_seconds
        if needed > budget:
            raise RunError(
                f"two updates of {largest * self._group} examples need about {needed:.0f} s, and the budget is "
                f"{budget:.0f} s. Raise --budget, or name smaller probe.batch_sizes."
            )

    @cached_property
    def _seconds_per_gradient_example(self) -> float:
        return self._time_an_example()

    def _time_an_example(self) -> float:
        """Seconds of a gradient example of the ranks that make one replicate."""
        with same_on_all(self._task):
            seconds = seconds_per_gradient_example(self._task, self._draws(Stream.PROBE_SPEED))
        self._task.spend(self._ranks.broadcast(self._task.spent) - self._task.spent)
        return self._ranks.broadcast(seconds)
