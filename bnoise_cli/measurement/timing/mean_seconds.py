"""How long something takes on the machine as it is, for an estimate."""

from __future__ import annotations

from collections.abc import Callable

from bnoise_cli import clock

#: Work is repeated so often and so long at least, unless the first time was longer than the last of these.
_TIMES, _SECONDS, _LONG = 3, 0.1, 2.0


def mean_seconds(work: Callable[[], object]) -> float:
    """The mean time after one to warm up; what takes long is done once. Other programs count: they will be there."""
    begun = clock.perf_counter()
    work()
    if (first := clock.perf_counter() - begun) > _LONG:
        return first
    begun, done = clock.perf_counter(), 0
    while done < _TIMES or clock.perf_counter() - begun < _SECONDS:
        work()
        done += 1
    return (clock.perf_counter() - begun) / done
