"""Parameters sharded over the ranks by FSDP2: each rank holds a part of every parameter."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from bnoise_cli.measurement.ranks import Ranks


def shard(model: nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Shard a model's parameters over the ranks, in place, and move it to the device part by part.

    A pass gathers repeated blocks (the items of a ModuleList or ModuleDict, and modules that transformers would not
    split) one at a time. Parameters are released after each forward pass, because the probe moves them between passes.
    """
    from torch.distributed.fsdp import fully_shard  # not in torch before 2.6; nothing else needs it

    # Models that return a view cause this warning. It is harmless here: nothing uses the output after the loss.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device.type, (ranks.size,))
    for block in [*_blocks(model), model]:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def is_sharded(tensor: Tensor) -> bool:
    """Whether every rank holds a part of this tensor."""
    return isinstance(tensor, DTensor)


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its memory; a plain tensor itself."""
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.no_grad():
        return tensor.to_local()


def sharded_like(whole: Tensor, other: Tensor) -> Tensor:
    """Shard a tensor that every rank holds whole in the same way as `other`."""
    if not isinstance(other, DTensor):
        return whole
    return distribute_tensor(whole.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def as_part_of(part: Tensor, other: Tensor) -> Tensor:
    """The sharded tensor, laid out as `other`, of which this rank holds `part`."""
    if not isinstance(other, DTensor):
        return part
    return DTensor.from_local(
        part, other.device_mesh, other.placements, run_check=False, shape=other.shape, stride=other.stride()
    )


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Repeated blocks of the model, inner ones first, without blocks that share a parameter with another module."""
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
    """The number of places in a module that hold each parameter."""
    return Counter(
        id(parameter)
        for _, part in module.named_modules(remove_duplicate=False)
        for parameter in part._parameters.values()
        if parameter is not None
    )
