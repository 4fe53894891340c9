"""A whole call of the probe: build, check, warm up, measure at one or more points of training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bnoise_cli import clock
from bnoise_cli.errors import BnoiseError, CallError, MistakeError, RunError
from bnoise_cli.measurement.building.build import build_optimizer, build_task, device_name, resume
from bnoise_cli.measurement.building.checkpoint import read_checkpoint
from bnoise_cli.measurement.building.optimizer_state import load_optimizer_state
from bnoise_cli.measurement.building.places import Place, places_to_probe
from bnoise_cli.measurement.building.weights import fitting_weights, load_weights
from bnoise_cli.measurement.outcome import (
    HorizonProgress,
    LossChange,
    Measurement,
    ProbeRun,
    Progress,
    StopReason,
    WarmupProgress,
)
from bnoise_cli.measurement.probing.ahead import ONE_STEP_SHARE, Budget, fewest_examples, look_ahead
from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.checks import check_task, losses_of_parts
from bnoise_cli.measurement.probing.pace import check_in_time, find_pace
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.ranks import ALONE, Ranks
from bnoise_cli.measurement.task.preconditioner import is_known, momentum_of, preconditioner
from bnoise_cli.measurement.task.threads import quickest_threads, use_threads
from bnoise_cli.measurement.task.user_code import enough_memory
from bnoise_cli.measurement.timing.training_steps import time_training_steps
from bnoise_cli.measurement.training.steps import Trainer, evaluating
from bnoise_cli.records import Law, Threads, Throughput
from bnoise_cli.spec.load import Spec

#: Is told how far a probe has come.
OnProgress = Callable[[Progress | HorizonProgress | WarmupProgress], None]
#: Part of the budget that trying numbers of threads may take.
_THREADS = 0.1


class Session:
    """A task built from a spec, ready to be probed; nothing has been measured yet."""

    def __init__(self, spec: Spec, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.spec, self.config, self.device, self.ranks = spec, spec.config, device, ranks
        self.task = build_task(spec, device, ranks)
        self.optimizer, self.trainer = self._fresh()
        resume(spec, self.optimizer)
        starts = [self._checked(path) for path in spec.checkpoints()]
        self.places = places_to_probe(self.config.probe, starts, spec.step)
        plan = self.config.probe
        # A measurement that must repeat asks no clock. What passes do for the first time, as compiling, does not count.
        self._pace = find_pace(self.task, plan.seed) if plan.max_examples is None else None
        begun = clock.monotonic()
        self.findings = (
            check_task(self.task, plan.seed)
            if self._pace is None
            else check_in_time(self.task, plan.seed, plan.budget, self._pace)
        )
        self._seconds_of_checks = clock.monotonic() - begun
        self.unused_states: list[str] = []
        self.warmup: LossChange | None = None
        self._losses_before: list[float] = []
        self._threads: Threads | None = None

    def run(self, on_progress: OnProgress) -> ProbeRun:
        """Warm up and probe; Ctrl-C and failures after the first point keep what there is.

        A CPU computes on the number of threads that is fastest, unless the result must repeat exactly.

        Raises:
            RunError, KeyboardInterrupt: before anything was measured.
        """
        begun, plan = clock.monotonic(), self.config.probe
        if plan.max_examples is None:
            self._threads = quickest_threads(self.task, plan.seed, _THREADS * plan.budget)
        self._seconds_of_checks += clock.monotonic() - begun
        with use_threads(self._threads.number if self._threads else None):
            return self._run(on_progress)

    def _run(self, on_progress: OnProgress) -> ProbeRun:
        points: list[Measurement] = []
        warmup_seconds, interrupted, failure = 0.0, False, None
        try:
            for place in self.places:
                begun = clock.monotonic()
                with enough_memory("training"):
                    self._go_to(place, on_progress)
                warmup_seconds += clock.monotonic() - begun
                points.append(self._measure(place.step, points, on_progress))
                if points[-1].stop in (StopReason.INTERRUPTED, StopReason.FAILED):
                    break
        except KeyboardInterrupt:
            if not points:
                raise
            interrupted = True
        except BnoiseError as error:
            if not points:
                raise
            error = self.ranks.publish(error)
            failure = error if isinstance(error, RunError) else RunError(str(error))
        except Exception as error:
            if not points:
                raise
            failure = self.ranks.publish(MistakeError.of(error))
        group = self.optimizer.param_groups[0]
        return ProbeRun(
            points=tuple(points),
            findings=self.findings,
            from_checkpoint=bool(self.spec.checkpoints()),
            warmup=self.warmup,
            unused_states=tuple(self.unused_states),
            momentum=momentum_of(self.optimizer),
            weight_decay=float(group.get("weight_decay", 0.0)),
            device=device_name(self.device, self.ranks),
            dtype=self.task.dtype,
            dataset_length=self.task.batches.dataset_length,
            dataset_hash=self.task.batches.content_hash,
            warmup_seconds=warmup_seconds,
            interrupted=interrupted or points[-1].stop is StopReason.INTERRUPTED,
            failure=failure or points[-1].failure,
        )

    def time_steps(self, run: ProbeRun, law: Law | None) -> Throughput:
        """Time training steps as the planned run takes them; to be called last, it uses the optimizer up.

        Args:
            run: the finished probe.
            law: of training; micro-batches far beyond one device's part of B_crit have no use.

        Raises:
            RunError: a single example does not fit, or the user's code failed.
        """
        return time_training_steps(
            self.task,
            self.optimizer,
            self.config,
            law,
            group=run.findings.group,
            budget_seconds=self.config.probe.budget,
            threads=self._threads,
        )

    def _fresh(self) -> tuple[torch.optim.Optimizer, Trainer]:
        """A new optimizer, and the planned run's training with it."""
        optimizer, training = build_optimizer(self.spec, self.task), self.config.training
        trainer = Trainer(
            self.task,
            optimizer,
            batch_size=training.batch_size,
            max_grad_norm=training.max_grad_norm,
            seed=self.config.probe.seed,
        )
        return optimizer, trainer

    def _checked(self, path: Path) -> tuple[Path, int | None]:
        """A checkpoint and its counter; found out before anything is measured whether it fits the model."""
        checkpoint = read_checkpoint(path)
        fitting_weights(self.task.model, checkpoint)
        return path, checkpoint.step

    def _go_to(self, place: Place, on_progress: OnProgress) -> None:
        """Load the checkpoint that a place begins with, and train from there."""
        if place.checkpoint is not None:
            self._start_from(place.checkpoint)
        if place.warmup_steps == self.trainer.step:
            return
        seed = self.config.probe.seed
        if self.trainer.step == 0:
            self._losses_before = losses_of_parts(self.task, seed)
        several = len(self.config.checkpoints) > 1
        start = place.checkpoint.name if several and place.checkpoint is not None else None
        of = self.places[-1].warmup_steps
        self.trainer.train_until(
            place.warmup_steps, lambda done: on_progress(WarmupProgress(step=done, of=of, start=start))
        )
        with evaluating(self.optimizer):
            before, after = np.array(self._losses_before), np.array(losses_of_parts(self.task, seed))
        self.warmup = LossChange(
            before=float(before.mean()),
            after=float(after.mean()),
            error=float((after - before).std(ddof=1) / np.sqrt(len(after))),
        )

    def _start_from(self, path: Path) -> None:
        """Take over weights and, where it fits, the state of the optimizer."""
        checkpoint = read_checkpoint(path)
        load_weights(self.task.model, checkpoint)
        self.optimizer, self.trainer = self._fresh()
        if checkpoint.optimizer_state is None:
            return
        why_not = load_optimizer_state(self.optimizer, self.task.trainable, checkpoint.optimizer_state)
        if why_not is not None:
            self.unused_states.append(f"that of {path.name} was not used: {why_not}")

    def _preconditioner(self) -> list[torch.Tensor] | None:
        """P at the optimizer's present state."""
        try:
            return preconditioner(self.optimizer, self.task.trainable)
        except CallError as error:
            if not self.unused_states:
                raise
            raise CallError(f"{error} The checkpoint's optimizer state: {self.unused_states[-1]}.") from None

    def _measure(
        self,
        step: int,
        earlier: list[Measurement],
        on_progress: OnProgress,
    ) -> Measurement:
        """Probe one point with its share of what is left of the budget."""
        plan = self.config.probe
        shares = len(self.places) - len(earlier)
        spent = self._seconds_of_checks + sum(point.seconds for point in earlier)
        seconds = self.ranks.broadcast(plan.budget - spent)
        examples = plan.max_examples
        if examples is not None:
            examples = (examples - sum(point.gradient_examples for point in earlier)) // shares
        seconds = max(seconds, 0.0) / shares
        if not is_known(self.optimizer):
            budget = Budget(seconds=seconds, examples=math.inf if examples is None else examples)
            return self._without_one_step(step, budget, on_progress)
        share = 1.0 if plan.horizon == "off" or self._is_too_slow_to_look_ahead(seconds) else ONE_STEP_SHARE
        settings = ProbeSettings(
            batch_sizes=None if isinstance(plan.batch_sizes, str) else tuple(plan.batch_sizes),
            precision=plan.precision,
            budget_seconds=share * seconds,
            max_examples=examples,
            seed=plan.seed,
        )
        with enough_memory("copying the parameters"), self.task.preconditioned(self._preconditioner()):
            plain = self.task.preconditioner is None and not self.task.sharded
            measurement = probe(self.task, settings, step=step, on_progress=on_progress)
        if measurement.analysis is None and measurement.stop is StopReason.BUDGET and self._pace is not None:
            enough = self._pace.of_probe(self.findings.group) + self._seconds_of_checks
            measurement = dataclasses.replace(
                measurement, enough_seconds=max(enough, 1.5 * plan.budget) * shares
            )
        exact = getattr(self.task.model, "exact_noise_scale", None)
        if exact is not None and plain:
            measurement = dataclasses.replace(measurement, exact_noise_scale=float(exact()))
        if plan.horizon == "off":
            return dataclasses.replace(measurement, no_horizon="probe.horizon is off")
        if measurement.stop in (StopReason.INTERRUPTED, StopReason.FAILED):
            return dataclasses.replace(measurement, no_horizon="the one-step measurement ended early")
        left = Budget(
            seconds=self.ranks.broadcast(seconds - measurement.seconds),
            examples=math.inf if examples is None else examples - measurement.gradient_examples,
        )
        return look_ahead(self.task, self.optimizer, self.spec, measurement, left, on_progress)

    def _is_too_slow_to_look_ahead(self, seconds: float) -> bool:
        """Whether a point's time holds a horizon only if hardly any is left for the one-step measurement, or none."""
        if self._pace is None:
            return False
        group = self.findings.group
        examples = 3 * fewest_examples(group)  # a gradient takes as long as three forward passes
        horizon = self._pace.seconds(examples / self.task.micro_batch_size, examples)
        return (
            horizon > (1 - ONE_STEP_SHARE) * seconds or self._pace.of_probe(group) > ONE_STEP_SHARE * seconds
        )

    def _without_one_step(
        self,
        step: int,
        budget: Budget,
        on_progress: OnProgress,
    ) -> Measurement:
        """Measure a point by training runs alone: this optimizer's step is not a known diagonal times the gradient.

        Raises:
            RunError, KeyboardInterrupt: they showed nothing.
        """
        name, begun = type(self.optimizer).__name__, clock.monotonic()
        with evaluating(self.optimizer):
            losses = losses_of_parts(self.task, self.config.probe.seed)
        measured = Measurement(
            step=step,
            loss=float(np.mean(losses)),
            analysis=None,
            design=None,
            replicates=0,
            stop=StopReason.PRECISION,
            failure=None,
            seconds=clock.monotonic() - begun,
            gradient_examples=0,
            evaluation_examples=0,
            micro_batch_size=self.task.micro_batch_size,
            shortened_from=None,
            no_one_step=f"the one-step noise scale is not known for {name}",
        )
        found = look_ahead(self.task, self.optimizer, self.spec, measured, budget, on_progress)
        if found.horizon is not None:
            return found
        if found.stop is StopReason.INTERRUPTED:
            raise KeyboardInterrupt
        raise found.failure or RunError(
            f"{measured.no_one_step}, and training runs showed nothing: {found.no_horizon}."
        )
