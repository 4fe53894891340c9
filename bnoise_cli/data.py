"""Datasets in local files: token ids, text, arrays. Name them in a config as `bnoise_cli.data.TokenFile`.

Paths are relative to the current folder. Nothing is ever fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from bnoise_cli.storage import ends_hash

Window = tuple[Tensor, Tensor] | dict[str, Tensor]


class Windows(Dataset[Window]):
    """Windows of `context` token ids of one long text, each an example.

    Args:
        tokens: all ids, shape (length,), integers.
        context: tokens in a window.
        stride: from the beginning of a window to that of the next; by default `context`, so that none overlap. nanoGPT
            draws beginnings at random, which is 1; neighbours are then alike, but draws of them are as independent.
        form: "pair": inputs and next tokens, each of shape (context,), for a criterion; "transformers":
            `input_ids` and equal `labels`, which its models shift themselves.
    """

    def __init__(
        self,
        tokens: NDArray[Any],
        context: int,
        stride: int | None = None,
        form: Literal["pair", "transformers"] = "pair",
    ) -> None:
        if form not in ("pair", "transformers"):
            raise ValueError(f"`form` must be pair or transformers; found {form!r}")
        if context < 1 or (stride is not None and stride < 1):
            raise ValueError(f"`context` and `stride` must be at least 1; found {context} and {stride}")
        self.tokens, self.context, self.form = tokens, context, form
        self.stride = context if stride is None else stride
        self._after = 1 if form == "pair" else 0  # a pair needs the token after its window
        if len(self) < 1:
            raise ValueError(f"a window of {context} tokens is needed; found {len(tokens)} tokens in all")

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.context - self._after) // self.stride + 1)

    def __getitem__(self, index: int) -> Window:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Window]:
        """Several examples, read at once."""
        begin = np.asarray(indices, dtype=np.int64)[:, None] * self.stride
        rows = self.tokens[begin + np.arange(self.context + self._after)]
        ids = torch.from_numpy(rows.astype(np.int64))
        if self.form == "transformers":
            return [{"input_ids": row, "labels": row} for row in ids]
        return [(row[:-1], row[1:]) for row in ids]


class TokenFile(Windows):
    """A file of token ids one after another, as nanoGPT's `train.bin`: read where it lies, never as a whole.

    Args:
        path: the file.
        dtype: of its ids, "uint16" or "uint32".
    """

    def __init__(
        self,
        path: str,
        context: int,
        dtype: Literal["uint16", "uint32"] = "uint16",
        stride: int | None = None,
        form: Literal["pair", "transformers"] = "pair",
    ) -> None:
        file = _file(path, "token ids")
        if dtype not in ("uint16", "uint32"):
            raise ValueError(f"`dtype` must be uint16 or uint32; found {dtype!r}")
        if file.stat().st_size % np.dtype(dtype).itemsize:
            raise ValueError(f"{file} has {file.stat().st_size} bytes, which are no whole number of {dtype}")
        super().__init__(np.memmap(file, dtype=dtype, mode="r"), context, stride, form)
        self.content_hash = _fingerprint([file])


class TextFile(Windows):
    """A text file as bytes, or as the tokens of a tokenizer file.

    Args:
        path: the file, in UTF-8.
        tokenizer: a `tokenizer.json` of Hugging Face's tokenizers (pip install tokenizers); by default bytes.
    """

    def __init__(
        self,
        path: str,
        context: int,
        tokenizer: str | None = None,
        stride: int | None = None,
        form: Literal["pair", "transformers"] = "pair",
    ) -> None:
        file, files = _file(path, "text"), [_file(path, "text")]
        if tokenizer is None:
            tokens: NDArray[Any] = np.frombuffer(file.read_bytes(), dtype=np.uint8)
        else:
            files.append(_file(tokenizer, "a tokenizer"))
            tokens = _encoded(file, files[1])
        super().__init__(tokens, context, stride, form)
        self.content_hash = _fingerprint(files)


class Arrays(TensorDataset):
    """Examples in arrays that lie side by side: item i is the i-th row of each.

    Args:
        paths: `.npy` files, one array each; or a single `.npz` or `.safetensors` file.
        names: which arrays of that single file, in order; by default all, by name.
    """

    def __init__(self, paths: str | Sequence[str], names: Sequence[str] | None = None) -> None:
        files = [_file(path, "arrays") for path in ([paths] if isinstance(paths, str) else paths)]
        arrays = _named(files[0], names) if len(files) == 1 and files[0].suffix != ".npy" else _plain(files)
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays of one length are needed; found {lengths}")
        super().__init__(*arrays.values())
        self.content_hash = _fingerprint(files)


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
    """float64 becomes float32, which models have; unsigned integers become int64, which can be indices."""
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    elif array.dtype.kind == "u" and array.dtype != np.uint8:
        array = array.astype(np.int64)
    return torch.from_numpy(array)


def _encoded(file: Path, tokenizer: Path) -> NDArray[Any]:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError("a tokenizer file needs the package tokenizers: pip install tokenizers") from error
    return np.array(Tokenizer.from_file(str(tokenizer)).encode(file.read_text(encoding="utf-8")).ids)


def _file(path: str, kind: str) -> Path:
    found = Path(path).expanduser().absolute()
    if not found.is_file():
        raise FileNotFoundError(f"a file of {kind} is needed at {found}; there is none")
    return found


def _fingerprint(files: Sequence[Path]) -> str:
    return hashlib.sha256(" ".join(map(ends_hash, files)).encode()).hexdigest()
