"""The processes that measure together, as torchrun starts them, and what they tell one another."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from bnoise_cli.errors import BnoiseError, CallError, LostRankError, RunError

T = TypeVar("T")
E = TypeVar("E", bound=BnoiseError)
#: A rank that says nothing for so long is lost. Long, because a first batch may have to be prepared; a process that
#: has ended is noticed at once.
TIMEOUT = timedelta(minutes=10)
#: Tensors are summed in pieces of about so many bytes: larger ones are no faster and need memory.
_PIECE = 1 << 25
#: How long a rank that ended may take to have said why.
_SECONDS_TO_SAY_WHY = 2.0
#: How long the ranks may take to find one another and their devices.
_MEETING = timedelta(minutes=2)
#: How long one that will not join waits for the first to hear it, which has torch to import.
_PARTING = timedelta(seconds=20)
#: How often a rank asks for the word of another one, and how long rank 0 leaves the others to hear its last.
_ASKING, _HEARING = 0.05, 0.3
_FAILURE, _DEVICE, _END = "bnoise/failure", "bnoise/device", "bnoise/end"


class Ranks:
    """Equal processes, each with a rank. All of them must make the same calls in the same order.

    Args:
        store: where a rank leaves word before it ends; None for a process by itself.

    Attributes:
        rank, size: this one of how many; rank 0 decides what depends on time, and alone reports.
        explained: whether something has ended the measurement on this rank.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        self.rank, self.size, self._store = rank, size, store
        self.explained = False

    def gather(self, value: T) -> list[T]:
        """What every rank gave, by rank.

        Raises:
            LostRankError: another rank has ended or says nothing; so do all methods below.
        """
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _lost():
            dist.all_gather_object(found, value)
        return found

    def share(self, value: T) -> T:
        """What rank 0 gave, on all of them."""
        if self.size == 1:
            return value
        found = [value]
        with _lost():
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks in float64, the same on all of them."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(list(values), dtype=torch.float64)
        with _lost():
            dist.all_reduce(sums)
        return [float(value) for value in sums]

    def own(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """This rank's share of some examples, as even as can be; may be empty."""
        return part if self.size == 1 else np.array_split(part, self.size)[self.rank]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over the ranks, in place."""
        if self.size > 1:
            self._in_pieces(tensors, lambda flat: dist.all_reduce(flat))

    def take_over(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of rank 0, in place."""
        if self.size > 1:
            self._in_pieces(tensors, lambda flat: dist.broadcast(flat, src=0))

    def agree(self, failure: Exception | None) -> Exception | None:
        """The failure of the first rank that has one, on all of them."""
        if self.size == 1 or not self.total([failure is not None])[0]:
            return failure
        named = None if failure is None else type(failure)(f"on rank {self.rank}: {failure}")
        return next(told for told in self.gather(named) if told is not None)

    def explain(self, error: E) -> E | RunError:
        """Leave word of what ends this rank; where that is the end of another one, what ended that.

        To be called wherever an error is kept instead of raised further.
        """
        if self._store is None:
            return error
        self.explained = True
        if not isinstance(error, LostRankError):
            self._say(str(error))
            return error
        if self.rank == 0:  # whoever started the ranks now ends the rest; what was measured is stored first
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self._told() or error

    def _say(self, text: str) -> None:
        assert self._store is not None
        self._store.compare_set(_FAILURE, "", f"on rank {self.rank}: {text}")

    def _told(self) -> RunError | None:
        """Why another rank ended, if it said so in time."""
        assert self._store is not None
        until = time.monotonic() + _SECONDS_TO_SAY_WHY
        try:
            if not _comes(self._store, _FAILURE, until):
                return None
            return RunError(self._store.get(_FAILURE).decode())
        except RuntimeError:  # the store went with rank 0
            return None

    def _in_pieces(self, tensors: Sequence[Tensor], exchange: Any) -> None:
        for piece in _pieces(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in piece])
            with _lost():
                exchange(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in piece])
            with torch.no_grad():
                torch._foreach_copy_(
                    list(piece), [part.view_as(t) for part, t in zip(parts, piece, strict=True)]
                )


