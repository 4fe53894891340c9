"""How much a batch counts whose loss is a mean over tokens rather than over examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

#: The label of positions that count for nothing, in torch's criteria and in transformers.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Weighing:
    """Counts what a batch's mean loss is over."""

    count: Callable[[Any, int], int | None]
    ignored: int  # the label of positions that count for nothing
    tokens_per_example: float

    def weight(self, batch: Any) -> float:
        """The tokens of a batch that count, in examples of average length."""
        return (self.count(batch, self.ignored) or 0) / self.tokens_per_example


def _next_token_labels(batch: Any, ignored: int) -> int | None:
    """`labels` that the model shifts by one position, as transformers' causal language models do."""
    labels = _labels(batch)
    return None if labels is None else int((labels[..., 1:] != ignored).sum())


def _own_labels(batch: Any, ignored: int) -> int | None:
    """`labels` at their own positions, as in masked language models and token classification."""
    labels = _labels(batch)
    return None if labels is None else int((labels != ignored).sum())


def _targets(batch: Any, ignored: int) -> int | None:
    """The second part of (x, y), where it holds an integer for each position."""
    found = batch[1] if _is_pair(batch) else None
    return int((found != ignored).sum()) if _is_tokens(found) else None


def _attended(batch: Any, ignored: int) -> int | None:  # noqa: ARG001
    """The positions of `attention_mask`."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return int((mask != 0).sum()) if isinstance(mask, Tensor) else None


def _next_attended(batch: Any, ignored: int) -> int | None:
    """The same less the first of each example, of which nothing is predicted."""
    found = _attended(batch, ignored)
    return None if found is None else found - len(batch["attention_mask"])


#: What a mean over tokens can be over, the usual first: each counts in a batch, or says None where it has no such form.
FORMS = (_next_token_labels, _own_labels, _targets, _attended, _next_attended)


def tokens_in(batch: Any) -> int | None:
    """All tokens of a batch, where its form shows them: `input_ids`, or integers of shape (examples, positions)."""
    if isinstance(batch, Mapping):
        found = _attended(batch, IGNORED)
        ids = batch.get("input_ids")
        return ids.numel() if found is None and _is_tokens(ids) else found
    ids = batch[0] if _is_pair(batch) else batch
    return ids.numel() if _is_tokens(ids) and ids.ndim == 2 else None


def _labels(batch: Any) -> Tensor | None:
    found = batch.get("labels") if isinstance(batch, Mapping) else None
    return found if _is_tokens(found) else None


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) == 2


def _is_tokens(value: Any) -> TypeGuard[Tensor]:
    return (
        isinstance(value, Tensor)
        and value.ndim >= 2
        and value.dtype in (torch.int64, torch.int32, torch.int16)
    )
