"""Parameters sharded over the ranks by FSDP2: each rank holds a part of every parameter.

FSDP and DTensor are imported where they are used, so that everything else runs on a torch that lacks or moves them.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bnoise_cli.measurement.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard(model: nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Shard a model's parameters over the ranks, in place, and move it to the device part by part.

    A pass gathers repeated blocks one at a time: the members of a ModuleList or ModuleDict, and the modules that
    transformers names as not to be split. Gathered parameters are freed after each forward pass, because bnoise
    changes the parameters between two forward passes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # torch warns about a model that returns a view. Nothing uses that view after the loss.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device.type, (ranks.size,))
    for block in [*_blocks(model), model]:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def is_sharded(tensor: Tensor) -> bool:
    """Whether every rank holds only a part of this tensor."""
    return _as_dtensor(tensor) is not None


def local_part(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds, sharing its memory; all of a tensor that is not sharded."""
    sharded = _as_dtensor(tensor)
    if sharded is None:
        return tensor
    with torch.no_grad():
        return sharded.to_local()


def sharded_like(whole: Tensor, other: Tensor) -> Tensor:
    """Shard `whole`, which every rank holds, in the same way as `other`; the ranks exchange nothing."""
    sharded = _as_dtensor(other)
    if sharded is None:
        return whole
    from torch.distributed.tensor import Shard

    [placement] = sharded.placements  # `shard` makes a mesh of one dimension
    assert isinstance(placement, Shard)
    parts = whole.to(sharded.device).chunk(sharded.device_mesh.size(), dim=placement.dim)
    rank = sharded.device_mesh.get_local_rank()
    part = parts[rank] if rank < len(parts) else parts[0].narrow(placement.dim, 0, 0)
    return as_part_of(part.clone(), other)


def as_part_of(part: Tensor, other: Tensor) -> Tensor:
    """The tensor, sharded in the way of `other`, of which this rank holds `part`."""
    sharded = _as_dtensor(other)
    if sharded is None:
        return part
    return type(sharded).from_local(
        part,
        sharded.device_mesh,
        sharded.placements,
        run_check=False,
        shape=sharded.shape,
        stride=sharded.stride(),
    )


def _as_dtensor(tensor: Tensor) -> DTensor | None:
    """The tensor as a DTensor if it is sharded. Before the module of DTensor is imported, no tensor is sharded."""
    module = sys.modules.get("torch.distributed.tensor")
    return tensor if module is not None and isinstance(tensor, module.DTensor) else None


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Repeated parts of the model, inner ones first.

    A part that shares a parameter with the rest of the model is left out: sharding it would untie the parameter.
    """
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
    """The number of places in a module that hold each parameter, by the parameter's id."""
    return Counter(
        id(parameter)
        for _, part in module.named_modules(remove_duplicate=False)
        for parameter in part._parameters.values()
        if parameter is not None
    )
