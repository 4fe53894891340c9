"""Give the user's model and random streams back as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from bnoise_cli.measurement.task.sharding import local_part


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
        buffers = [
            (module._buffers, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
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
                for own, name, buffer, value in buffers:
                    buffer.copy_(value)
                    own[name] = buffer  # forward() may have put another in its place
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for module, mode in modes:
                module.training = mode
            random.setstate(python_state)
            np.random.set_state(numpy_state)
