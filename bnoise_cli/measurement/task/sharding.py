"""Parameters spread over the ranks, by FSDP2: each rank holds its part of every one."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from bnoise_cli.measurement.task.ranks import Ranks


def shard(model: nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Spread a model's parameters over the ranks, in place, and move it to the device part by part.

    Blocks that repeat (what is in a ModuleList or ModuleDict, and what transformers would not split) are gathered one
    at a time in a pass. Parameters are let go after each forward pass, since they are moved between two of them.
    """
    # Of a model that returns a view: this loss is the last to use it.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device.type, (ranks.size,))
    for block in [*_blocks(model), model]:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this is one of which every rank holds a part."""
    return isinstance(tensor, DTensor)


def local_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, sharing its memory; a plain tensor is held whole."""
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.no_grad():
        return tensor.to_local()


def sharded_like(whole: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, that every rank has, spread as another one is."""
    if not isinstance(other, DTensor):
        return whole
    return distribute_tensor(whole.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def as_part_of(part: Tensor, other: Tensor) -> Tensor:
    """What this rank holds of a tensor that is spread as another one is, as that tensor."""
    if not isinstance(other, DTensor):
        return part
    return DTensor.from_local(
        part, other.device_mesh, other.placements, run_check=False, shape=other.shape, stride=other.stride()
    )


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Parts of the model that repeat, inner ones first; none that shares a parameter with others: it stays tied."""
    holders = _holders(model)
    whole = set(getattr(model, "_no_split_modules", None) or [])
    repeated = {
        id(child)
        for module in model.modules()
        if isinstance(module, nn.ModuleList | nn.ModuleDict)
        for child in module.children()
    }
    for module in reversed(list(model.modules())):
        if module is model or next(module.parameters(), None) is None:
            continue
        holds_others = isinstance(module, nn.ModuleList | nn.ModuleDict)
        repeats = id(module) in repeated or type(module).__name__ in whole
        if repeats and not holds_others and _holders(module).items() <= holders.items():
            yield module


def _holders(module: nn.Module) -> Counter[int]:
    """In how many places of a module each parameter is."""
    return Counter(
        id(parameter)
        for _, part in module.named_modules(remove_duplicate=False)
        for parameter in part._parameters.values()
        if parameter is not None
    )
