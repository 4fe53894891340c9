"""A whole call of the probe: build, check, warm up, measure at one or more points of training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.build import build_optimizer, build_task
from bnoise_cli.measurement.checks import check_task
from bnoise_cli.measurement.outcome import Measurement, ProbeRun, Progress, StopReason, WarmupProgress
from bnoise_cli.measurement.preconditioner import preconditioner
from bnoise_cli.measurement.preserve import preserved
from bnoise_cli.measurement.probe import ProbeSettings, probe
from bnoise_cli.measurement.training import Trainer
from bnoise_cli.measurement.training_steps import time_training_steps
from bnoise_cli.records import Throughput
from bnoise_cli.spec.load import Spec


class Session:
    """A task built from a spec, ready to be probed; nothing has been measured yet."""

    def __init__(self, spec: Spec, device: torch.device) -> None:
        config = spec.config
        self.config, self.device = config, device
        self.task = build_task(spec, device)
        self.optimizer = build_optimizer(spec, self.task)
        self.findings = check_task(self.task, config.probe.seed)
        self.trainer = Trainer(
            self.task,
            self.optimizer,
            batch_size=config.training.batch_size,
            max_grad_norm=config.training.max_grad_norm,
            seed=config.probe.seed,
        )
        self.steps = config.probe.at_steps or [config.probe.warmup_steps]

    def run(self, on_progress: Callable[[Progress | WarmupProgress], None]) -> ProbeRun:
        """Warm up and probe; Ctrl-C and failures after the first point keep what there is.

        Raises:
            RunError, KeyboardInterrupt: before anything was measured.
        """
        points: list[Measurement] = []
        warmup_seconds, interrupted, failure = 0.0, False, None
        try:
            for step in self.steps:
                begun = time.monotonic()
                self.trainer.train_until(
                    step, lambda done: on_progress(WarmupProgress(step=done, of=self.steps[-1]))
                )
                warmup_seconds += time.monotonic() - begun
                points.append(self._measure(step, points, on_progress))
                if points[-1].stop in (StopReason.INTERRUPTED, StopReason.FAILED):
                    break
        except KeyboardInterrupt:
            if not points:
                raise
            interrupted = True
        except RunError as error:
            if not points:
                raise
            failure = error
        group = self.optimizer.param_groups[0]
        return ProbeRun(
            points=tuple(points),
            findings=self.findings,
            from_checkpoint=self.config.checkpoint is not None,
            momentum=float(group.get("momentum") or group.get("betas", (0.0,))[0]),
            weight_decay=float(group.get("weight_decay", 0.0)),
            device=self.device_name(),
            dtype=self.task.dtype,
            dataset_length=self.task.batches.length,
            dataset_hash=getattr(self.task.batches.dataset, "content_hash", None),
            warmup_seconds=warmup_seconds,
            interrupted=interrupted or points[-1].stop is StopReason.INTERRUPTED,
            failure=failure or points[-1].failure,
        )

    def time_steps(self, run: ProbeRun, critical: float | None) -> Throughput:
        """Time training steps as the planned run takes them; to be called last, it uses the optimizer up.

        Args:
            run: the finished probe, a part of whose time this takes.
            critical: B_crit, in examples; micro-batches far beyond one device's part of it have no use.

        Raises:
            RunError: a single example does not fit, or the user's code failed.
        """
        seconds = sum(point.seconds for point in run.points)
        with preserved(self.task.model, self.config.probe.seed, on_host=True) as origin:
            return time_training_steps(
                self.task, self.optimizer, origin, self.config, critical, budget_seconds=seconds
            )

    def device_name(self) -> str:
        """The device as a person names it."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return str(self.device)

    def _measure(
        self,
        step: int,
        earlier: list[Measurement],
        on_progress: Callable[[Progress | WarmupProgress], None],
    ) -> Measurement:
        """Probe one point with its share of what is left of the budget."""
        plan = self.config.probe
        shares = len(self.steps) - len(earlier)
        seconds = plan.budget - sum(point.seconds for point in earlier)
        examples = plan.max_examples
        if examples is not None:
            examples = (examples - sum(point.gradient_examples for point in earlier)) // shares
        settings = ProbeSettings(
            batch_sizes=None if isinstance(plan.batch_sizes, str) else tuple(plan.batch_sizes),
            precision=plan.precision,
            budget_seconds=max(seconds, 0.0) / shares,
            max_examples=examples,
            seed=plan.seed,
        )
        self.task.preconditioner = preconditioner(self.optimizer, self.task.parameters)
        measurement = probe(self.task, settings, step=step, on_progress=on_progress)
        exact = getattr(self.task.model, "exact_noise_scale", None)
        if exact is None or self.task.preconditioner is not None:
            return measurement
        return dataclasses.replace(measurement, exact_noise_scale=float(exact()))
