"""Give the user's model and random streams back as they were."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bnoise_cli.measurement.task.sharding import local_part


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
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
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
            random.setstate(python_state)
            np.random.set_state(numpy_state)
