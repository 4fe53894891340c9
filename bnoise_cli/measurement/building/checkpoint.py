"""Read a checkpoint without running its code."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.spec.checkpoints import OPTIMIZER, TRAINER, WEIGHTS, spread_files, weights_file
from bnoise_cli.spec.source import is_file
from bnoise_cli.storage import read_plain

#: Keys under which training scripts keep the model's weights in a larger checkpoint.
_NESTED = ("model", "state_dict", "model_state_dict")
#: Keys of the optimizer's state. Lightning keeps a list of states.
_OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optimizer_states")
#: Keys of the number of training steps taken (Lightning, plain scripts, nanoGPT). An epoch is not a step.
COUNTERS = ("global_step", "step", "iter_num", "iteration")
#: Largest trainer_state.json that is read, in bytes. It grows with the length of training.
_MOST_JSON = 1 << 28
#: Classes of pathlib, as Lightning keeps them among the hyperparameters; an object of one opens no file. Python 3.13
#: moved them.
_PATHS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (PurePath, f"{module}.{name}")
    for module in ("pathlib", "pathlib._local")
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
]
#: Above this number a float skips integers.
_MOST_STEPS = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights, and optimizer state and step counter if the file has them.

    Attributes:
        path: the file or folder.
        weights: by the names in the file. They may be a map of the file, so copy what is to be kept.
        optimizer_state: as an optimizer's `state_dict()` gave it, unchecked; None if there is none.
        step: training steps taken; None if the checkpoint does not say.
    """

    path: Path
    weights: Mapping[str, Tensor]
    optimizer_state: Any
    step: int | None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.safetensors` file, a torch file with `weights_only`, or a Hugging Face folder of either.

    A torch file is a state dict of the model, or a mapping that also holds the optimizer's state and a counter, as
    training scripts, Lightning and nanoGPT save it.

    Raises:
        CallError: safetensors is needed and not installed.
        RunError: a file is missing or torn, needs code to run, or holds no state dict.
    """
    file = weights_file(path)
    if file is None:
        raise RunError(
            f"the checkpoint {path} must be a file of weights, or a folder with one of {', '.join(WEIGHTS)}; "
            "there is none now. Keep it until the probe is done."
        )
    weights: Mapping[str, Tensor]
    if file.suffix == ".json":
        weights = {
            name: value for part in _spread(file) for name, value in _weights(_read(part), part).items()
        }
    else:
        content = _read(file)
        weights = _weights(content, file)
        if file == path:
            whole = content if weights is not content else {}
            return Checkpoint(
                path=path, weights=weights, optimizer_state=_optimizer_state(whole), step=_step(whole)
            )
    optimizer, trainer = path / OPTIMIZER, path / TRAINER
    return Checkpoint(
        path=path,
        weights=weights,
        optimizer_state=_read(optimizer) if is_file(optimizer) else None,
        step=_step(_read_json(trainer)) if is_file(trainer) else None,
    )


def _read(path: Path) -> Any:
    """The content of a file, on the CPU.

    Raises:
        CallError, RunError: as `read_checkpoint`.
    """
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise CallError(
                f"{path.name} needs the package safetensors, which is not installed: pip install safetensors"
            ) from None
        try:
            tensors = dict(load_file(path))
        except Exception as error:
            raise RunError(f"the checkpoint {path} is not a readable safetensors file: {error}") from None
        _require_plain_tensors(tensors, path)
        return tensors
    try:
        with torch.serialization.safe_globals(_PATHS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise RunError(
            f"the checkpoint {path} holds more than weights and plain values, and bnoise runs no code from a "
            "checkpoint. Save state dicts and numbers alone, as in torch.save({'model': model.state_dict(), "
            "'optimizer': optimizer.state_dict(), 'step': step}, path). "
            + (f"It asks for {code[1]}." if code is not None else "")
        ) from None
    except Exception as error:
        raise RunError(f"the checkpoint {path} cannot be read: {_first_line(error)}") from None
    _require_plain_tensors(content, path)
    return content


def _can_be_mapped(path: Path) -> bool:
    """Whether torch can map a file, so that only the tensors in use are read.

    Only the present format can be mapped. Compressed archives cannot: torch maps the bytes as they are.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def _require_plain_tensors(content: Any, path: Path) -> None:
    """
    Raises:
        RunError: a tensor is complex, quantized, nested or sparse, or has no values.
    """
    for name, tensor in _tensors_in(content, ()):
        kinds = {
            "complex": tensor.is_complex(),
            "meta": tensor.is_meta,
            "quantized": tensor.is_quantized,
            "nested": tensor.is_nested,
            "sparse": tensor.layout is not torch.strided,
        }
        if kind := next((kind for kind, found in kinds.items() if found), None):
            raise RunError(
                f"the checkpoint {path} must hold dense tensors of real numbers; `{name}` is a {kind} tensor. "
                "Save it as a plain tensor, or leave it out."
            )


def _tensors_in(content: Any, place: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested mappings and lists, with its dotted path."""
    if isinstance(content, Tensor):
        yield ".".join(place), content
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(content, Mapping):
        items = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    for key, item in items:
        yield from _tensors_in(item, (*place, str(key)))


def _weights(content: Any, path: Path) -> Mapping[str, Tensor]:
    """The state dict inside the content of a file; `content` itself if it is one."""
    found = content
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            found = content[key]
            break
    if not isinstance(found, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise RunError(
            f"the checkpoint {path} must hold a state dict, alone or under one of {', '.join(_NESTED)}. "
            "Save model.state_dict()."
        )
    return found


def _optimizer_state(content: Mapping[str, Any]) -> Any:
    kept = [content[key] for key in _OPTIMIZERS if isinstance(content.get(key), Mapping | list)]
    found = next((state for state in kept if state), None)
    return found[0] if isinstance(found, list) else found


def _step(content: Any) -> int | None:
    """The first key that holds a number of steps."""
    for key in COUNTERS:
        value: Any = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if type(value) in (int, float) and 0 <= value <= _MOST_STEPS and value == int(value):
            return int(value)
    return None


def _spread(index: Path) -> list[Path]:
    try:
        parts = spread_files(index)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"the checkpoint {index} must be an index of weights as save_pretrained writes it ({error}). "
            "Save the model again."
        ) from None
    if missing := [part.name for part in parts if not is_file(part)]:
        raise RunError(
            f"the checkpoint {index} spreads the weights over {len(parts)} files; not there: "
            f"{', '.join(missing[:5])}. Copy the whole folder."
        )
    return parts


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_plain(path, _MOST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"the checkpoint's {path} must be JSON with global_step, as transformers writes it; it cannot be read "
            f"({_first_line(error)}). Copy it again, or remove it."
        ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
