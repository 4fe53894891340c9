"""The number of torch threads on which a CPU takes the passes of a task fastest."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bnoise_cli import clock
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.gradients import add_gradient
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.records import Threads

_GROUP = Path("/sys/fs/cgroup")
#: If a pass on one thread takes longer than this, its tensors are large, and every core helps.
_SMALL_SECONDS = 0.25
#: Passes of the micro-batch are compared, and passes of this many micro-batches: torch shares only large tensors among
#: threads, and the size of passes is chosen later.
_LARGER = 16
#: Numbers of threads are compared in turns: the most rounds, and the most seconds.
_ROUNDS, _MOST_SECONDS = 6, 1.5
#: Another number must be faster than the usual one by this factor; merely chosen.
_WORTH = 1.15


def quickest_threads(task: Task, seed: int, most_seconds: float = math.inf) -> Threads | None:
    """The number of threads to measure with; None: torch's own number, which stays set in any case.

    Tried are one thread and, in a container whose CPU quota is below the cores that torch sees, as many as the quota.
    The ranks of a run share their cores as torchrun says.

    Args:
        most_seconds: nothing is tried if a single round would take longer.
    """
    usual = torch.get_num_threads()
    if usual == 1 or task.ranks.size > 1 or task.parameters[0].device.type != "cpu":
        return None
    tried = sorted({1, min(usual, math.ceil(cpu_quota() or usual)), usual})
    least = dict.fromkeys(tried, math.inf)
    draws, begun = Draws(seed, Stream.DRY_RUN), clock.perf_counter()
    with preserved(task.model, seed):
        with use_threads(1):
            own, whole = _pass_seconds(task, draws)
            if _LARGER * own > _SMALL_SECONDS or 2 * _LARGER * len(tried) * whole > most_seconds:
                return None
        for _ in range(_ROUNDS):
            for number in tried:
                with use_threads(number):
                    passes = _LARGER * _seconds(task, draws, 1) + _seconds(task, draws, _LARGER)
                    least[number] = min(least[number], passes)
            if clock.perf_counter() - begun > _MOST_SECONDS:
                break
    best = min(tried, key=least.__getitem__)
    faster = least[usual] / least[best]
    return Threads(number=best, usual=usual, times_faster=faster) if faster > _WORTH else None


def _pass_seconds(task: Task, draws: Draws) -> tuple[float, float]:
    """The time of this process in a pass of the micro-batch on one thread, after one to warm up; and by the wall clock.

    By the wall clock a busy CPU would look like large tensors.
    """
    _seconds(task, draws, 1)
    begun = time.process_time()
    whole = _seconds(task, draws, 1)
    return time.process_time() - begun, whole


def _seconds(task: Task, draws: Draws, times: int) -> float:
    """The time of a forward and backward pass on `times` micro-batches of examples."""
    own = task.micro_batch_size
    into, count = task.zeros(), min(times * task.at_once, task.batches.length)
    indices = draws.indices(count, task.batches.length)
    task.take_micro_batch(count)
    try:
        begun = clock.perf_counter()
        add_gradient(task, into, indices, draws)
        return clock.perf_counter() - begun
    finally:
        task.take_micro_batch(own)


@contextmanager
def use_threads(number: int | None) -> Iterator[None]:
    """Compute on `number` torch threads inside the block; None changes nothing."""
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
