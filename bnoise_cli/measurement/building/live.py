"""A model and an optimizer of the user's program: the measurement trains copies of them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.measurement.task.sharding import is_sharded
from bnoise_cli.measurement.task.user_code import kind_of

#: Where a wrapper keeps the model: DistributedDataParallel and DataParallel; torch.compile.
_WRAPPED = ("module", "_orig_mod")
#: A LightningModule holds the trainer, and with it the whole run.
_NOT_COPIED = "_trainer"
#: accelerate keeps the model's forward() here, and puts one with autocast in its place.
_FORWARD = "_original_forward"


def device_of(model: Any) -> torch.device:
    """Where the model is.

    Raises:
        CallError: it is not a module, or has no parameters.
    """
    if not isinstance(model, nn.Module):
        raise CallError(f"`model` must be a torch.nn.Module; found {kind_of(model)}.")
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise CallError(f"`model` must have parameters; {type(model).__name__} has none.")
    return parameter.device


def process_number() -> int:
    """The rank of this process in the user's own process group; 0 if there is none."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of the wrappers of DistributedDataParallel and torch.compile."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while isinstance(model, wrappers) or hasattr(model, _WRAPPED[1]):
        model = getattr(model, _WRAPPED[0] if isinstance(model, wrappers) else _WRAPPED[1])
    return model


def own_copy(model: nn.Module) -> nn.Module:
    """A copy of the model that can be trained: nothing that is done to it reaches the user's.

    Raises:
        CallError: the model is spread over processes, or is part of their exchanges.
        RunError: it cannot be copied.
    """
    model = unwrapped(model)
    if any(is_sharded(parameter) for parameter in model.parameters()):
        raise CallError(
            "a model in the memory of one process is needed; found parameters that are spread over several (FSDP). "
            "Save a checkpoint, and measure with `bnoise probe` and training.parallel: fsdp."
        )
    together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if together and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise CallError(
            "a model that one process can run is needed; its SyncBatchNorm layers wait for all others in every pass. "
            "Save a checkpoint, and measure with `bnoise probe`."
        )
    kept: dict[int, Any] = {
        id(vars(module)[_NOT_COPIED]): None for module in model.modules() if _NOT_COPIED in vars(module)
    }
    try:
        copied = copy.deepcopy(model, kept)
    except Exception as error:
        raise RunError(
            f"a copy of the model is needed to measure with, and copy.deepcopy(model) failed with "
            f"{type(error).__name__}: {error}. Measure with `bnoise probe`, which builds the model itself."
        ) from error
    for module in copied.modules():
        if vars(module).pop(_FORWARD, None) is not None:
            del module.forward
    return copied


def another(given: Any, model: nn.Module, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """A new optimizer over copies of the model's trainable parameters.

    Args:
        given: an optimizer of `model`, whose class, groups and settings the new one has; or a function that makes an
            optimizer of parameters.
        parameters: one for each trainable parameter of the model, in its order.

    Raises:
        CallError: the class takes arguments that the optimizer does not keep.
    """
    if not isinstance(given, torch.optim.Optimizer):
        made: torch.optim.Optimizer = given(list(parameters))
        return made
    copies = {id(p): copied for p, copied in zip(_trainable(model), parameters, strict=True)}
    groups = [
        {
            **{key: value for key, value in group.items() if key != "params"},
            "params": [copies[id(p)] for p in group["params"] if id(p) in copies],
        }
        for group in given.param_groups
    ]
    taken = inspect.signature(type(given)).parameters
    settings = {key: value for key, value in given.defaults.items() if key in taken}
    try:
        return type(given)([group for group in groups if group["params"]], **settings)
    except (TypeError, ValueError) as error:
        raise CallError(
            f"a second {type(given).__name__} like the one that was given is needed, and its class takes other "
            f"arguments than the optimizer keeps ({error}). Give a function instead, as in "
            f"optimizer=lambda parameters: {type(given).__name__}(parameters, lr=0.1)."
        ) from error


def continue_from(given: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copy the state of the user's optimizer into one that `another` made of it; a function has no state."""
    if not isinstance(given, torch.optim.Optimizer):
        return
    own = {id(p) for p in _trainable(model)}
    sources = [p for group in given.param_groups for p in group["params"] if id(p) in own]
    copies = [p for group in optimizer.param_groups for p in group["params"]]
    for source, parameter in zip(sources, copies, strict=True):
        if source in given.state:
            optimizer.state[parameter] = copy.deepcopy(given.state[source])


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in unwrapped(model).parameters() if p.requires_grad]
