"""The processes that measure together, and what they exchange."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from bnoise_cli import clock
from bnoise_cli.errors import BnoiseError, LostRankError, RunError

T = TypeVar("T")
E = TypeVar("E", bound=BnoiseError)
#: Tensors are exchanged in pieces of about this many bytes. Larger pieces are no faster and need memory.
_PIECE = 1 << 25
#: How long a rank waits for the reason that another rank published before it ended.
_SECONDS_TO_SAY_WHY = 2.0
#: Polling interval of the store.
POLLING = 0.05
_FAILURE = "bnoise/failure"


class Ranks:
    """Equal processes, each with a rank. All of them must make the same calls in the same order.

    The methods are named after those of torch.distributed; a trailing underscore means in place.

    Args:
        store: where a rank leaves messages before it ends; None for a single process.

    Attributes:
        rank, size: the number of this process, and how many there are. Rank 0 decides what depends on time, and
            it alone reports.
        published: whether an error has ended the measurement on this rank.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        self.rank, self.size, self._store = rank, size, store
        self.published = False

    def all_gather(self, value: T) -> list[T]:
        """The value of every rank, in the order of ranks, on all of them.

        Raises:
            LostRankError: another rank has ended or does not answer; all methods below raise it too.
        """
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _lost():
            dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: T) -> T:
        """The value of rank 0, on all ranks."""
        if self.size == 1:
            return value
        found = [value]
        with _lost():
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def all_reduce(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks in float64, the same on all ranks."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(list(values), dtype=torch.float64)
        with _lost():
            dist.all_reduce(sums)
        return [float(value) for value in sums]

    def shard(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """This rank's share of some examples. Shares differ by at most one example and may be empty."""
        return part if self.size == 1 else np.array_split(part, self.size)[self.rank]

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over the ranks, in place."""
        if self.size > 1:
            self._in_pieces(tensors, lambda flat: dist.all_reduce(flat))

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of rank 0, in place."""
        if self.size > 1:
            self._in_pieces(tensors, lambda flat: dist.broadcast(flat, src=0))

    def first_failure(self, failure: Exception | None) -> Exception | None:
        """The failure of the first rank that has one, on all ranks; None if no rank has one."""
        if self.size == 1 or not self.all_reduce([failure is not None])[0]:
            return failure
        named = None if failure is None else type(failure)(f"on rank {self.rank}: {failure}")
        return next(told for told in self.all_gather(named) if told is not None)

    def publish(self, error: E) -> E | RunError:
        """Publish why this rank stops. If it stops because another rank died, return that rank's published reason.

        Call it wherever an error is kept instead of raised further.
        """
        if self._store is None:
            return error
        self.published = True
        if not isinstance(error, LostRankError):
            self.publish_text(str(error))
            return error
        if self.rank == 0:  # torchrun now ends the other processes; rank 0 stores the result first
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self._published_reason() or error

    def publish_text(self, text: str) -> None:
        """Publish why this rank stops, unless another rank has published a reason before."""
        assert self._store is not None
        self._store.compare_set(_FAILURE, "", f"on rank {self.rank}: {text}")

    def _published_reason(self) -> RunError | None:
        """Why another rank ended; None if it did not say in time."""
        assert self._store is not None
        until = clock.monotonic() + _SECONDS_TO_SAY_WHY
        try:
            if not wait_for_key(self._store, _FAILURE, until):
                return None
            return RunError(self._store.get(_FAILURE).decode())
        except RuntimeError:  # rank 0 kept the store and has ended
            return None

    def _in_pieces(self, tensors: Sequence[Tensor], exchange: Callable[[Tensor], Any]) -> None:
        for piece in _pieces(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in piece])
            with _lost():
                exchange(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in piece])
            with torch.no_grad():
                torch._foreach_copy_(
                    list(piece), [part.view_as(t) for part, t in zip(parts, piece, strict=True)]
                )


#: A single process.
ALONE = Ranks()


def wait_for_key(store: Store, key: str, until: float) -> bool:
    """Whether some rank sets `key` before the time `until`. Polls, so that Ctrl-C can end the wait."""
    while not store.check([key]):
        if clock.monotonic() > until:
            return False
        time.sleep(POLLING)
    return True


@contextmanager
def _lost() -> Iterator[None]:
    """Turn the RuntimeError of a collective, which means that another rank is gone, into LostRankError."""
    try:
        yield
    except RuntimeError as error:
        raise LostRankError.of(str(error)) from None


def _pieces(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in groups of one type and about `_PIECE` bytes."""
    piece: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if piece and (size >= _PIECE or tensor.dtype != piece[0].dtype):
            yield piece
            piece, size = [], 0
        piece.append(tensor)
        size += tensor.numel() * tensor.element_size()
    if piece:
        yield piece
