"""The probe: replicates until the noise scale is known well enough or the budget is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from bnoise_cli.errors import RunError
from bnoise_cli.maths.analysis import Analysis, Design, Replicates, analyse
from bnoise_cli.maths.pass_plan import batch_sizes_up_to
from bnoise_cli.maths.support import is_contradicted
from bnoise_cli.measurement.outcome import Measurement, ProbePhase, Progress, StopReason
from bnoise_cli.measurement.probing.pilot import Plan, make_plan, measure_limit, scout
from bnoise_cli.measurement.probing.replicate import Replicate, measure_replicate
from bnoise_cli.measurement.probing.rounding import choose_line_precision, rounding_floor
from bnoise_cli.measurement.task.activations import most_at_once
from bnoise_cli.measurement.task.batches import Draws, Stream
from bnoise_cli.measurement.task.gradients import seconds_per_gradient_example
from bnoise_cli.measurement.task.losses import mean_loss
from bnoise_cli.measurement.task.pass_size import choose_pass_size
from bnoise_cli.measurement.task.passes import on_this_rank, same_on_all
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.user_code import enough_memory

#: No stop for precision before this many replicates: the variance itself must be known.
_FEWEST_REPLICATES = 12
#: The interval is looked at again when this many times as many replicates are there. Few looks keep the
#: coverage of an interval that decides its own end.
_NEXT_LOOK = 1.1
#: After this many replicates a badly placed design is replaced, at most so many times.
_FIRST_LOOK, _MOST_REPLANS = 6, 2
#: Best steps outside this range of a line's scale, or a noise scale above the largest batch, are badly
#: placed. Wide, because six replicates are few and starting again costs them all.
_PLACED = (0.15, 2.5)
#: The largest batch grows by this much when the noise scale lies beyond it.
_WIDER = 4
#: A budget must hold this many of the largest batches.
_REPLICATES_IN_BUDGET = 13
#: However many replicates are made at once.
_FEWEST_ROUNDS = 2
#: The pilot may take this part of the time; with all its evaluation examples it costs about so many gradients.
_PILOT_TIME, _PILOT_COST = 0.25, 1200
#: The whole dataset is used where it costs at most these parts of the examples and of the time.
_LIMIT_EXAMPLES, _LIMIT_TIME = 0.25, 0.1
#: Forward and backward pass over an example plus its share of a line, in gradient passes.
_LIMIT_COST, _REPLICATE_COST = 8 / 3, 2.5

#: The loss that is reported is the mean over so many examples.
_LOSS_EXAMPLES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """How precisely and how long to measure."""

    batch_sizes: tuple[int, ...] | None = None  # None: chosen by a pilot
    precision: float = 0.15  # relative half width of the 95% interval
    budget_seconds: float = 60.0
    max_examples: int | None = None  # gradient examples
    seed: int = 0


def probe(
    task: Task,
    settings: ProbeSettings,
    *,
    step: int = 0,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Measurement:
    """Measure the noise scale of `task` at its present weights.

    Where the loss is no mean over examples (`task.group`), what is drawn independently is a group of examples; a batch
    is made of groups, and everything that is handed on counts examples.

    The model, its gradients, buffers and modes and the global random streams are given back bit for bit.
    Ctrl-C and a failure in the user's code end the replicates; what they measured is kept.

    Args:
        step: training steps taken before; it only makes the draws of several points independent.

    Raises:
        RunError: nothing could be measured at all.
        KeyboardInterrupt: before the first replicate.
    """
    with preserved(task.model, settings.seed) as origin, task.holding_buffers():
        return _Run(task.in_groups(), origin, settings, step, on_progress).measure()


class _Run:
    """One probe under way."""

    def __init__(
        self,
        task: Task,
        origin: list[Tensor],
        settings: ProbeSettings,
        step: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.task, self.origin, self.settings, self.step = task, origin, settings, step
        self.on_progress = on_progress
        self.started = time.monotonic()
        self.replicates: list[Replicate] = []
        self.analysis: Analysis | None = None
        self.plan: Plan | None = None
        self.rounding_floor: float | None = None
        self.group, self.ranks = task.batches.group, task.ranks
        # Ranks that hold the whole model make replicates of their own.
        self.at_once = 1 if task.sharded else task.ranks.size
        self.at_start = (task.gradient_examples, task.evaluation_examples)
        self.batch_sizes = self._in_groups(settings.batch_sizes)

    def measure(self) -> Measurement:
        stop, loss = StopReason.BUDGET, None
        failure: RunError | None = None
        try:
            with enough_memory("probing"):
                self._choose_pass_size()
                loss = self._loss()
                self._report("pilot")
                self.plan = self._pilot()
                self._require_time_for(self.plan)
                choose_line_precision(self.task, self.origin, self.plan, self._draws(Stream.LINE_PRECISION))
                self.rounding_floor = rounding_floor(
                    self.task, self.origin, self.plan, self._draws(Stream.ROUNDING_FLOOR)
                )
                stop = self._replicate_until_known(self.plan)
        except KeyboardInterrupt:
            if not self.replicates:
                raise
            stop = StopReason.INTERRUPTED
        except RunError as error:
            stop, failure = StopReason.FAILED, self.ranks.publish(error)
        if failure is not None and not self.replicates:
            raise failure
        self._analyse()
        shortened = self.task.micro_batch_size < self.task.planned_micro_batch_size
        return Measurement(
            step=self.step,
            loss=loss,
            analysis=self.analysis,
            design=self._design(self.plan) if self.plan is not None else None,
            replicates=len(self.replicates),
            stop=stop,
            failure=failure,
            seconds=self._seconds(),
            gradient_examples=self._drawn() * self.group,
            evaluation_examples=(self.task.evaluation_examples - self.at_start[1]) * self.group,
            micro_batch_size=self.task.micro_batch_size * self.group,
            shortened_from=self.task.planned_micro_batch_size if shortened else None,
            rounding_floor=self.rounding_floor,
        )

    def _draws(self, stream: Stream, *which: int) -> Draws:
        return Draws(self.settings.seed, stream, self.step, *which)

    def _seconds(self) -> float:
        return time.monotonic() - self.started

    def _agreed_seconds(self) -> float:
        return self.ranks.broadcast(self._seconds())

    def _drawn(self) -> int:
        """Groups, which mostly are single examples."""
        return self.task.gradient_examples - self.at_start[0]

    def _left(self) -> float:
        if self.settings.max_examples is None:
            return math.inf
        return self.settings.max_examples // self.group - self._drawn()

    def _in_groups(self, batch_sizes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if batch_sizes is None:
            return None
        if wrong := [size for size in batch_sizes if size % self.group]:
            raise RunError(
                f"the loss is no mean over examples, so that batches are made of groups of {self.group}, what one "
                f"device of the planned run takes; probe.batch_sizes has {wrong[0]}. Name multiples of {self.group}."
            )
        return tuple(size // self.group for size in batch_sizes)

    def _design(self, plan: Plan) -> Design:
        return replace(plan.design, batch_sizes=plan.design.batch_sizes * self.group)

    def _loss(self) -> float:
        draws, length = self._draws(Stream.PROBE_LOSS), self.task.batches.length
        few = min(max(1, _LOSS_EXAMPLES // self.group), length)
        return mean_loss(self.task, draws.indices(few, length), draws)

    def _pilot(self) -> Plan:
        self.task.full_lines = True
        limit = None
        if self._whole_dataset_is_cheap():
            limit = measure_limit(self.task, self.origin, self._draws(Stream.WHOLE_DATASET))
        most = self._left() / _REPLICATES_IN_BUDGET
        if self.settings.max_examples is None:
            left = self.settings.budget_seconds - self._agreed_seconds()
            cost = _REPLICATE_COST * self._seconds_per_gradient_example
            rounds = max(_REPLICATES_IN_BUDGET / self.at_once, _FEWEST_ROUNDS)
            most = max(left, 0.0) / (rounds * cost)
        return scout(
            self.task,
            self.origin,
            self._draws(Stream.PILOT),
            limit=limit,
            batch_sizes=self.batch_sizes,
            most_examples=max(int(min(most, 2**40)), 4),
            out_of_time=lambda: self._seconds() > _PILOT_TIME * self.settings.budget_seconds,
            haste=self._haste(),
        )

    def _haste(self) -> float:
        """The part of the pilot's usual work that its time holds; all where a budget in examples must repeat."""
        if self.settings.max_examples is not None:
            return 1.0
        time = _PILOT_TIME * self.settings.budget_seconds
        return time * self.at_once / (_PILOT_COST * self._seconds_per_gradient_example)

    def _require_time_for(self, plan: Plan) -> None:
        """Refuse batch sizes of the user's own that the budget cannot hold twice."""
        if self.batch_sizes is None or self.settings.max_examples is not None:
            return
        rounds = -(-2 // self.at_once)
        needed = rounds * plan.largest * _REPLICATE_COST * self._seconds_per_gradient_example
        budget = self.settings.budget_seconds
        if needed > budget:
            raise RunError(
                f"two updates of {plan.largest * self.group} examples need about {needed:.0f} s, and the budget is "
                f"{budget:.0f} s. Raise --budget, or name smaller probe.batch_sizes."
            )

    def _choose_pass_size(self) -> None:
        """Not where a budget in examples must repeat, nor where a trial that does not fit would end the probe."""
        if self.settings.max_examples is not None or self.group > 1 or self.task.sharded:
            return
        most = most_at_once(self.task, self._draws(Stream.PASS_SIZE))
        choose_pass_size(self.task, most, self._time_an_example, self.settings.budget_seconds)

    @cached_property
    def _seconds_per_gradient_example(self) -> float:
        return self._time_an_example()

    def _time_an_example(self) -> float:
        """Seconds of a gradient example of the ranks that make one replicate."""
        with same_on_all(self.task):
            seconds = seconds_per_gradient_example(self.task, self._draws(Stream.PROBE_SPEED))
        self.task.gradient_examples = self.ranks.broadcast(self.task.gradient_examples)
        return self.ranks.broadcast(seconds)

    def _whole_dataset_is_cheap(self) -> bool:
        if self.task.stochastic or self.task.batches.random or self.group > 1:
            return False
        length, most = self.task.batches.length, self.settings.max_examples
        if most is not None and length > _LIMIT_EXAMPLES * most:
            return False
        seconds = length * self._seconds_per_gradient_example * _LIMIT_COST / self.at_once
        return seconds <= _LIMIT_TIME * self.settings.budget_seconds

    def _replicate_until_known(self, plan: Plan) -> StopReason:
        replans, next_look = 0, _FIRST_LOOK
        longest = 0.0
        while True:
            begun = self._agreed_seconds()
            enough_for_an_answer = len(self.replicates) >= 2
            if plan.largest > self._left():
                return StopReason.BUDGET
            if enough_for_an_answer and begun + 0.5 * longest > self.settings.budget_seconds:
                return StopReason.BUDGET
            better = None
            for attempt in self._attempts(plan, replans):
                if isinstance(attempt, RunError):
                    raise attempt
                self.replicates.append(attempt)
                if len(self.replicates) == _FIRST_LOOK and replans < _MOST_REPLANS:
                    better = self._better_plan(plan)
                    if better is not None:
                        break  # what else was made at once belongs to the plan that is given up
            longest = max(longest, self._agreed_seconds() - begun)
            count = len(self.replicates)
            looked = count >= next_look
            if looked or (not enough_for_an_answer and count >= 2):
                self._analyse()
            if looked:
                next_look = max(count + 1, math.ceil(count * _NEXT_LOOK))
            self._report("replicates")
            if better is not None:
                self.plan = plan = better
                self.replicates, self.analysis = [], None
                replans, next_look = replans + 1, _FIRST_LOOK
            elif looked and count >= _FEWEST_REPLICATES and self.ranks.broadcast(self._is_precise()):
                return StopReason.PRECISION

    def _is_precise(self) -> bool:
        found = self.analysis
        return found is not None and found.noise_scale.relative_half_width <= self.settings.precision

    def _attempts(self, plan: Plan, replans: int) -> list[Replicate | RunError]:
        """The next replicates, in the order of their draws: one of all ranks together, or one of each."""
        number = len(self.replicates)
        if self.at_once == 1:
            return [self._replicate(plan, replans, number)]
        before = self.task.gradient_examples, self.task.evaluation_examples
        attempt: Replicate | RunError | None = None
        with on_this_rank(self.task) as ranks:
            if self._left() >= (ranks.rank + 1) * plan.largest:
                try:
                    attempt = self._replicate(plan, replans, number + ranks.rank)
                except RunError as error:
                    attempt = type(error)(f"on rank {ranks.rank}: {error}")
        spent = (self.task.gradient_examples - before[0], self.task.evaluation_examples - before[1])
        found = ranks.all_gather((attempt, spent, self.task.micro_batch_size))
        self.task.gradient_examples, self.task.evaluation_examples = (
            have + sum(spent[kind] for _, spent, _ in found) for kind, have in enumerate(before)
        )
        self.task.micro_batch_size = min(size for _, _, size in found)
        return [attempt for attempt, _, _ in found if attempt is not None]

    def _replicate(self, plan: Plan, replans: int, number: int) -> Replicate:
        limit = plan.design.limit
        return measure_replicate(
            self.task,
            self.origin,
            plan.stages,
            [float(scale) for scale in plan.design.scales],
            plan.evaluation_examples,
            self._draws(Stream.REPLICATE, replans, number),
            known_signal=limit.signal if limit is not None else None,
        )

    def _better_plan(self, plan: Plan) -> Plan | None:
        """Another plan where the first replicates show that the pilot placed this one badly."""
        self._analyse()
        found = self.analysis
        assert found is not None
        design = plan.design
        if design.limit is None and found.slope < 3 * found.slope_error:
            return None
        sizes = [int(size) for size in design.batch_sizes]
        replicates_left = self._left() / plan.largest
        if replicates_left < _FEWEST_REPLICATES:
            return None
        if is_contradicted(found.slope_gap):  # the loss turns before the first node
            return make_plan(
                sizes,
                [float(scale) / 4 for scale in design.scales],
                found.slope,
                design.limit,
                design.lower_at,
            )
        wider = (
            self.batch_sizes is None
            and found.rough_noise_scale > plan.largest * self.group
            and replicates_left >= _FEWEST_REPLICATES * _WIDER
        )
        curvatures = np.maximum(found.fitted_curvatures, 0.2 * found.fitted_curvatures[0] / sizes)
        positions = found.slope / curvatures / design.scales
        if not wider and _PLACED[0] <= positions.min() and positions.max() <= _PLACED[1]:
            return None
        flat, noise = curvatures[-1], sizes[0] * (curvatures[0] - curvatures[-1])
        if wider:
            sizes = list(batch_sizes_up_to(_WIDER * plan.largest))
        scales = [found.slope / max(flat, noise / size) for size in sizes]
        return make_plan(sizes, scales, found.slope, design.limit, design.lower_at)

    def _analyse(self) -> None:
        if len(self.replicates) >= 2 and self.plan is not None:
            gathered = Replicates(
                curves=np.array([r.curves for r in self.replicates]),
                slopes=np.array([r.slope for r in self.replicates]),
                signals=np.array([r.signal for r in self.replicates]),
                noises=np.array([r.noise for r in self.replicates]) * self.group,
            )
            self.analysis = analyse(self._design(self.plan), gathered)

    def _report(self, phase: ProbePhase) -> None:
        self.on_progress(
            Progress(
                phase=phase,
                replicates=len(self.replicates),
                analysis=self.analysis,
                precision=self.settings.precision,
                seconds=self._seconds(),
                budget_seconds=self.settings.budget_seconds,
            )
        )