#: A process by itself.
ALONE = Ranks()


def world() -> tuple[int, int]:
    """(rank, number of ranks) as torchrun says them; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(choose: Callable[[], torch.device]) -> Iterator[tuple[torch.device, Ranks]]:
    """This process's device, and all processes of this call, with gloo between hosts and NCCL between GPUs.

    Raises:
        CallError: what `choose` raised on any of them.
        RunError: they do not find one another, or one of them failed.
    """
    rank, size = world()
    if size == 1:
        yield choose(), ALONE
        return
    try:
        store = _common_store(_MEETING)
        device = _chosen(choose, store, rank, size)
        # A rank that is lost must not end this process before it has stored what was measured.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"rank {rank} of {size} found no way to the others: {_first_line(error)}. Start all of them with torchrun, "
            "with the same files on every machine, and check MASTER_ADDR and MASTER_PORT."
        ) from None
    ranks = Ranks(rank, size, store)
    try:
        yield device, ranks
    except BnoiseError as error:
        raise ranks.explain(error) from error
    except Exception:
        ranks._say(traceback.format_exc())
        raise
    if (
        device.type == "cpu" and not ranks.explained
    ):  # NCCL is taken down by all together, or by the process's end
        dist.destroy_process_group()


def stay_away(why: str) -> None:
    """Leave word that this rank will not join, for the others to end with."""
    with suppress(RuntimeError, ValueError):  # the first one may have ended by the same mistake
        _common_store(_PARTING).set(f"{_DEVICE}/{world()[0]}", why)


def last_word(code: int) -> int:
    """Rank 0's exit code, on all ranks of torchrun and when rank 0 is done: another one would end or hold up the rest.

    torchrun ends the processes of a machine when one of them fails, and waits minutes for those of other machines when
    some have failed and others not.

    Args:
        code: this rank's own, which stands where rank 0 was lost.
    """
    with suppress(RuntimeError, ValueError):  # the store went with rank 0
        store = _common_store(_PARTING)
        if world()[0] == 0:
            store.set(_END, str(int(code)))
            time.sleep(_HEARING)
        elif _comes(store, _END, time.monotonic() + TIMEOUT.total_seconds()):
            code = int(store.get(_END))
            time.sleep(2 * _HEARING)  # rank 0 ends first
    return code


def _chosen(choose: Callable[[], torch.device], store: Store, rank: int, size: int) -> torch.device:
    """This rank's device, when all of them have one."""
    device, why_not = None, ""
    try:
        device = choose()
    except CallError as error:
        why_not = str(error)
    store.set(f"{_DEVICE}/{rank}", why_not)
    until = time.monotonic() + _MEETING.total_seconds()
    for other in range(size):
        if not _comes(store, f"{_DEVICE}/{other}", until):
            raise RuntimeError(f"rank {other} did not come")
        if told := store.get(f"{_DEVICE}/{other}").decode():
            raise CallError(f"on rank {other}: {told}")
    assert device is not None
    return device


def _common_store(timeout: timedelta) -> Store:
    """Where the processes of this call leave word for one another."""
    store: Store = next(rendezvous("env://", *world(), timeout=timeout))[0]
    return store


def _comes(store: Store, key: str, until: float) -> bool:
    """Whether some rank leaves this word in time; in short waits, which Ctrl-C can end."""
    while not store.check([key]):
        if time.monotonic() > until:
            return False
        time.sleep(_ASKING)
    return True


@contextmanager
def _lost() -> Iterator[None]:
    """What a collective raises is that the others are gone."""
    try:
        yield
    except RuntimeError as error:
        raise LostRankError.of(str(error)) from None


def _pieces(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
