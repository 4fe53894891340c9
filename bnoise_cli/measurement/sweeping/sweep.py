"""The sweep: the fewest steps to a goal at each batch size, or branches of the same number of examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from bnoise_cli import clock
from bnoise_cli.errors import CallError, RunError
from bnoise_cli.ledger import Ledger
from bnoise_cli.maths.batch_range import first_batch_sizes, next_batch_size
from bnoise_cli.maths.steps_fit import StepsFit, fit_seeds
from bnoise_cli.measurement.building.build import device_name, make_optimizer
from bnoise_cli.measurement.horizon.measure import HorizonSettings, measure_horizon
from bnoise_cli.measurement.outcome import SweepPhase, SweepProgress, SweepRun
from bnoise_cli.measurement.ranks import ALONE, Ranks
from bnoise_cli.measurement.sweeping.along_a_run import probe_along
from bnoise_cli.measurement.sweeping.branches import train_branches
from bnoise_cli.measurement.sweeping.goal import find_goal
from bnoise_cli.measurement.sweeping.known_runs import FINE, Key, KnownRuns
from bnoise_cli.measurement.sweeping.sweep_task import SweepTask
from bnoise_cli.measurement.sweeping.training_runs import Goal
from bnoise_cli.measurement.sweeping.tuning import Tuner
from bnoise_cli.measurement.task.preconditioner import KNOWN
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.threads import quickest_threads
from bnoise_cli.measurement.task.user_code import enough_memory
from bnoise_cli.measurement.timing.training_steps import time_training_steps
from bnoise_cli.records import Law, Throughput
from bnoise_cli.spec.load import Spec

#: Examples of each probe along the best run: this fraction of all examples that were trained on, and at least this
#: number.
_PROBE_SHARE, FEWEST_PROBE_EXAMPLES = 0.02, 4096
#: The horizon at the start: the part of those examples that it may use, and the half-width of the interval of B_crit at
#: which it ends.
_HORIZON_SHARE, _HORIZON_PRECISION = 0.1, 0.3


class BudgetSpentError(RunError):
    """The time that the user allowed is over. A probe under way passes it on, as it passes on what went wrong."""


class SweepSession:
    """A task ready to be trained many times from one start; nothing has been measured yet."""

    def __init__(self, spec: Spec, device: torch.device, ledger: Ledger, ranks: Ranks = ALONE) -> None:
        self.shared, self.config, self.ranks = SweepTask(spec, device, ranks), spec.config, ranks
        self.task, self._ledger = self.shared.task, ledger
        ledger.entries = ranks.broadcast(ledger.entries)
        self._require_examples()

    def _require_examples(self) -> None:
        """Refuse batch sizes above the number of examples."""
        plan, length = self.config.sweep, self.task.batches.length
        named = {} if isinstance(plan.batch_sizes, str) else {"sweep.batch_sizes": plan.batch_sizes[-1]}
        if plan.branch is not None:
            largest = plan.branch.multiples[-1] * self.config.training.batch_size
            named = {"sweep.branch.multiples": largest}
        for key, size in {"training.batch_size": self.config.training.batch_size, **named}.items():
            if size > length:
                raise CallError(
                    f"a sweep needs batches of at most the dataset's {length} examples; `{key}` asks for {size}. "
                    "Name smaller ones."
                )

    def run(self, on_progress: Callable[[SweepProgress], None]) -> SweepRun:
        """Measure until all is known, the budget is spent, or the user or an error ends it.

        The model is given back bit for bit. What was finished is in the ledger, and a second call goes on from it.

        Raises:
            CallError: the goal is above the start.
            RunError, KeyboardInterrupt: before a single run was finished.
        """
        known = KnownRuns(self._ledger, self.shared.rate)
        with enough_memory("copying the parameters"), preserved(self.task.model, self.config.probe.seed):
            return _Run(self.shared, known, on_progress).measure()

    def time_steps(self, found: SweepRun, law: Law | None) -> Throughput:
        """Time training steps as the planned run takes them, in a part of the time of the sweep.

        Raises:
            RunError: a single example does not fit, or the user's code failed.
        """
        seconds = sum(run.seconds for run in found.runs)
        self.shared.__dict__.pop("runner", None)  # training holds no such copy
        optimizer = make_optimizer(self.shared.spec, self.task.trainable)
        return time_training_steps(
            self.task,
            optimizer,
            self.config,
            law,
            group=found.findings.group,
            budget_seconds=max(seconds, self.config.sweep.budget or 0.0),
            threads=quickest_threads(self.task, self.config.probe.seed),
        )


class _Run:
    """One sweep under way."""

    def __init__(
        self, shared: SweepTask, known: KnownRuns, on_progress: Callable[[SweepProgress], None]
    ) -> None:
        self.shared, self.known, self.on_progress = shared, known, on_progress
        self.task, self.plan = shared.task, shared.config.sweep
        self.planned = shared.config.training.batch_size
        self.begun = clock.monotonic()
        self.chosen: dict[int, int | None] = {}  # batch size → the best grid point; None: none arrived
        self.expected = 0  # batch sizes
        self.entries_before = known.entries
        shared.on_warmup = lambda step: self._tell("warm-up", step)

    def measure(self) -> SweepRun:
        interrupted, complete, goal = False, False, None
        failure: RunError | None = None
        trajectory: list[dict[str, Any]] = []
        ahead: dict[str, Any] | None = None
        try:
            with enough_memory("sweeping"):
                if self.plan.branch is not None:
                    self.expected = len(self.plan.branch.multiples)
                    goal = Goal(
                        loss=math.nan, start_loss=self.shared.start_loss, max_steps=self.plan.max_steps
                    )
                    on_step = lambda size, step: self._tell("branch", step, size)  # noqa: E731
                    train_branches(self.shared, self.known, self.plan.branch, on_step)
                else:
                    goal = find_goal(self.shared, self.known, lambda step: self._tell("goal", step))
                    self._measure_batch_sizes(goal)
                    trajectory = self._trajectory()
                    ahead = self._horizon()
            complete = True
        except KeyboardInterrupt:
            interrupted = True
            if goal is None or not self.known:
                raise
        except BudgetSpentError:
            spent = RunError(
                f"the budget of {self.plan.budget:.0f} s was spent before another run or probe was finished. Raise "
                "--budget."
            )
            if goal is None or not self.known:
                raise spent from None
            if self.known.entries == self.entries_before:  # the next call would end in the same place
                failure = spent
        except RunError as error:
            failure = self.task.ranks.publish(error)
            if goal is None or not self.known:
                raise
        return SweepRun(
            goal=goal.loss,
            start_loss=goal.start_loss,
            runs=self.known.all(),
            chosen={
                size: None if point is None else self.shared.rate(point)
                for size, point in sorted(self.chosen.items())
            },
            trajectory=tuple(trajectory),
            horizon=ahead,
            branches=tuple(self.known.branches),
            findings=self.shared.findings,
            complete=complete,
            interrupted=interrupted,
            failure=failure,
            device=device_name(self.shared.device, self.task.ranks),
            dtype=self.task.dtype,
            dataset_length=self.task.batches.dataset_length,
            dataset_hash=self.task.batches.content_hash,
            micro_batch_size=self.task.micro_batch_size,
            evaluation_examples=self.shared.evaluated,
        )

    def _measure_batch_sizes(self, goal: Goal) -> None:
        tuner = Tuner(self.shared, self.known, goal, lambda size, step: self._tell("training", step, size))
        given, most = self.plan.batch_sizes, self.task.batches.length
        auto = isinstance(given, str)
        first = first_batch_sizes(self.planned, most) if isinstance(given, str) else list(given)
        self.expected = len(first) + (2 if auto else 0)
        for size in sorted(first, key=lambda size: abs(math.log(size / self.planned))):
            self.chosen[size] = tuner.best_point(size, self.chosen)
        while auto and (further := self._next_size(most)) is not None:
            self.expected = max(self.expected, len(self.chosen) + 1)
            self.chosen[further] = tuner.best_point(further, self.chosen)

    def _fit(self) -> tuple[list[int], StepsFit | None]:
        """Batch sizes that arrived, and the law through their steps."""
        points = {size: point for size, point in sorted(self.chosen.items()) if point is not None}
        steps = [self.known.at_best(size, point, self.plan.seeds) for size, point in points.items()]
        return list(points), fit_seeds(list(points), steps)

    def _next_size(self, most: int) -> int | None:
        arrived, found = self._fit()
        if found is None:
            return None
        # A range far beyond what was measured is not believed at once.
        critical = min(max(math.exp(found.log_critical), arrived[0] / 2), arrived[-1] * 2)
        return next_batch_size(self.planned, most, self.chosen, critical)

    def _trajectory(self) -> list[dict[str, Any]]:
        """Probe along the best run nearest to the critical batch size; empty where there is none."""
        arrived, found = self._fit()
        if found is None or self.shared.optimizer_type not in KNOWN:
            return []
        size = min(arrived, key=lambda size: abs(math.log(size) - found.log_critical))
        point = self.chosen[size]
        assert point is not None
        spent = sum(run.examples for run in self.known.all())
        return probe_along(
            self.shared,
            self.known,
            batch_size=size,
            point=point,
            steps=self.known[Key(size, point, 0, FINE)].steps or 0.0,
            max_examples=max(FEWEST_PROBE_EXAMPLES, round(_PROBE_SHARE * spent)),
            on_progress=lambda: self._tell("probe", 0),
        )

    def _horizon(self) -> dict[str, Any] | None:
        """What short runs from the same start predict, for a part of the examples; None if no batch size arrived.

        Its failure costs the sweep nothing: the runs are the measurement.

        Raises:
            BudgetSpentError: the time that other runs of this call have left was too short; the next call has more.
        """
        if self._fit()[1] is None:
            return None
        if (known := self.known.fact("horizon")) is not None:
            return dict(known)
        runner = self.shared.runner
        runner.start.restore()
        found = measure_horizon(
            self.task,
            runner.optimizer(self.task.trainable, self.shared.base_rate),
            partial(make_optimizer, self.shared.spec),
            HorizonSettings(
                batch_size=self.planned,
                base_rate=self.shared.base_rate,
                max_grad_norm=self.shared.config.training.max_grad_norm,
                guess=self.planned,
                steps=None,
                precision=_HORIZON_PRECISION,
                budget_seconds=math.inf if self.plan.budget is None else self.plan.budget - self._seconds,
                max_examples=_HORIZON_SHARE * sum(run.examples for run in self.known.all()),
                seed=self.shared.config.probe.seed,
                step=self.plan.warmup_steps,
            ),
            on_progress=lambda _: self._report("probe", 0),
            stacks=self._stacks,
        )
        if found.interrupted:
            raise KeyboardInterrupt
        if found.out_of_time and self.known.entries > self.entries_before:
            raise BudgetSpentError
        value = {
            "curve": [asdict(level.point()) for level in found.levels],
            "gradient_examples": found.gradient_examples,
            "evaluation_examples": found.evaluation_examples,
        }
        if found.levels or self.plan.budget is None:
            self.known.add_fact("horizon", value)
        return value

    def _stacks(self, batch_size: int) -> bool:
        """As the runs at the nearest batch size went, so that a sweep that goes on finds the same."""
        known = self.known.stacks
        return known[min(known, key=lambda size: abs(math.log(size / batch_size)))] if known else False

    @property
    def _seconds(self) -> float:
        return clock.monotonic() - self.begun

    def _tell(self, phase: SweepPhase, step: int, size: int | None = None) -> None:
        """Report the progress.

        Raises:
            BudgetSpentError: the time is over.
        """
        self._report(phase, step, size)
        if self.plan.budget is not None and self.task.ranks.broadcast(self._seconds > self.plan.budget):
            raise BudgetSpentError

    def _report(self, phase: SweepPhase, step: int, size: int | None = None) -> None:
        self.on_progress(
            SweepProgress(
                phase=phase,
                step=step,
                batch_size=size,
                sizes_done=len(self.chosen),
                sizes_planned=max(self.expected, len(self.chosen)),
                runs=len(self.known),
                seconds=self._seconds,
            )
        )
