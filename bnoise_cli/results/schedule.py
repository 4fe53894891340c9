"""The batch sizes along training that the probed noise scales suggest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bnoise_cli.maths.trajectory import (
    adaptive_batch_size,
    adaptive_gamma,
    trajectory_critical_batch_size,
)
from bnoise_cli.records import Limits, Schedule, TrajectoryPoint


def scheduled(
    points: Sequence[TrajectoryPoint], batch_size: int
) -> tuple[tuple[TrajectoryPoint, ...], Schedule | None]:
    """The balanced adaptive schedule: every point with its batch size, and what the whole would take.

    Without a value at every point there is none: the exchange rate is B_crit of the whole stretch, which then is
    not known.

    Args:
        points: probed points of one run, without batch sizes.
        batch_size: B, at which the run between them was trained, in examples.
    """
    scales = [point.noise_scale.value for point in points if point.noise_scale.high is not None]
    known = [scale for scale in scales if scale is not None]
    if len(points) < 2 or len(known) < len(points):
        return tuple(points), None
    steps = [point.step for point in points]
    rate = trajectory_critical_batch_size(known, steps, batch_size)
    gamma = adaptive_gamma(known, steps, batch_size)
    ratio = 1 + math.sqrt(gamma)
    schedule = Schedule(exchange_rate=rate, gamma=gamma, steps_ratio=ratio, examples_ratio=ratio)
    return tuple(_with_batch(point, rate) for point in points), schedule


def _with_batch(point: TrajectoryPoint, rate: float) -> TrajectoryPoint:
    found = point.noise_scale
    assert found.value is not None
    assert found.high is not None
    return replace(
        point,
        batch_size=adaptive_batch_size(found.value, rate),
        batch_size_limits=Limits(
            low=adaptive_batch_size(found.low, rate), high=adaptive_batch_size(found.high, rate)
        ),
    )
