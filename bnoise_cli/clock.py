"""The clock of the system, whatever user code makes of the module `time`: libraries that freeze the time replace it."""

from __future__ import annotations

import time

#: In a tuple, because such libraries also replace the functions of `time` that modules have as attributes.
_CLOCKS = (time.monotonic, time.perf_counter)


def monotonic() -> float:
    """Seconds since some moment; they never go back."""
    return _CLOCKS[0]()


def perf_counter() -> float:
    """The same with the finest resolution, for short times."""
    return _CLOCKS[1]()
