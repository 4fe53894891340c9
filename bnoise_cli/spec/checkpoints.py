"""Where a checkpoint keeps what it holds: the files of one, as a name in the config gives it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from bnoise_cli.spec.source import is_file

#: What a Hugging Face folder calls its weights, or the index of the files they are spread over; the first counts.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
#: What transformers' Trainer keeps beside them.
OPTIMIZER, TRAINER = "optimizer.pt", "trainer_state.json"


def weights_file(path: Path) -> Path | None:
    """The file of weights, or its index, that a file or folder stands for; None where there is none."""
    return next((file for file in (path, *(path / name for name in WEIGHTS)) if is_file(file)), None)


def spread_files(index: Path) -> list[Path]:
    """The files that an index spreads the weights over.

    Raises:
        ValueError: it is no such index, or names files outside its folder.
        OSError: it cannot be read.
    """
    content = json.loads(index.read_text(encoding="utf-8"))
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError("it has no weight_map")
    names = sorted({str(name) for name in places.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise ValueError(f"it names {outside[0]}, which is not in its folder")
    return [index.parent / name for name in names]


def files_of(path: Path) -> list[Path]:
    """Every file that a measurement from this checkpoint reads tensors from."""
    weights = weights_file(path)
    if weights is None or weights == path:
        return [path]
    files = [weights]
    if weights.suffix == ".json":
        with suppress(OSError, ValueError, RecursionError):  # who reads the weights says so
            files += spread_files(weights)
    optimizer = path / OPTIMIZER
    return [*files, optimizer] if is_file(optimizer) else files
