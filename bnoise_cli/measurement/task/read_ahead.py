"""Reading the next batches in the background, so that the device does not wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Batches that are read before they are asked for.
_DEPTH = 2


class ReadAhead:
    """Reads expected batches one after another in one thread; any other batch is read when it is asked for.

    Args:
        read: makes a batch of the examples at some indices; must not use global random streams.
    """

    def __init__(self, read: Callable[[NDArray[np.int64]], Any]) -> None:
        self._read = read
        self._asked: SimpleQueue[tuple[NDArray[np.int64], Future[Any]]] = SimpleQueue()
        # A daemon: the program need not wait for a slow disk in order to end.
        Thread(target=self._work, name="bnoise-read-ahead", daemon=True).start()
        self._coming: deque[NDArray[np.int64]] = deque()
        self._reading: deque[tuple[NDArray[np.int64], Future[Any]]] = deque()

    def expect(self, coming: Sequence[NDArray[np.int64]]) -> None:
        """Name the batches that will be asked for next. Batches that are being read are not read again."""
        known = [*(indices for indices, _ in self._reading), *self._coming]
        if len(known) >= len(coming) and all(map(np.array_equal, known, coming)):
            return
        kept = 0
        for (indices, _), wanted in zip(self._reading, coming, strict=False):
            if not np.array_equal(indices, wanted):
                break
            kept += 1
        while len(self._reading) > kept:
            self._reading.pop()[1].cancel()
        self._coming = deque(coming[kept:])
        self._go_on()

    def get(self, indices: NDArray[np.int64]) -> Any:
        """The batch at `indices`.

        Raises:
            RunError: as `read` does; a failure in the thread is tried again in the caller's.
        """
        if not self._reading or not np.array_equal(self._reading[0][0], indices):
            return self._read(indices)
        _, future = self._reading.popleft()
        self._go_on()
        try:
            return future.result()
        except Exception:  # Some files and databases can be read only by the thread that opened them.
            return self._read(indices)

    def _go_on(self) -> None:
        while self._coming and len(self._reading) < _DEPTH:
            indices = self._coming.popleft()
            asked = indices, Future[Any]()
            self._reading.append(asked)
            self._asked.put(asked)

    def _work(self) -> None:
        while True:
            indices, future = self._asked.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._read(indices))
            except BaseException as error:  # raised when the batch is asked for
                future.set_exception(error)
