"""Where to probe: the points of training that a config asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.building.checkpoint import COUNTERS
from bnoise_cli.spec.schema import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A point of training.

    Attributes:
        checkpoint: loaded first; None if training continues from the place before, or from initialisation.
        warmup_steps: training steps from there to this place.
        step: the step of the report: `warmup_steps` and the step of the checkpoint.
    """

    checkpoint: Path | None
    warmup_steps: int
    step: int


def places_to_probe(plan: Probe, starts: Sequence[tuple[Path, int | None]], taken: int = 0) -> list[Place]:
    """Every place, in the order of training.

    Args:
        starts: the checkpoints with their step counters.
        taken: training steps that the model has taken if there is no checkpoint.

    Raises:
        RunError: the step of one of several checkpoints is not known, or two have the same.
    """
    if len(starts) > 1:
        return _trajectory(plan.warmup_steps, starts)
    path, counted = starts[0] if starts else (None, taken)
    return [
        Place(checkpoint=None if i else path, warmup_steps=steps, step=(counted or 0) + steps)
        for i, steps in enumerate(plan.at_steps or [plan.warmup_steps])
    ]


def training_steps(places: Sequence[Place]) -> int:
    """Training steps on the way to all places."""
    starts_anew = [place.checkpoint is not None for place in places[1:]] + [True]
    return sum(place.warmup_steps for place, ends in zip(places, starts_anew, strict=True) if ends)


def _trajectory(warmup_steps: int, starts: Sequence[tuple[Path, int | None]]) -> list[Place]:
    places = [
        Place(checkpoint=path, warmup_steps=warmup_steps, step=_step(path, counted) + warmup_steps)
        for path, counted in starts
    ]
    places.sort(key=lambda place: place.step)
    for one, other in pairwise(places):
        if one.step == other.step:
            raise RunError(
                f"several checkpoints need steps that differ; {one.checkpoint} and {other.checkpoint} are both at step "
                f"{one.step - warmup_steps}. Leave one of them out."
            )
    return places


def _step(path: Path, counted: int | None) -> int:
    """The checkpoint's step counter, or else the last number in its name."""
    numbers = re.findall(r"[0-9]{1,15}", path.stem if path.is_file() else path.name)
    if counted is None and not numbers:
        raise RunError(
            f"several checkpoints need the step of each; {path} has no {', '.join(COUNTERS[:-1])} or {COUNTERS[-1]} "
            "in it, and no number in its name. Name it by its step, as in step_1000.pt or checkpoint-500."
        )
    return int(numbers[-1]) if counted is None else counted
