"""Examples by index: independent draws from the dataset, put into batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset, default_collate

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.user_code import user_code

Indices = NDArray[np.int64]


class Draws:
    """One stream of random choices; streams of different keys are independent of one another.

    Examples and masks come from streams of their own, so that the examples drawn do not depend on how
    many micro-batches the memory makes of them.
    """

    def __init__(self, *key: int) -> None:
        examples, masks = np.random.SeedSequence(key).spawn(2)
        self._examples, self._masks = np.random.default_rng(examples), np.random.default_rng(masks)

    def indices(self, count: int, length: int) -> Indices:
        """`count` independent uniform draws from `length` examples, with replacement."""
        return self._examples.integers(length, size=count)

    def seed(self) -> int:
        """A seed for torch's own stream: the dropout masks of one batch."""
        return int(self._masks.integers(2**63))


class Batches:
    """A dataset with its collate function and the device its batches go to.

    Args:
        streamed: whether `dataset` is only the beginning of a stream.
    """

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any] | None,
        device: torch.device,
        *,
        streamed: bool = False,
    ) -> None:
        self.streamed = streamed
        self.dataset = dataset
        self.device = device
        self._collate = collate
        self._tensors = _as_tensors(dataset) if collate is None else None
        with user_code("the dataset's length"):
            self.length = len(dataset if self._tensors is None else self._tensors[0])
        if self.length < 2:
            raise RunError(
                f"the probe needs a dataset of two examples or more; it found {self.length}. "
                "Check the dataset's path and split."
            )

    def fetch(self, indices: Indices) -> Any:
        """The examples at `indices` as one batch on the device.

        Raises:
            RunError: the dataset or the collate function failed, or the examples do not stack.
        """
        if self._tensors is not None:
            chosen = torch.from_numpy(indices)
            batch: Any = [tensor[chosen] for tensor in self._tensors]
            return _to(batch if len(batch) > 1 else batch[0], self.device)
        with user_code(f"reading {len(indices)} examples from the dataset"):
            if hasattr(self.dataset, "__getitems__"):
                examples = list(self.dataset.__getitems__(indices.tolist()))
            else:
                examples = [self.dataset[index] for index in indices.tolist()]
        collate = self._collate if self._collate is not None else default_collate
        with user_code(
            f"putting {len(examples)} examples into one batch",
            remedy="Make every example the same shape, or name a `collate:` function that pads them.",
        ):
            batch = collate(examples)
        return _to(batch, self.device)


def _as_tensors(dataset: Any) -> tuple[torch.Tensor, ...] | None:
    """The tensors behind a dataset that only indexes tensors: reading them at once is the same."""
    if type(dataset) is TensorDataset:
        return dataset.tensors
    if isinstance(dataset, torch.Tensor):
        return (dataset,)
    if (
        isinstance(dataset, tuple | list)
        and dataset
        and all(isinstance(item, torch.Tensor) and item.ndim > 0 for item in dataset)
        and len({len(item) for item in dataset}) == 1
    ):
        return tuple(dataset)
    return None


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _to(item, device) for key, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_to(item, device) for item in batch))
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        return [_to(item, device) for item in batch]
    return batch
