"""The weight of a batch whose loss is a weighted mean: over tokens, nodes or weights instead of examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

#: The label of positions that the loss leaves out, in torch's criteria and in transformers.
IGNORED = -100
_INTEGERS = (torch.int64, torch.int32, torch.int16)


@dataclass(frozen=True, slots=True)
class Form:
    """One way to count what a mean is over: a reduction of one leaf of the batch."""

    #: Keys and positions that lead to the leaf, such as ("targets", "labels").
    path: tuple[str, ...]
    #: A key of `REDUCTIONS`.
    reduction: str
    #: The label of positions that the loss leaves out.
    ignored: int

    def count(self, batch: Any) -> float | None:
        """The count in a batch; None if it has no such leaf or the leaf has another form."""
        leaf = dict(leaves(batch)).get(self.path)
        return None if leaf is None else _reduced(leaf, self.reduction, self.ignored)

    def __str__(self) -> str:
        name = ".".join(self.path)
        return f"{self.reduction} of {f'`{name}`' if name else 'the batch'}"


@dataclass(frozen=True, slots=True)
class Weighing:
    """Counts what a batch's mean loss is over."""

    form: Form
    #: The mean count of an example.
    per_example: float

    def weight(self, batch: Any) -> float:
        """The count of a batch, in examples of average count."""
        return (self.form.count(batch) or 0.0) / self.per_example


def leaves(batch: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Every tensor of a batch with its path; lists of numbers count as tensors."""
    if isinstance(batch, Tensor):
        yield path, batch
    elif (children := _children(batch)) is not None:
        for key, item in children:
            yield from leaves(item, (*path, key))
    elif isinstance(batch, Sequence) and batch and all(isinstance(item, int | float) for item in batch):
        yield path, torch.as_tensor(batch)


def _children(batch: Any) -> list[tuple[str, Any]] | None:
    if hasattr(batch, "_asdict"):
        batch = batch._asdict()
    elif not isinstance(batch, Mapping) and callable(to_dict := getattr(batch, "to_dict", None)):
        batch = to_dict()  # a batch of torch_geometric
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        batch = vars(batch)
    if isinstance(batch, Mapping):
        return [(str(key), item) for key, item in batch.items()]
    is_list = isinstance(batch, Sequence) and not isinstance(batch, str | bytes)
    if is_list and not all(isinstance(item, int | float) for item in batch):
        return [(str(number), item) for number, item in enumerate(batch)]
    return None


#: Ways to count what a mean is over, the most common first. Each takes a leaf and the ignored label.
REDUCTIONS: dict[str, Callable[[Tensor, int], Tensor | int | None]] = {
    # Labels that the model shifts by one position, as transformers' causal language models do.
    "predicted labels": lambda x, ignored: (
        (x[..., 1:] != ignored).sum() if is_tokens(x) and x.shape[-1] > 1 else None
    ),
    "labels": lambda x, ignored: (x != ignored).sum() if x.dtype in _INTEGERS else None,
    "non-zero entries": lambda x, _: (x != 0).sum() if x.ndim else None,
    "non-zero entries but the first": lambda x, _: (x[..., 1:] != 0).sum() if x.ndim > 1 else None,
    "sum": lambda x, _: x.sum() if x.ndim == 1 else None,
    "sum less one for each": lambda x, _: (x - 1).sum() if x.ndim == 1 and x.dtype in _INTEGERS else None,
    "rows": lambda x, _: len(x) if x.ndim else None,
    "positions": lambda x, _: x.shape[0] * x.shape[1] if x.ndim > 1 else None,
}


def _reduced(leaf: Tensor, reduction: str, ignored: int) -> float | None:
    found = REDUCTIONS[reduction](leaf, ignored)
    return None if found is None else float(found)


def forms(batch: Any, ignored: int) -> Iterator[Form]:
    """Every way to count in a batch like this one, the most common first."""
    found = list(leaves(batch))
    for reduction in REDUCTIONS:
        for path, leaf in found:
            if _reduced(leaf, reduction, ignored) is not None:
                yield Form(path, reduction, ignored)


def tokens_in(batch: Any) -> int | None:
    """All tokens of a batch of `input_ids` or of integers of shape (examples, positions); None for other batches."""
    if isinstance(batch, Mapping):
        mask, ids = batch.get("attention_mask"), batch.get("input_ids")
        if isinstance(mask, Tensor):
            return int((mask != 0).sum())
        return ids.numel() if is_tokens(ids) else None
    is_pair = isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) == 2
    ids = batch[0] if is_pair else batch
    return ids.numel() if is_tokens(ids) and ids.ndim == 2 else None


def is_tokens(value: Any) -> TypeGuard[Tensor]:
    """Whether a value holds an integer for each position of each example."""
    return isinstance(value, Tensor) and value.ndim >= 2 and value.dtype in _INTEGERS
