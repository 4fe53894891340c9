"""Datasets of parallel arrays in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from bnoise_cli.data.files import fingerprint, local_file


class Arrays(TensorDataset):
    """A dataset of parallel arrays. Example i consists of row i of each array.

    Args:
        paths: `.npy` files, one array each; or a single `.npz` or `.safetensors` file.
        names: the arrays to take from that single file, in this order; by default all of them, sorted by name.
    """

    def __init__(self, paths: str | Sequence[str], names: Sequence[str] | None = None) -> None:
        files = [local_file(path, "arrays") for path in ([paths] if isinstance(paths, str) else paths)]
        arrays = _named(files[0], names) if len(files) == 1 and files[0].suffix != ".npy" else _plain(files)
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays of one length are needed; found {lengths}")
        super().__init__(*arrays.values())
        self.content_hash = fingerprint(files)


def _plain(files: Sequence[Path]) -> dict[str, Tensor]:
    if wrong := [str(file) for file in files if file.suffix != ".npy"]:
        raise ValueError(f"several files must be .npy; found {', '.join(wrong)}")
    return {file.name: _tensor(np.load(file, allow_pickle=False)) for file in files}


def _named(file: Path, names: Sequence[str] | None) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        found = load_file(file)
    elif file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            found = {name: _tensor(archive[name]) for name in archive.files}
    else:
        raise ValueError(f"a file ending in .npy, .npz or .safetensors is needed; found {file}")
    if missing := [name for name in names or () if name not in found]:
        raise ValueError(f"{file} has no {', '.join(missing)}; it has {', '.join(sorted(found))}")
    return {name: found[name] for name in (names or sorted(found))}


def _tensor(array: NDArray[Any]) -> Tensor:
    """A tensor of a usable type: float64 becomes float32, as in models.

    Unsigned integers become int64, so that they can be indices.
    """
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    elif array.dtype.kind == "u" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    return torch.from_numpy(array)
