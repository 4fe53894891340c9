"""Weights to start from."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnoise_cli.errors import CallError, RunError

#: Keys under which training scripts keep the model's weights in a larger checkpoint.
_NESTED = ("model", "state_dict", "model_state_dict")


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a `.safetensors` file, or a torch file read with `weights_only`, into the model.

    Raises:
        CallError: safetensors is needed and not installed.
        RunError: the file is torn or needs code to run, or its keys or shapes are not the model's.
    """
    weights = _read(path)
    own = model.state_dict()
    missing = sorted(own.keys() - weights.keys())
    unexpected = sorted(weights.keys() - own.keys())
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
            f"the checkpoint {path} does not match the model ({'; '.join(part for part in parts if part)}). "
            "Give the model the arguments that the checkpoint was trained with."
        )
    model.load_state_dict(weights)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise CallError(
                f"{path.name} needs the package safetensors, which is not installed: pip install safetensors"
            ) from None
        try:
            return dict(load_file(path))
        except Exception as error:
            raise RunError(f"the checkpoint {path} is no readable safetensors file: {error}") from None
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"the checkpoint {path} holds more than weights, and bnoise runs no code from a checkpoint. "
            f"Save model.state_dict() alone. torch said: {_first_line(error)}"
        ) from None
    except Exception as error:
        raise RunError(f"the checkpoint {path} cannot be read: {_first_line(error)}") from None
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise RunError(
            f"the checkpoint {path} must hold a state dict, alone or under one of {', '.join(_NESTED)}. "
            "Save model.state_dict()."
        )
    return dict(content)


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
