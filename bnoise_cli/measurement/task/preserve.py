"""Give the user's model and random streams back as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnoise_cli.measurement.task.sharding import local_part

#: Objects, and items of one list or mapping, that are looked at for generators; merely chosen.
_MOST_OBJECTS, _MOST_ITEMS = 10_000, 100


@dataclass(frozen=True, slots=True)
class BufferPlace:
    """A buffer by its module and its name there; forward() may put another tensor into its place."""

    module: nn.Module
    name: str
    #: With the module's own name, as in `state_dict`.
    full_name: str


class HeldBuffers:
    """The present values of some buffers."""

    def __init__(self, places: Sequence[BufferPlace]) -> None:
        self._values = []
        for place in places:
            buffer = place.module._buffers[place.name]
            assert buffer is not None
            self._values.append((place, buffer, buffer.detach().clone()))

    def restore(self) -> None:
        """Put the same tensors with the same values back."""
        if self._values:
            with torch.no_grad():
                for place, buffer, value in self._values:
                    buffer.copy_(value)
                    place.module._buffers[place.name] = buffer

    def changed(self) -> tuple[BufferPlace, ...]:
        """The buffers that have another value or shape now."""
        return tuple(
            place for place, _, value in self._values if not _equal(place.module._buffers[place.name], value)
        )


def buffer_places(modules: Iterable[tuple[str, nn.Module]]) -> tuple[BufferPlace, ...]:
    """Every buffer of some named modules."""
    return tuple(
        BufferPlace(module, name, f"{of}.{name}" if of else name)
        for of, module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    )


def _equal(found: Tensor | None, value: Tensor) -> bool:
    if found is None or found.shape != value.shape:
        return False
    return bool(torch.all((found == value) | ((found != found) & (value != value))))


@contextmanager
def preserved(model: nn.Module, seed: int, *, on_host: bool = False) -> Iterator[list[Tensor]]:
    """Seed the global random streams, and undo everything on the way out.

    Restored bit for bit, also after an exception: parameters, buffers, gradients, every module's mode, and
    the random streams of torch (CPU and CUDA), NumPy and Python.

    Args:
        on_host: keep the copy of the parameters in the host's memory, to leave that of the device free.

    Yields:
        A copy of what this rank holds of the trainable parameters: the point θ around which lines are evaluated.
    """
    trainable = [local_part(p) for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        origin = [p.detach().to("cpu" if on_host else p.device, copy=True) for p in trainable]
        buffers = HeldBuffers(buffer_places(model.named_modules()))
    gradients = [(p, p.grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    with random_streams():
        try:
            seed_streams(seed)
            yield origin
        finally:
            with torch.no_grad():
                for parameter, value in zip(trainable, origin, strict=True):
                    parameter.copy_(value)
            buffers.restore()
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for module, mode in modes:
                module.training = mode


def seed_streams(seed: int) -> None:
    """Seed the global random streams of torch (CPU and CUDA), NumPy and Python."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def random_streams(*holders: Any) -> Iterator[None]:
    """Give back the global random streams of torch (CPU and CUDA), NumPy and Python as they were.

    Args:
        holders: objects whose own generators are given back too, such as a dataset that augments.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    undo = [back for holder in holders for back in _own_streams(holder)]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            for back in undo:
                back()


def _own_streams(holder: Any) -> Iterator[Callable[[], object]]:
    """For every generator that an object holds in its attributes, lists and mappings: what puts its state back."""
    seen: set[int] = set()
    left = [holder]
    while left and len(seen) < _MOST_OBJECTS:
        value = left.pop()
        if id(value) in seen or isinstance(value, Tensor | np.ndarray | str | bytes | int | float | type):
            continue
        seen.add(id(value))
        if isinstance(value, torch.Generator):
            yield partial(value.set_state, value.get_state())
        elif isinstance(value, random.Random):
            yield partial(value.setstate, value.getstate())
        elif isinstance(value, np.random.RandomState):
            yield partial(value.set_state, value.get_state())
        elif isinstance(value, np.random.Generator):
            yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)
        elif isinstance(value, dict):  # another mapping may read a file for every value
            left += islice(value.values(), _MOST_ITEMS)
        elif isinstance(value, list | tuple):
            left += value[:_MOST_ITEMS]
        else:
            left += getattr(value, "__dict__", {}).values()
