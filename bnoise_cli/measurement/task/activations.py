"""How many examples fit the memory at once, from the size of the activations that a backward pass keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.task.draws import Draws
from bnoise_cli.measurement.task.memory import available_bytes
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.user_code import OutOfMemoryError
from bnoise_cli.numbers import counted

#: Activations of a micro-batch may take this fraction of what is available; gradients and temporaries come on top.
_PART = 1 / 8
#: Limit on a CPU: it gains nothing from more at once, and its allocator does not refuse in time.
_MOST_ON_CPU = 1 << 30


def fit_micro_batch(task: Task, draws: Draws) -> None:
    """Reduce `task.micro_batch_size` to what fits every rank; to be called inside `preserved`.

    On a CPU, the system would end a process that takes too much memory.
    """
    fits = most_at_once(task, draws)
    if fits < task.micro_batch_size:
        task.plan_micro_batch(fits)


def most_at_once(task: Task, draws: Draws) -> int:
    """The largest power of two of examples whose activations fit every rank, found from a few."""
    device = task.parameters[0].device
    available = available_bytes(device) or 8 * _MOST_ON_CPU
    most = min(available * _PART, _MOST_ON_CPU) if device.type == "cpu" else available * _PART
    each = _bytes_per_example(task, draws)
    fits = max(1, int(most / max(each, 1)))
    return 1 << (min(task.ranks.all_gather(fits)).bit_length() - 1)


def _bytes_per_example(task: Task, draws: Draws) -> int:
    """Bytes that autograd keeps for the backward pass of one example: the increase when the examples double.

    Begins with two and four examples, which fit the memory. If the user's code fails with them, more are tried up
    to the planned micro-batch.
    """
    size, planned = 2, task.micro_batch_size
    while True:
        try:
            return _bytes_added(task, size, draws)
        except RunError:
            if 4 * size > planned:
                break
        size *= 2
    kept = _bytes_kept(task, planned, draws)
    return 1 << 62 if kept is None else kept // planned


def _bytes_added(task: Task, size: int, draws: Draws) -> int:
    few = _bytes_kept(task, size, draws)
    more = _bytes_kept(task, 2 * size, draws) if few is not None else None
    if few is not None and more is not None:
        return max(more - few, 0) // size
    one = _bytes_kept(task, 1, draws) if few is None else few // size
    return 1 << 62 if one is None else one


def _bytes_kept(task: Task, examples: int, draws: Draws) -> int | None:
    """Bytes that autograd keeps of a forward pass; None if it does not fit."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        try:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        except (NotImplementedError, RuntimeError):  # the tensor has no storage
            kept[-id(tensor)] = tensor.numel() * tensor.element_size()
        return tensor.detach()  # an output that holds itself through its graph would stay in memory for good

    batch = task.batches.fetch(draws.indices(examples, task.batches.length))
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = task.loss(batch, draws.seed(), f"a batch of {counted(examples)}")
    except OutOfMemoryError:
        return None
    del loss
    return sum(kept.values())
