"""Load the weights of a checkpoint into a model, also if their names differ by a prefix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile

from torch import Tensor, nn

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.building.checkpoint import Checkpoint
from bnoise_cli.measurement.task.sharding import local_part, sharded_like

Tensors = Mapping[str, Tensor]
#: torch.compile puts this into the names of the modules that it wraps.
_COMPILED = "_orig_mod"


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the weights into the model.

    Raises:
        RunError: as `fitting_weights`.
    """
    own, weights = model.state_dict(), fitting_weights(model, checkpoint)
    model.load_state_dict({name: sharded_like(value, own[name]) for name, value in weights.items()})


def fitting_weights(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights under the model's own names.

    If the names do not fit, `_orig_mod` (torch.compile) is ignored on both sides, and prefixes that all names share
    (`module.` of DataParallel, `model.` of Lightning) are removed. A tensor that the file leaves out because it is tied
    to another one is filled in.

    Raises:
        RunError: names or shapes are not the model's.
    """
    own = model.state_dict()
    readings = [_with_tied(reading, own) for reading in _readings(checkpoint.weights, own)]
    weights = min(readings, key=lambda reading: len(reading.keys() ^ own.keys()))
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [
        f"{key} is {tuple(weights[key].shape)} there and {tuple(own[key].shape)} in the model"
        for key in sorted(own.keys() & weights.keys())
        if weights[key].shape != own[key].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"missing from it: {_few(missing)}" if missing else "",
            f"unknown to the model: {_few(unexpected)}" if unexpected else "",
            f"of another shape: {_few(shapes)}" if shapes else "",
        ]
        raise RunError(
            f"the checkpoint {checkpoint.path} does not match the model ({'; '.join(part for part in parts if part)}). "
            "Give the model the arguments that the checkpoint was trained with."
        )
    return weights


def _readings(weights: Tensors, own: Tensors) -> Iterator[dict[str, Tensor]]:
    """The weights under each possible set of names, the likeliest first."""
    yield dict(weights)
    plain = {_uncompiled(name): value for name, value in weights.items()}
    names = {_uncompiled(name): name for name in own}
    if len(plain) < len(weights) or len(names) < len(own):
        return
    heads = [name.split(".")[:-1] for name in plain]
    shared = list(takewhile(lambda parts: len(set(parts)) == 1, zip(*heads, strict=False)))
    for depth in range(len(shared) + 1):
        start = sum(len(parts[0]) + 1 for parts in shared[:depth])
        yield {names.get(name[start:], name[start:]): value for name, value in plain.items()}


def _uncompiled(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _with_tied(weights: dict[str, Tensor], own: Tensors) -> dict[str, Tensor]:
    """Add further names of tensors that the file has under another name."""
    there = {_memory(own[name]): value for name, value in weights.items() if name in own}
    tied = {
        name: there[_memory(value)]
        for name, value in own.items()
        if name not in weights and _memory(value) in there
    }
    return weights | tied


def _memory(value: Tensor) -> tuple[object, ...]:
    part = local_part(value)
    return part.data_ptr() or id(value), value.shape, value.stride()


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
