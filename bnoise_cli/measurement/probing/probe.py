"""The probe: replicates until the noise scale is known well enough or the budget is spent."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
from torch import Tensor

from bnoise_cli.errors import MistakeError, OutOfTimeError, RunError
from bnoise_cli.maths.analysis import Analysis, Design, Replicates, analyse
from bnoise_cli.maths.pass_plan import batch_sizes_up_to
from bnoise_cli.maths.support import is_contradicted
from bnoise_cli.measurement.outcome import Measurement, ProbePhase, Progress, StopReason
from bnoise_cli.measurement.probing.budget import ProbeBudget, ProbeSettings
from bnoise_cli.measurement.probing.pilot import scout
from bnoise_cli.measurement.probing.plan import Plan, make_plan
from bnoise_cli.measurement.probing.replicate import Replicate, measure_replicate
from bnoise_cli.measurement.probing.rounding import choose_line_precision, rounding_floor
from bnoise_cli.measurement.probing.whole_dataset import measure_limit
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.losses import mean_loss
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.task import Spent, Task
from bnoise_cli.measurement.task.user_code import enough_memory

#: No stop for precision before this many replicates: the variance itself must be known.
_FEWEST_REPLICATES = 12
#: The interval is looked at again when the replicates have grown by this factor. Few looks keep the coverage of an
#: interval that decides when to stop.
_NEXT_LOOK = 1.1
#: After `_FIRST_LOOK` replicates a badly placed design is replaced, at most `_MOST_REPLANS` times.
_FIRST_LOOK, _MOST_REPLANS = 6, 2
#: Best steps outside this range of a line's scale, or a noise scale above the largest batch, are badly
#: placed. Wide, because six replicates are few and starting again costs them all.
_PLACED = (0.15, 2.5)
#: The largest batch grows by this factor if the noise scale lies beyond it.
_WIDER = 4
#: The reported loss is the mean over this number of examples.
_LOSS_EXAMPLES = 256


def probe(
    task: Task,
    settings: ProbeSettings,
    *,
    step: int = 0,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Measurement:
    """Measure the noise scale of `task` at its present weights.

    If the loss is not a mean over examples (`Traits.group`), groups of examples are drawn independently and a batch is
    made of groups. Everything that is returned counts examples.

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
        self.replicates: list[Replicate] = []
        self.analysis: Analysis | None = None
        self.plan: Plan | None = None
        self.rounding_floor: float | None = None
        self.group, self.ranks = task.batches.group, task.ranks
        self.budget = ProbeBudget(task, settings, self._draws)
        self.batch_sizes = self._in_groups(settings.batch_sizes)

    def measure(self) -> Measurement:
        stop, loss = StopReason.BUDGET, None
        failure: RunError | None = None
        try:
            with enough_memory("probing"):
                with self.task.within(self.budget.pilot_seconds):
                    self.budget.choose_pass_size()
                    loss = self._loss()
                    self._report("pilot")
                    self.plan = self._pilot()
                self.budget.require_time_for(self.plan.largest)
                with self.task.within(self.budget.seconds_left):
                    choose_line_precision(
                        self.task, self.origin, self.plan, self._draws(Stream.LINE_PRECISION)
                    )
                    self.rounding_floor = rounding_floor(
                        self.task, self.origin, self.plan, self._draws(Stream.ROUNDING_FLOOR)
                    )
                    stop = self._replicate_until_known(self.plan)
        except OutOfTimeError:
            stop = StopReason.BUDGET
        except KeyboardInterrupt:
            if not self.replicates:
                raise
            stop = StopReason.INTERRUPTED
        except RunError as error:
            stop, failure = StopReason.FAILED, self.ranks.publish(error)
        except Exception as error:
            if not self.replicates:
                raise
            stop, failure = StopReason.FAILED, self.ranks.publish(MistakeError.of(error))
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
            seconds=self.budget.seconds,
            gradient_examples=self.budget.spent.gradient * self.group,
            evaluation_examples=self.budget.spent.evaluation * self.group,
            micro_batch_size=self.task.micro_batch_size * self.group,
            shortened_from=self.task.planned_micro_batch_size if shortened else None,
            rounding_floor=self.rounding_floor,
        )

    def _draws(self, stream: Stream, *which: int) -> Draws:
        return Draws(self.settings.seed, stream, self.step, *which)

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
        few = min(self.budget.loss_examples(max(1, _LOSS_EXAMPLES // self.group)), length)
        return mean_loss(self.task, draws.indices(few, length), draws)

    def _pilot(self) -> Plan:
        self.task.use_full_lines(True)
        limit = None
        if self.budget.whole_dataset_is_cheap():
            with suppress(OutOfTimeError), self.task.within(self.budget.limit_seconds):
                limit = measure_limit(self.task, self.origin, self._draws(Stream.WHOLE_DATASET))
        return scout(
            self.task,
            self.origin,
            self._draws(Stream.PILOT),
            limit=limit,
            batch_sizes=self.batch_sizes,
            most_examples=self.budget.largest_batch(),
            in_time=self.budget.holds_update_of,
            haste=self.budget.effort(),
        )

    def _replicate_until_known(self, plan: Plan) -> StopReason:
        replans, next_look = 0, _FIRST_LOOK
        longest = 0.0
        while True:
            begun = self.budget.agreed_seconds
            enough_for_an_answer = len(self.replicates) >= 2
            if plan.largest > self.budget.left:
                return StopReason.BUDGET
            if enough_for_an_answer and begun + longest > self.settings.budget_seconds:
                return StopReason.BUDGET
            better = None
            for attempt in self._attempts(plan, replans):
                if isinstance(attempt, RunError):
                    raise attempt  # OutOfTimeError ends the probe as a spent budget does
                self.replicates.append(attempt)
                if len(self.replicates) == _FIRST_LOOK and replans < _MOST_REPLANS:
                    better = self._better_plan(plan)
                    if better is not None:
                        break  # what else was made at once belongs to the plan that is given up
            longest = max(longest, self.budget.agreed_seconds - begun)
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
        return found is not None and found.half_width_by_chance <= self.settings.precision

    def _attempts(self, plan: Plan, replans: int) -> list[Replicate | RunError]:
        """The next replicates, in the order of their draws: one of all ranks together, or one of each."""
        number = len(self.replicates)
        if self.budget.at_once == 1:
            return [self._replicate(plan, replans, number)]
        before = self.task.spent
        attempt: Replicate | RunError | None = None
        with self.task.on_this_rank() as ranks:
            if self.budget.left >= (ranks.rank + 1) * plan.largest:
                try:
                    attempt = self._replicate(plan, replans, number + ranks.rank)
                except RunError as error:
                    attempt = type(error)(f"on rank {ranks.rank}: {error}")
        spent = self.task.spent - before
        found = ranks.all_gather((attempt, spent, self.task.micro_batch_size))
        self.task.spend(sum((all_of_one for _, all_of_one, _ in found), Spent()) - spent)
        self.task.take_micro_batch(min(size for _, _, size in found))
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
        replicates_left = self.budget.left / plan.largest
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
                seconds=self.budget.seconds,
                budget_seconds=self.settings.budget_seconds,
            )
        )
