"""The sweep: the fewest steps to a goal at each batch size, the learning rate tuned at every one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.maths.batch_range import first_batch_sizes, next_batch_size
from bnoise_cli.maths.crossing import smoothed_at
from bnoise_cli.maths.hyperbola import fit_hyperbola
from bnoise_cli.maths.rate_search import PER_DOUBLING, next_rates
from bnoise_cli.measurement.batches import Draws
from bnoise_cli.measurement.build import build_task, learning_rate_of, make_optimizer
from bnoise_cli.measurement.checks import check_task
from bnoise_cli.measurement.lanes import SingleLane, StackedLanes, Start, evaluation_loss
from bnoise_cli.measurement.outcome import BranchEnd, SweepPlan, SweepProgress, SweepRun
from bnoise_cli.measurement.preconditioner import KNOWN, preconditioner
from bnoise_cli.measurement.preserve import held_batch_norms, preserved
from bnoise_cli.measurement.probe import ProbeSettings, probe
from bnoise_cli.measurement.training import Trainer
from bnoise_cli.measurement.training_runs import Arrival, Goal, train_to_goal
from bnoise_cli.measurement.training_steps import time_training_steps
from bnoise_cli.records import Throughput, TrainingRun
from bnoise_cli.spec.load import Spec
from bnoise_cli.spec.schema import Branch
from bnoise_cli.storage import Ledger

#: The loss of a run is the mean over the whole dataset up to so many examples, and over this many of a larger one.
_WHOLE, _EVALUATION_EXAMPLES = 2048, 1024
#: Larger models are not stacked: their passes fill the device by themselves.
_LARGEST_STACKED = 4_000_000
#: Stacking must save this part of the time to be used; it is tried on so many runs and steps.
_WORTH, _TRIED_RUNS, _TRIED_STEPS = 0.8, 3, 4
#: Weights of stacked runs and of single ones may differ by this part after the trial: the order of sums.
_SAME = 1e-3
#: The loss of a branch is the mean of about so many evaluations over the last part of its steps.
_BRANCH_EVALUATIONS, _BRANCH_END = 8, 0.1
#: Where along the best run the probe looks, in parts of its steps.
_PROBED = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Each probe may use this part of all the examples that were trained on, and at least so many.
_PROBE_SHARE, _FEWEST_PROBE_EXAMPLES = 0.02, 4096
#: The search first looks at learning rates a factor of two apart with one seed, then √2 apart with all seeds.
_COARSE, _FINE = 2, 1
#: In the second look a run has lost when it takes so many times the steps of the best mean so far; before there is
#: one, so many times those of the first look, which one seed may have been lucky in.
_HOPELESS, _UNLUCKY = 1.5, 3.0

#: For the estimated time of a plan: batch sizes of a range that is not given, runs of the first look at each, and
#: the part that evaluations add.
_USUAL_SIZES, _COARSE_RUNS, _EVALUATION_OVERHEAD = 6, 4, 0.5


class BudgetSpentError(Exception):
    """The time that the user allowed is over."""


@dataclass(frozen=True, slots=True)
class _Key:
    batch_size: int
    point: int  # on the grid of learning rates
    seed: int
    stage: int  # of the search: _COARSE or _FINE


class SweepSession:
    """A task ready to be trained many times from one start; nothing has been measured yet."""

    def __init__(self, spec: Spec, device: torch.device, ledger: Ledger) -> None:
        config = spec.config
        self.spec, self.config, self.device, self.ledger = spec, config, device, ledger
        self.task = build_task(spec, device)
        self.findings = check_task(self.task, config.probe.seed)
        optimizer = make_optimizer(spec, self.task.parameters)
        self.optimizer_type, self.base_rate = type(optimizer), learning_rate_of(optimizer)
        length = self.task.batches.length
        draws = Draws(config.probe.seed, 1 << 26)
        whole = length <= _WHOLE
        self.evaluation = np.arange(length) if whole else draws.indices(_EVALUATION_EXAMPLES, length)

    def run(self, on_progress: Callable[[SweepProgress], None]) -> SweepRun:
        """Measure until all is known, the budget is spent, or the user or an error ends it.

        The model is given back bit for bit. What was finished is in the ledger, and a second call goes on from it.

        Raises:
            CallError: the goal is above the start.
            RunError, KeyboardInterrupt: before a single run was finished.
        """
        with preserved(self.task.model, self.config.probe.seed):
            return _Run(self, on_progress).measure()

    def plan(self) -> SweepPlan:
        """What a sweep would do, timed on one micro-batch; the steps to a named goal are not known before."""
        config, length = self.config, self.task.batches.length
        with preserved(self.task.model, config.probe.seed):
            start_loss = evaluation_loss(self.task, self.evaluation)
            seconds = self.task.seconds_per_gradient_example(Draws(config.probe.seed, 1 << 22))
        batch_size, given = config.training.batch_size, config.sweep.batch_sizes
        sizes = first_batch_sizes(batch_size, length) if isinstance(given, str) else given
        runs = (_USUAL_SIZES if isinstance(given, str) else len(given)) * (
            _COARSE_RUNS + 3 * config.sweep.seeds
        )
        return SweepPlan(
            device=str(self.device),
            parameters=sum(p.numel() for p in self.task.parameters),
            dataset_length=length,
            evaluation_examples=len(self.evaluation),
            start_loss=start_loss,
            goal=None if isinstance(config.sweep.goal, str) else config.sweep.goal,
            batch_sizes=tuple(sizes),
            runs=runs,
            steps=config.sweep.steps,
            seconds=runs * config.sweep.steps * batch_size * seconds * (1 + _EVALUATION_OVERHEAD),
        )

    def time_steps(self, found: SweepRun, critical: float | None) -> Throughput:
        """Time training steps as the planned run takes them, in a part of the time of the sweep.

        Raises:
            RunError: a single example does not fit, or the user's code failed.
        """
        with preserved(self.task.model, self.config.probe.seed, on_host=True) as origin:
            return time_training_steps(
                self.task,
                make_optimizer(self.spec, self.task.parameters),
                origin,
                self.config,
                critical,
                budget_seconds=sum(run.seconds for run in found.runs),
            )

    def rate(self, point: int) -> float:
        """The learning rate of a grid point; 0 is the config's own."""
        return float(self.base_rate * 2 ** (point / PER_DOUBLING))

    def optimizer(self, parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
        """A fresh optimizer as the config has it, at another rate."""
        made = make_optimizer(self.spec, parameters)
        for group in made.param_groups:
            group["lr"] *= rate / self.base_rate
        return made


class _Run:
    """One sweep under way."""

    def __init__(self, session: SweepSession, on_progress: Callable[[SweepProgress], None]) -> None:
        self.session, self.on_progress = session, on_progress
        self.task, self.plan = session.task, session.config.sweep
        self.begun = time.monotonic()
        self.runs: dict[_Key, TrainingRun] = {}
        self.stacks: dict[int, bool] = {}
        self.chosen: dict[int, int | None] = {}  # batch size → the best point; None: none arrived
        self.branches: list[BranchEnd] = []
        self.planned_sizes = 0
        for entry in session.ledger.entries:
            self._remember(entry)

    def measure(self) -> SweepRun:
        interrupted, complete, goal = False, False, None
        failure: RunError | None = None
        trajectory: tuple[dict[str, Any], ...] = ()
        try:
            if self.plan.branch is not None:
                goal = self._branch(self.plan.branch)
            else:
                goal = self._goal()
                self._measure_batch_sizes(goal)
                trajectory = self._trajectory()
            complete = True
        except KeyboardInterrupt:
            interrupted = True
            if goal is None or not (self.runs or self.branches):
                raise
        except BudgetSpentError:
            if goal is None or not (self.runs or self.branches):
                raise RunError(
                    f"the budget of {self.plan.budget:.0f} s was spent before the first run arrived. Raise --budget."
                ) from None
        except RunError as error:
            failure = error
            if goal is None or not (self.runs or self.branches):
                raise
        return SweepRun(
            goal=goal.loss,
            start_loss=goal.start_loss,
            runs=tuple(self.runs[key] for key in sorted(self.runs, key=_order)),
            chosen=dict(sorted(self._chosen_rates().items())),
            trajectory=trajectory,
            branches=tuple(self.branches),
            findings=self.session.findings,
            complete=complete,
            interrupted=interrupted,
            failure=failure,
            device=str(self.session.device),
            dtype=str(self.task.parameters[0].dtype).removeprefix("torch."),
            dataset_length=self.task.batches.length,
            dataset_hash=getattr(self.task.batches.dataset, "content_hash", None),
            micro_batch_size=self.task.micro_batch_size,
            evaluation_examples=len(self.session.evaluation),
        )

    # --- the goal and the start --------------------------------------------------------------------------

    @cached_property
    def start(self) -> Start:
        """Where every run begins: after the warm-up, if there is one."""
        config, task = self.session.config, self.task
        if self.plan.warmup_steps:
            trainer = Trainer(
                task,
                make_optimizer(self.session.spec, task.parameters),
                batch_size=config.training.batch_size,
                max_grad_norm=config.training.max_grad_norm,
                seed=config.probe.seed,
            )
            trainer.train_until(self.plan.warmup_steps, lambda step: self._tell("warm-up", step))
        return Start(task)

    def _goal(self) -> Goal:
        self.start.restore()
        start_loss = evaluation_loss(self.task, self.session.evaluation)
        auto = self.plan.goal == "auto"
        loss = self._loss_of_the_plan(start_loss) if auto else float(self.plan.goal)
        if not loss < start_loss:
            raise CallError(
                f"the goal must lie below the loss at the start, {start_loss:.4g}; found {loss:.4g}. "
                + (
                    "The planned run does not train in sweep.steps; lower its learning rate or raise sweep.steps."
                    if auto
                    else "Lower sweep.goal."
                )
            )
        return Goal(loss=loss, start_loss=start_loss, max_steps=self.plan.max_steps)

    def _loss_of_the_plan(self, start_loss: float) -> float:
        """The smoothed loss of the planned run after `sweep.steps`."""
        for entry in self.session.ledger.entries:
            if entry["kind"] == "goal":
                return float(entry["loss"])
        batch_size, wanted = self.session.config.training.batch_size, self.plan.steps
        lane = self._single(_Key(batch_size, 0, 0, _COARSE))
        steps, losses = [0], [start_loss]
        stride = max(1, wanted // 50)
        while steps[-1] < 1.1 * wanted:
            for _ in range(stride):
                lane.step((0,))
                self._tell("goal", steps[-1])
            steps.append(steps[-1] + stride)
            losses += lane.losses((0,))
        if not np.all(np.isfinite(losses)):
            raise RunError(
                f"the planned run diverges within {steps[-1]} steps at its learning rate of "
                f"{self.session.base_rate:g}. Lower optimizer.lr, or name a sweep.goal."
            )
        loss = smoothed_at(steps, losses, wanted)
        self.session.ledger.append({"kind": "goal", "loss": loss})
        return loss

    # --- batch sizes --------------------------------------------------------------------------------------

    def _measure_batch_sizes(self, goal: Goal) -> None:
        length, planned = self.task.batches.length, self.session.config.training.batch_size
        given = self.plan.batch_sizes
        if not isinstance(given, str):
            self.planned_sizes = len(given)
            for size in sorted(given, key=lambda size: abs(np.log(size / planned))):
                self._measure_one(size, goal)
            return
        first = first_batch_sizes(planned, length)
        self.planned_sizes = len(first) + 2
        for size in first:
            self._measure_one(size, goal)
        while (further := self._next_size(planned, length)) is not None:
            self.planned_sizes = max(self.planned_sizes, len(self.chosen) + 1)
            self._measure_one(further, goal)

    def _next_size(self, planned: int, most: int) -> int | None:
        arrived = sorted(size for size, point in self.chosen.items() if point is not None)
        found = fit_hyperbola(arrived, [self._steps(size) for size in arrived])
        if found is None:
            return None
        critical = float(np.exp(found.log_critical))
        critical = min(max(critical, arrived[0] / 2), arrived[-1] * 2)
        return next_batch_size(planned, most, self.chosen, critical)

    def _measure_one(self, size: int, goal: Goal) -> None:
        """Bracket the best learning rate with the first seed, then more finely by the mean over all seeds."""
        coarse = self._search(size, self._first_point(size), goal, _COARSE, beaten_at=None)
        if coarse is None:
            self.chosen[size] = None
            return
        steps = self.runs[_Key(size, coarse, 0, _COARSE)].steps
        assert steps is not None
        best = self._search(size, coarse, goal, _FINE, beaten_at=_UNLUCKY * steps)
        self.chosen[size] = best

    def _search(self, size: int, first: int, goal: Goal, stage: int, beaten_at: float | None) -> int | None:
        """The best point of one stage; None: nothing arrived."""
        found: dict[int, float | None] = {}
        losses: dict[int, float] = {}
        seeds = range(1 if stage == _COARSE else self.plan.seeds)
        while points := next_rates(found, first, losses, stage):
            arrived = [steps for steps in found.values() if steps is not None]
            if arrived:
                beaten_at = min(arrived) * (1 if stage == _COARSE else _HOPELESS)
            self._train(
                [_Key(size, point, seed, stage) for point in points for seed in seeds], goal, beaten_at
            )
            for point in points:
                runs = [self._run(_Key(size, point, seed, stage)) for seed in seeds]
                found[point] = _mean_steps(runs)
                lowest = [run.lowest_loss for run in runs if run.outcome != "diverged"]
                if len(lowest) == len(runs) and None not in lowest:
                    losses[point] = max(loss for loss in lowest if loss is not None)
        arrivals = {point: steps for point, steps in found.items() if steps is not None}
        return min(arrivals, key=lambda point: (arrivals[point], point), default=None)

    def _first_point(self, size: int) -> int:
        """From the nearest batch size that is known, by the square root of the ratio; the search corrects it."""
        known = {other: point for other, point in self.chosen.items() if point is not None}
        if not known:
            ratio = size / self.session.config.training.batch_size
            return round(PER_DOUBLING * 0.5 * math.log2(ratio))
        nearest = min(known, key=lambda other: abs(np.log(size / other)))
        return known[nearest] + round(PER_DOUBLING * 0.5 * math.log2(size / nearest))

    def _steps(self, size: int) -> list[float]:
        """Steps of every seed at the best rate."""
        point = self.chosen[size]
        assert point is not None
        runs = [self._run(_Key(size, point, seed, _FINE)) for seed in range(self.plan.seeds)]
        return [run.steps for run in runs if run.steps is not None]

    def _chosen_rates(self) -> dict[int, float | None]:
        """Of every batch size that was finished; with Ctrl-C the last one may not be."""
        return {
            size: None if point is None else self.session.rate(point) for size, point in self.chosen.items()
        }

    # --- branches -----------------------------------------------------------------------------------------

    def _branch(self, branch: Branch) -> Goal:
        """Train the same number of examples at every multiple of the planned batch, as Merrill et al. do."""
        self.start.restore()
        goal = Goal(
            loss=math.nan,
            start_loss=evaluation_loss(self.task, self.session.evaluation),
            max_steps=self.plan.max_steps,
        )
        planned = self.session.config.training.batch_size
        self.planned_sizes = len(branch.multiples)
        power = 1.0 if self.session.optimizer_type is torch.optim.SGD else 0.5
        for multiple in branch.multiples:
            rate = self.session.base_rate * multiple**power
            for seed in range(self.plan.seeds):
                done = [(end.batch_size, end.seed) for end in self.branches]
                if (planned * multiple, seed) not in done:
                    end = self._train_branch(planned * multiple, rate, seed, branch.examples)
                    self.branches.append(end)
                    self.session.ledger.append({"kind": "branch", **asdict(end)})
            self.chosen[planned * multiple] = None
        return goal

    def _train_branch(self, size: int, rate: float, seed: int, examples: int) -> BranchEnd:
        begun = time.monotonic()
        lane = self._lane(size, rate, seed)
        steps = math.ceil(examples / size)
        first = steps - max(1, math.ceil(_BRANCH_END * steps)) + 1
        stride = max(1, (steps - first) // _BRANCH_EVALUATIONS)
        losses = []
        for step in range(1, steps + 1):
            lane.step((0,))
            self._tell("branch", step, size)
            if step >= first and (steps - step) % stride == 0:
                losses += lane.losses((0,))
        whole = all(map(math.isfinite, losses))
        return BranchEnd(
            batch_size=size,
            learning_rate=rate,
            seed=seed,
            loss=math.fsum(losses) / len(losses) if whole else None,
            taken=steps,
            evaluations=len(losses),
            seconds=time.monotonic() - begun,
        )

    # --- runs ---------------------------------------------------------------------------------------------

    def _train(self, wanted: Sequence[_Key], goal: Goal, beaten_at: float | None) -> None:
        """Train what is not known yet, side by side where that is faster."""
        keys = [key for key in wanted if not self._is_known(key)]
        if not keys:
            return
        size, rivals = keys[0].batch_size, keys[0].stage == _COARSE
        together = len(keys) > 1 and self._stacks(size)
        for group in [keys] if together else [[key] for key in keys]:
            lanes = self._stacked(group) if together else self._single(group[0])
            arrivals = train_to_goal(
                lanes,
                len(group),
                goal,
                beaten_at=beaten_at,
                rivals=rivals,
                on_step=lambda step: self._tell("training", step, size),
            )
            self._finish(group, arrivals)
            arrived = [found.steps for found in arrivals if found.steps is not None]
            if rivals and arrived:
                beaten_at = min([*arrived, beaten_at] if beaten_at is not None else arrived)

    def _is_known(self, key: _Key) -> bool:
        """A run of the first stage that ended of itself need not be made again in the second."""
        earlier = self.runs.get(replace(key, stage=_COARSE))
        return key in self.runs or (earlier is not None and earlier.outcome != "beaten")

    def _run(self, key: _Key) -> TrainingRun:
        return self.runs[key] if key in self.runs else self.runs[replace(key, stage=_COARSE)]

    def _finish(self, keys: Sequence[_Key], arrivals: Sequence[Arrival]) -> None:
        """Keep finished runs, all of a stack in one line of the ledger."""
        entry = {
            "kind": "runs",
            "runs": [{**asdict(key), **asdict(arrival)} for key, arrival in zip(keys, arrivals, strict=True)],
        }
        self._remember(entry)
        self.session.ledger.append(entry)

    def _remember(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "branch":
            self.branches.append(BranchEnd(**{key: entry[key] for key in entry if key != "kind"}))
        if entry["kind"] == "stacks":
            self.stacks[entry["batch_size"]] = entry["value"]
        for found in entry.get("runs", ()):
            key = _Key(found["batch_size"], found["point"], found["seed"], found["stage"])
            self.runs[key] = TrainingRun(
                batch_size=key.batch_size,
                learning_rate=self.session.rate(key.point),
                seed=key.seed,
                steps=found["steps"],
                examples=found["taken"] * key.batch_size,
                evaluations=found["evaluations"],
                seconds=found["seconds"],
                reached=found["outcome"] == "reached",
                outcome=found["outcome"],
                lowest_loss=found["lowest_loss"],
            )

    def _single(self, key: _Key) -> SingleLane:
        return self._lane(key.batch_size, self.session.rate(key.point), key.seed)

    def _lane(self, size: int, rate: float, seed: int) -> SingleLane:
        return SingleLane(
            self.task,
            self.start,
            self.session.optimizer(self.task.parameters, rate),
            batch_size=size,
            seed=self._draw_seed(seed),
            evaluation=self.session.evaluation,
            max_grad_norm=self.session.config.training.max_grad_norm,
        )

    def _stacked(self, keys: Sequence[_Key]) -> StackedLanes:
        return StackedLanes(
            self.task,
            self.start,
            self.session.optimizer,
            batch_size=keys[0].batch_size,
            rates=[self.session.rate(key.point) for key in keys],
            seeds=[self._draw_seed(key.seed) for key in keys],
            evaluation=self.session.evaluation,
            max_grad_norm=self.session.config.training.max_grad_norm,
        )

    def _draw_seed(self, seed: int) -> int:
        return self.session.config.probe.seed + 1_000_003 * seed

    def _stacks(self, size: int) -> bool:
        """Whether runs at this batch size are faster side by side, and the same; tried once and kept."""
        if size not in self.stacks:
            small = sum(p.numel() for p in self.task.parameters) <= _LARGEST_STACKED
            fixed = not self.session.findings.stochastic and not held_batch_norms(self.task.model.train())
            worth = small and fixed and self._stacking_pays(size)
            self.stacks[size] = worth
            self.session.ledger.append({"kind": "stacks", "batch_size": size, "value": worth})
        return self.stacks[size]

    def _stacking_pays(self, size: int) -> bool:
        keys = [_Key(size, -4 * PER_DOUBLING - i, 0, _COARSE) for i in range(_TRIED_RUNS)]
        single = self._single(keys[0])
        alone = _seconds(lambda: single.step((0,)))
        weights = [p.detach().clone() for p in self.task.parameters]
        try:
            stacked = self._stacked(keys)
            together = _seconds(lambda: stacked.step(range(_TRIED_RUNS)))
            losses = stacked.losses(range(_TRIED_RUNS))
        except Exception:  # torch.func refuses much that trains well by itself, with errors of many kinds
            return False
        same = all(
            torch.allclose(one, other, rtol=_SAME, atol=_SAME * float(one.abs().max()))
            for one, other in zip(weights, stacked.weights(0), strict=True)
        )
        return same and all(map(math.isfinite, losses)) and together < _WORTH * _TRIED_RUNS * alone

    # --- the prediction -----------------------------------------------------------------------------------

    def _trajectory(self) -> tuple[dict[str, Any], ...]:
        """Probe along the best run nearest to the critical batch size; empty where there is none."""
        for entry in self.session.ledger.entries:
            if entry["kind"] == "trajectory":
                return tuple(entry["points"])
        arrived = sorted(size for size, point in self.chosen.items() if point is not None)
        found = fit_hyperbola(arrived, [self._steps(size) for size in arrived])
        if found is None or self.session.optimizer_type not in KNOWN:
            return ()
        size = min(arrived, key=lambda size: abs(np.log(size) - found.log_critical))
        point = self.chosen[size]
        assert point is not None
        best = _Key(size, point, 0, _FINE)
        steps = self._run(best).steps or 0.0
        lane, points, step = self._single(best), [], 0
        spent = sum(run.examples for run in self.runs.values())
        settings = ProbeSettings(
            precision=0.2,
            budget_seconds=1e9,
            max_examples=max(_FEWEST_PROBE_EXAMPLES, round(_PROBE_SHARE * spent)),
            seed=self.session.config.probe.seed,
        )
        for target in sorted({max(1, round(part * steps)) for part in _PROBED}):
            while step < target:
                lane.step((0,))
                step += 1
            self.task.model.train()
            self.task.preconditioner = preconditioner(lane.optimizer, self.task.parameters)
            measured = probe(self.task, settings, step=step, on_progress=lambda _: self._tell("probe", 0))
            assert measured.loss is not None
            points.append(
                {
                    "step": step,
                    "loss": measured.loss,
                    "analysis": None
                    if measured.analysis is None or not measured.analysis.law_holds
                    else [
                        asdict(measured.analysis.noise_scale),
                        asdict(measured.analysis.simple_noise_scale),
                    ],
                    "gradient_examples": measured.gradient_examples,
                    "evaluation_examples": measured.evaluation_examples,
                    "batch_size": size,
                    "learning_rate": self.session.rate(point),
                }
            )
        self.task.preconditioner = None
        self.session.ledger.append({"kind": "trajectory", "points": points})
        return tuple(points)

    def _tell(self, phase: str, step: int, size: int | None = None) -> None:
        seconds = time.monotonic() - self.begun
        self.on_progress(
            SweepProgress(
                phase=phase,
                step=step,
                batch_size=size,
                sizes_done=len(self.chosen),
                sizes_planned=max(self.planned_sizes, len(self.chosen)),
                runs=len(self.runs),
                seconds=seconds,
            )
        )
        if self.plan.budget is not None and seconds > self.plan.budget:
            raise BudgetSpentError


def _order(key: _Key) -> tuple[int, int, int, int]:
    return key.batch_size, key.point, key.seed, key.stage


def _mean_steps(runs: Sequence[TrainingRun]) -> float | None:
    """Geometric mean over seeds; None where one did not arrive."""
    steps = [run.steps for run in runs if run.steps is not None]
    return math.exp(math.fsum(map(math.log, steps)) / len(steps)) if len(steps) == len(runs) else None


def _seconds(step: Callable[[], None]) -> float:
    """The shortest of a few steps, after one to warm up."""
    times = []
    for _ in range(_TRIED_STEPS):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return min(times[1:])
