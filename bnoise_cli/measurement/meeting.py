"""How the processes of one call find one another, and how they end together."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from bnoise_cli import clock
from bnoise_cli.errors import BnoiseError, CallError, RunError
from bnoise_cli.launch import here
from bnoise_cli.measurement.ranks import ALONE, Ranks, wait_for_key

#: A rank that does not answer for this long counts as lost. Long, because a first batch may have to be prepared; the
#: end of a process is noticed at once.
TIMEOUT = timedelta(minutes=10)
#: How long the ranks may take to find one another and their devices.
_MEETING = timedelta(minutes=2)
#: How long a rank that gives up stays alive so that rank 0, which may still be importing torch, can read its message.
_PARTING = timedelta(seconds=20)
#: How long rank 0 waits before it exits so that the others can read its exit code.
_HEARING = 0.3
_DEVICE, _END = "bnoise/device", "bnoise/end"


@contextmanager
def joined(choose: Callable[[], torch.device]) -> Iterator[tuple[torch.device, Ranks]]:
    """Join the processes of this call, with gloo between hosts and NCCL between GPUs. Yields the device and the ranks.

    Args:
        choose: chooses the device of this process.

    Raises:
        CallError: `choose` raised it on one of the ranks.
        RunError: the ranks do not find one another, or another rank failed.
    """
    rank, size = here().rank, here().size
    if size == 1:
        yield choose(), ALONE
        return
    try:
        store = _common_store(_MEETING)
        device = _agreed_device(choose, store, rank, size)
        # Without it NCCL ends this process when another rank is lost, before the result is stored.
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
        raise ranks.publish(error) from error
    except Exception:
        ranks.publish_text(traceback.format_exc())
        raise
    # All ranks must take NCCL down together, so its group is left to the end of the process.
    if device.type == "cpu" and not ranks.published:
        dist.destroy_process_group()


def stay_away(why: str) -> None:
    """Tell the other ranks that this one will not join, and why; they end with this message."""
    with suppress(RuntimeError, ValueError):  # rank 0 may have ended by the same mistake
        _common_store(_PARTING).set(f"{_DEVICE}/{here().rank}", why)


def common_exit_code(code: int) -> int:
    """Rank 0's exit code on every rank, returned after rank 0 has finished.

    torchrun kills the other processes of a machine as soon as one of them fails, and waits minutes for those of other
    machines if some have failed and others have not.

    Args:
        code: of this rank, which is returned if rank 0 was lost.
    """
    with suppress(RuntimeError, ValueError):  # rank 0 kept the store and has ended
        store = _common_store(_PARTING)
        if here().rank == 0:
            store.set(_END, str(int(code)))
            time.sleep(_HEARING)
        elif wait_for_key(store, _END, clock.monotonic() + TIMEOUT.total_seconds()):
            code = int(store.get(_END))
            time.sleep(2 * _HEARING)  # rank 0 ends first
    return code


def _agreed_device(choose: Callable[[], torch.device], store: Store, rank: int, size: int) -> torch.device:
    """This rank's device, after every rank has found one."""
    device, why_not = None, ""
    try:
        device = choose()
    except CallError as error:
        why_not = str(error)
    store.set(f"{_DEVICE}/{rank}", why_not)
    until = clock.monotonic() + _MEETING.total_seconds()
    for other in range(size):
        if not wait_for_key(store, f"{_DEVICE}/{other}", until):
            raise RuntimeError(f"rank {other} did not come")
        if told := store.get(f"{_DEVICE}/{other}").decode():
            raise CallError(f"on rank {other}: {told}")
    assert device is not None
    return device


def _common_store(timeout: timedelta) -> Store:
    """The key-value store that all processes of this call share."""
    store: Store = next(rendezvous("env://", here().rank, here().size, timeout=timeout))[0]
    return store


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
