"""Estimate the cost of a probe from one batch."""

from __future__ import annotations

import torch

from bnoise_cli.measurement.building.build import device_name
from bnoise_cli.measurement.building.places import training_steps
from bnoise_cli.measurement.outcome import DryRun
from bnoise_cli.measurement.probing.session import Session
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.gradients import seconds_per_gradient_example
from bnoise_cli.measurement.task.passes import same_on_all
from bnoise_cli.measurement.task.preconditioner import is_identity, is_known
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.timing.mean_seconds import mean_seconds

#: Copies of the trainable parameters that a probe holds beside the model and its gradients: the start
#: of every line, the growing sum, and the block that is evaluated; P of an adaptive optimizer is one more.
_COPIES = 3


def dry_run(session: Session) -> DryRun:
    """Run one micro-batch and a few training steps, each timed after one to warm up; uses the session up."""
    task, config = session.task, session.config
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(session.device)
    with preserved(task.model, config.probe.seed), same_on_all(task):
        seconds = seconds_per_gradient_example(task, Draws(config.probe.seed, Stream.DRY_RUN))
    warmup_steps = training_steps(session.places)
    with preserved(task.model, config.probe.seed):
        step_seconds = _step_seconds(session) if warmup_steps else 0.0
    optimizer = session.optimizer
    copies = _COPIES + (is_known(optimizer) and not is_identity(optimizer, task.trainable))
    peak = torch.cuda.max_memory_allocated(session.device) if session.device.type == "cuda" else None
    return DryRun(
        device=device_name(session.device, session.ranks),
        parameters=sum(p.numel() for p in task.trainable),
        dataset_length=task.batches.dataset_length,
        micro_batch_size=task.micro_batch_size,
        steps=tuple(place.step for place in session.places),
        checkpoints=tuple(place.checkpoint.name for place in session.places if place.checkpoint is not None),
        seconds_per_example=seconds,
        warmup_seconds=step_seconds * warmup_steps,
        budget_seconds=config.probe.budget,
        extra_bytes=copies * sum(p.numel() * p.element_size() for p in task.parameters),
        peak_bytes=peak,
    )


def _step_seconds(session: Session) -> float:
    """The time of a training step of the planned run."""

    def step() -> None:
        session.trainer.train_until(session.trainer.step + 1, lambda _: None)
        if session.device.type == "cuda":
            torch.cuda.synchronize(session.device)

    return mean_seconds(step)
