"""Load the optimizer state of a checkpoint into the config's optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.task.preconditioner import KNOWN
from bnoise_cli.measurement.task.sharding import sharded_like

#: Keys of counters and means of squares, which cannot be negative.
_NOT_NEGATIVE = {"step", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"}
#: Keys that a known optimizer keeps with some settings only.
_ALSO = {"momentum_buffer", "max_exp_avg_sq"}
Entries = Mapping[Any, Mapping[str, Any]]


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], saved: Any
) -> str | None:
    """Load the state of each parameter. Settings such as the learning rate stay as the config says.

    A state dict numbers the parameters as the training script grouped them: in the model's order, or as nanoGPT and
    transformers do, those with weight decay (ndim ≥ 2) first. The first order that fits all shapes is taken.

    Args:
        optimizer: a new one. The keys of the saved state are checked if its class is known.
        parameters: the model's trainable parameters, in its order.
        saved: what should be the `state_dict()` of the saved optimizer.

    Returns:
        None if the state was loaded; otherwise why not, and the optimizer is unchanged.

    Raises:
        RunError: the state has impossible values.
    """
    try:
        numbers = [number for group in saved["param_groups"] for number in group["params"]]
        entries: Entries = {number: dict(saved["state"].get(number, {})) for number in numbers}
    except (TypeError, KeyError, AttributeError, ValueError):
        return "it is not the state_dict of one torch optimizer"
    if len(numbers) != len(parameters):
        return f"it is of {len(numbers)} parameters and the model trains {len(parameters)}"
    if (found := _other_type(optimizer, entries)) is not None:
        return found
    if (found := _impossible(entries)) is not None:
        raise RunError(
            f"the checkpoint's optimizer state {found}. Use an earlier checkpoint, or leave the state out."
        )
    for order in _orders(parameters):
        if all(_fits(entries[number], p) for number, p in zip(numbers, order, strict=True)):
            for number, parameter in zip(numbers, order, strict=True):
                _take(optimizer, parameter, entries[number])
            return None
    return (
        "its tensors have the shapes of the parameters neither in the model's order nor with those of two and more "
        "dimensions first"
    )


def _other_type(optimizer: torch.optim.Optimizer, entries: Entries) -> str | None:
    """How the saved keys differ from the keys of this optimizer; None if they do not."""
    if type(optimizer) not in KNOWN:
        return None
    needed = _needed(optimizer)
    for entry in entries.values():
        kept = {str(key) for key, value in entry.items() if value is not None}
        if kept and (not needed <= kept or kept - needed - _ALSO):
            here = ", ".join(sorted(needed)) or "at most momentum_buffer"
            name = type(optimizer).__name__
            return f"{name} keeps {here} of each parameter, and it has {', '.join(sorted(kept))}"
    return None


def _impossible(entries: Entries) -> str | None:
    """An impossible value in a state: not finite, or a negative mean of squares; None if there is none."""
    for number, entry in entries.items():
        for key, value in entry.items():
            values = torch.as_tensor(value) if isinstance(value, Tensor | int | float) else torch.zeros(0)
            if not bool(torch.isfinite(values).all()):
                return f"is not finite: `{key}` of parameter {number}"
            if key in _NOT_NEGATIVE and bool((values < 0).any()):
                return f"is negative: `{key}` of parameter {number}"
    return None


def _needed(optimizer: torch.optim.Optimizer) -> set[str]:
    """The keys that this optimizer keeps for each parameter with its settings."""
    settings, needed = optimizer.param_groups[0], set(KNOWN[type(optimizer)].kept)
    if settings.get("amsgrad"):
        needed.add("max_exp_avg_sq")
    if needed and settings.get("momentum"):  # SGD keeps no buffer before its first step with momentum
        needed.add("momentum_buffer")
    return needed


def _orders(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    yield list(parameters)
    yield sorted(parameters, key=lambda p: p.ndim < 2)  # stable


def _fits(entry: Mapping[str, Any], parameter: Tensor) -> bool:
    def fits(key: str, value: Any) -> bool:
        if key == "step":
            return isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
        return value is None or (isinstance(value, Tensor) and value.shape == parameter.shape)

    return all(fits(key, value) for key, value in entry.items())


def _take(optimizer: torch.optim.Optimizer, parameter: Tensor, entry: Mapping[str, Any]) -> None:
    [settings] = [g for g in optimizer.param_groups if any(parameter is p for p in g["params"])]
    on_device = settings.get("capturable") or settings.get("fused")
    for key, value in entry.items():
        if key == "step":
            place = parameter.device if on_device else "cpu"
            value = torch.tensor(float(value), dtype=torch.float32, device=place)
        elif value is not None:
            value = value.detach().to(device=parameter.device, dtype=parameter.dtype, copy=True)
            value = sharded_like(value, parameter)
        optimizer.state[parameter][key] = value
