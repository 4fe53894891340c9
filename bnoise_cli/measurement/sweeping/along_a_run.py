"""The probe along a run of the sweep: what it predicts for the same stretch of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bnoise_cli.measurement.outcome import StopReason
from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.sweeping.known_runs import KnownRuns
from bnoise_cli.measurement.sweeping.sweep_task import SweepTask
from bnoise_cli.measurement.task.preconditioner import preconditioner

#: Where the probe looks, in parts of the run's steps.
PLACES = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Half width of the interval that ends a probe early.
_PRECISION = 0.2


def probe_along(
    shared: SweepTask,
    known: KnownRuns,
    *,
    batch_size: int,
    point: int,
    steps: float,
    max_examples: int,
    on_progress: Callable[[], None],
) -> list[dict[str, Any]]:
    """Train the run of the first seed again and probe on the way, by its optimizer's own preconditioner.

    Each probe is kept at once, so that a sweep that is stopped here goes on with the next one.

    Args:
        point: the run's learning rate on the grid.
        steps: of that run to the goal.
        max_examples: gradient examples of each probe, so that it repeats exactly.

    Returns:
        Of each point: step, loss, noise scales as plain data (None where the law does not hold), examples.
    """
    task, rate, step, points = shared.task, shared.rate(point), 0, []
    lane = shared.lane(batch_size, rate, 0)
    settings = ProbeSettings(
        precision=_PRECISION, budget_seconds=1e9, max_examples=max_examples, seed=shared.config.probe.seed
    )
    for target in sorted({max(1, round(place * steps)) for place in PLACES}):
        while step < target:
            lane.step((0,))
            step += 1
        which = {"batch_size": batch_size, "point": point, "step": step}
        if (earlier := known.fact("probed", **which)) is not None:
            points.append(earlier)
            continue
        task.model.train()
        with task.preconditioned(preconditioner(lane.optimizer, task.trainable)):
            measured = probe(task, settings, step=step, on_progress=lambda _: on_progress())
        if measured.stop is StopReason.INTERRUPTED:
            raise KeyboardInterrupt
        if measured.failure is not None:
            raise measured.failure
        found = measured.analysis
        holds = found is not None and found.law_holds
        points.append(
            {
                "step": step,
                "loss": measured.loss,
                "noise_scale": asdict(found.noise_scale) if found is not None and holds else None,
                "simple_noise_scale": asdict(found.simple_noise_scale)
                if found is not None and holds
                else None,
                "gradient_examples": measured.gradient_examples,
                "evaluation_examples": measured.evaluation_examples,
                "batch_size": batch_size,
                "learning_rate": rate,
            }
        )
        known.add_fact("probed", points[-1], **which)
    return points
