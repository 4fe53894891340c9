"""The number of torch threads on which a CPU takes the passes of a task fastest."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bnoise_cli.measurement.task.batches import Draws, Stream
from bnoise_cli.measurement.task.gradients import seconds_per_gradient_example
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.records import Threads

_GROUP = Path("/sys/fs/cgroup")
#: Longer passes are of large tensors, which gain from every core.
_SMALL_SECONDS = 0.25
#: Numbers of threads are compared in turns, so often and so long at most.
_ROUNDS, _MOST_SECONDS = 5, 1.0
#: Another number must be faster than the usual one by this factor; merely chosen.
_WORTH = 1.15


def quickest_threads(task: Task, seed: int) -> Threads | None:
    """The number of threads to measure with; None: torch's own number, which stays set in any case.

    Tried are one thread and, in a container whose CPU quota is below the cores that torch sees, as many as the quota.
    The ranks of a run share their cores as torchrun says.
    """
    usual = torch.get_num_threads()
    if usual == 1 or task.ranks.size > 1 or task.parameters[0].device.type != "cpu":
        return None
    tried = sorted({1, min(usual, math.ceil(cpu_quota() or usual)), usual}, reverse=True)
    least = dict.fromkeys(tried, math.inf)
    draws, begun = Draws(seed, Stream.DRY_RUN), time.monotonic()
    with preserved(task.model, seed):
        for _ in range(_ROUNDS):
            for number in tried:
                with use_threads(number):
                    least[number] = min(least[number], seconds_per_gradient_example(task, draws))
                if least[number] * task.at_once > _SMALL_SECONDS:
                    return None
            if time.monotonic() - begun > _MOST_SECONDS:
                break
    best = min(tried, key=least.__getitem__)
    faster = least[usual] / least[best]
    return Threads(number=best, usual=usual, times_faster=faster) if faster > _WORTH else None


@contextmanager
def use_threads(number: int | None) -> Iterator[None]:
    """Compute on so many torch threads, and afterwards on as many as before; None changes nothing."""
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)


def cpu_quota() -> float | None:
    """The cores' worth of time that the container of this process may use; None: no limit is set, or none is known.

    Source: the kernel's documentation of cgroups, cpu.max (version 2) and cpu.cfs_quota_us (version 1).
    """
    try:
        if (_GROUP / "cpu.max").exists():
            quota, period = (_GROUP / "cpu.max").read_text().split()
        else:
            quota = (_GROUP / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (_GROUP / "cpu" / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError):
        return None
