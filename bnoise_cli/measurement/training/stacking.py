"""Try whether stacked runs are faster than single ones and reach the same weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch

from bnoise_cli import clock
from bnoise_cli.measurement.task.draws import Draws
from bnoise_cli.measurement.training.runner import Runner

#: Larger models are not stacked: their passes fill the device by themselves.
_LARGEST = 4_000_000
#: Stacking is used if it takes less than this fraction of the time; the trial takes this many steps.
_WORTH, _STEPS = 0.8, 4
#: Steps of a run between two readings of its loss, about.
_BETWEEN = 4
#: Weights of stacked runs and of single ones may differ by this fraction after the trial: the order of sums.
_SAME = 1e-3
#: The trial trains at this fraction of the config's learning rate, which diverges nowhere.
_CAREFUL = 0.25


def stacking_pays(
    runner: Runner,
    batch_size: int,
    runs: int,
    draws: Callable[[], Draws],
    *,
    most_seconds: float | None = math.inf,
) -> bool:
    """Train `runs` for a few steps both ways; False also if torch.func refuses the model.

    Args:
        draws: gives the same draws anew.
        most_seconds: about the time of stacked steps at most, if they are worth having. None: whether they are faster
            does not matter; a measurement that is to repeat exactly asks no clock.
    """
    task = runner.task
    if (
        task.ranks.size > 1
        or task.traits.stochastic
        or task.traits.random_data
        or task.traits.weighing is not None
        or task.traits.group > 1
    ):
        return False
    if sum(p.numel() for p in task.parameters) > _LARGEST:
        return False
    rates = [_CAREFUL * runner.base_rate] * runs
    single = runner.lane(batch_size, rates[0], draws())
    alone = _seconds(lambda: single.step((0,)))
    if most_seconds is not None and _STEPS * runs * _WORTH * alone > most_seconds:
        return False
    weights = [p.detach().clone() for p in task.parameters]
    alone += _seconds(lambda: single.losses((0,))) / _BETWEEN
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.func names operations that it does not speed up
            stacked = runner.stack(batch_size, rates, [draws() for _ in rates])
            together = _seconds(lambda: stacked.step(range(runs)))
            together += _seconds(lambda: stacked.losses(range(runs))) / _BETWEEN
            losses = stacked.losses(range(runs))
    except Exception:  # torch.func refuses much that trains well by itself, with errors of many kinds
        return False
    same = all(
        torch.allclose(one, other, rtol=_SAME, atol=_SAME * float(one.abs().max()))
        for one, other in zip(weights, stacked.weights(0), strict=True)
    )
    faster = most_seconds is None or together < _WORTH * runs * alone
    return same and all(map(math.isfinite, losses)) and faster


def _seconds(step: Callable[[], object]) -> float:
    """The shortest of a few steps, after one to warm up."""
    times = []
    for _ in range(_STEPS):
        begun = clock.perf_counter()
        step()
        times.append(clock.perf_counter() - begun)
    return min(times[1:])
