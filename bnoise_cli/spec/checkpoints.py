"""The files of a checkpoint, found from the file or folder that the config names."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from bnoise_cli.spec.source import is_file
from bnoise_cli.storage import read_plain

#: Names of weights in a Hugging Face folder, or of the index of several weight files. The first that exists counts.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
#: The optimizer state that the Trainer of transformers keeps beside the weights.
OPTIMIZER, TRAINER = "optimizer.pt", "trainer_state.json"
#: Bytes of an index; a model of a thousand layers has a megabyte.
_MOST_JSON = 1 << 24


def weights_file(path: Path) -> Path | None:
    """The file of weights, or its index, in a file or folder that the config names; None if there is none."""
    return next((file for file in (path, *(path / name for name in WEIGHTS)) if is_file(file)), None)


def spread_files(index: Path) -> list[Path]:
    """The weight files that an index names.

    Raises:
        ValueError: the file is not such an index, or it names files outside its folder.
        OSError: the index cannot be read.
    """
    content = json.loads(read_plain(index, _MOST_JSON))
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
        with suppress(OSError, ValueError, RecursionError):  # reading the weights reports it
            files += spread_files(weights)
    optimizer = path / OPTIMIZER
    return [*files, optimizer] if is_file(optimizer) else files
