"""Datasets of token ids: windows of token files and of text files, and single texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from bnoise_cli.data.files import fingerprint, local_file

Window = tuple[Tensor, Tensor] | dict[str, Tensor]
#: The label that torch's criteria and transformers ignore.
_IGNORED = -100


class Windows(Dataset[Window]):
    """Windows of `context` token ids in one long text. Each window is an example.

    Args:
        tokens: all ids, shape (length,), integers.
        context: tokens in a window.
        stride: distance between the beginnings of two windows; by default `context`, so that windows do not overlap.
            nanoGPT draws beginnings at random, which is a stride of 1: neighbouring windows overlap, and draws are
            still independent.
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
        """Read several examples at once."""
        begin = np.asarray(indices, dtype=np.int64)[:, None] * self.stride
        rows = self.tokens[begin + np.arange(self.context + self._after)]
        ids = torch.from_numpy(rows.astype(np.int64))
        if self.form == "transformers":
            return [{"input_ids": row, "labels": row} for row in ids]
        return [(row[:-1], row[1:]) for row in ids]


class TokenFile(Windows):
    """A file of consecutive token ids, such as nanoGPT's `train.bin`. It is mapped, not loaded into memory.

    Args:
        path: the file.
        dtype: type of the ids, "uint16" or "uint32".
    """

    def __init__(
        self,
        path: str,
        context: int,
        dtype: Literal["uint16", "uint32"] = "uint16",
        stride: int | None = None,
        form: Literal["pair", "transformers"] = "pair",
    ) -> None:
        file = local_file(path, "token ids")
        if dtype not in ("uint16", "uint32"):
            raise ValueError(f"`dtype` must be uint16 or uint32; found {dtype!r}")
        if file.stat().st_size % np.dtype(dtype).itemsize:
            raise ValueError(f"{file} has {file.stat().st_size} bytes, which are no whole number of {dtype}")
        super().__init__(np.memmap(file, dtype=dtype, mode="r"), context, stride, form)
        self.content_hash = fingerprint([file])


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
        file, files = local_file(path, "text"), [local_file(path, "text")]
        if tokenizer is None:
            tokens: NDArray[Any] = np.frombuffer(file.read_bytes(), dtype=np.uint8)
        else:
            files.append(local_file(tokenizer, "a tokenizer"))
            text = file.read_text(encoding="utf-8")
            tokens = np.array(_tokenizer(files[1]).encode(text).ids)
        super().__init__(tokens, context, stride, form)
        self.content_hash = fingerprint(files)


class Texts(Dataset[dict[str, Tensor]]):
    """Texts as token ids of unequal length.

    An example has `input_ids` and equal `labels`. `padded` makes batches of examples.

    Args:
        texts: strings, or rows with a column of strings, such as a dataset of Hugging Face's datasets.
        tokenizer: a `tokenizer.json` of Hugging Face's tokenizers (pip install tokenizers); by default bytes.
        column: the name of that column, if rows are mappings.
        context: longer texts are cut to this number of tokens.
    """

    def __init__(
        self, texts: Sequence[Any], context: int, tokenizer: str | None = None, column: str = "text"
    ) -> None:
        if context < 2:
            raise ValueError(f"`context` must be at least 2; found {context}")
        self.texts, self.context, self.column = texts, context, column
        self._tokenizer = None if tokenizer is None else _tokenizer(local_file(tokenizer, "a tokenizer"))

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.texts[index]
        if isinstance(row, Mapping) and self.column not in row:
            raise KeyError(f"no column {self.column!r} in a row; it has {', '.join(map(str, row))}")
        text = row[self.column] if isinstance(row, Mapping) else row
        found = list(text.encode()) if self._tokenizer is None else self._tokenizer.encode(text).ids
        ids = torch.tensor(found[: self.context], dtype=torch.int64)
        return {"input_ids": ids, "labels": ids}


def padded(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """A collate function for examples of unequal length.

    It pads with 0, pads labels with -100, and adds an `attention_mask`. Single numbers are stacked.
    """
    batch: dict[str, Tensor] = {}
    for key in examples[0]:
        rows = [torch.as_tensor(example[key]) for example in examples]
        filling = _IGNORED if key == "labels" else 0
        stacked = torch.stack(rows) if rows[0].ndim == 0 else pad_sequence(rows, True, filling)
        batch[key] = stacked
    if "attention_mask" not in batch and "input_ids" in batch:
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return batch


def returned_loss(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    """An objective for models that return (logits, loss) when given inputs and next tokens, as nanoGPT's model does."""
    _, loss = model(*batch)
    return loss  # type: ignore[no-any-return]


def _tokenizer(file: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError("a tokenizer file needs the package tokenizers: pip install tokenizers") from error
    return Tokenizer.from_file(str(file))
