"""Examples by index: independent draws from the dataset, put into batches on the device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset, default_collate

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.task.read_ahead import ReadAhead
from bnoise_cli.measurement.task.user_code import user_code
from bnoise_cli.numbers import counted

Indices = NDArray[np.int64]
#: Groups are numbered up to here: so many that none is drawn twice.
_GROUPS = 1 << 60


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
        # What `integers(2**63)` makes, in a tenth of the time.
        return int(self._masks.bit_generator.random_raw()) >> 1


class Batches:
    """A dataset with its collate function and the device its batches go to.

    Args:
        streamed: whether `dataset` is only the beginning of a stream.

    Attributes:
        group: examples that are drawn together; an index then stands for a group of them.
        random: whether the same index gives another example every time, as with augmentation.
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
        self._ahead: ReadAhead | None = None
        self.group, self.random = 1, False
        with user_code("the dataset's length"):
            self.length = self._single = len(dataset if self._tensors is None else self._tensors[0])
        if self.length < 2:
            raise RunError(
                f"the probe needs a dataset of two examples or more; it found {self.length}. "
                "Check the dataset's path and split."
            )

    def grouped(self, size: int) -> Batches:
        """The same in groups of `size` examples, each drawn independently by the group's number."""
        groups = copy.copy(self)
        groups.group, groups._single, groups.length = size, self.length, _GROUPS
        if self._ahead is not None:
            groups.read_ahead()
        return groups

    def examples(self, indices: Indices) -> Indices:
        """The examples that indices stand for."""
        if self.group == 1:
            return indices
        drawn = [
            np.random.default_rng(int(index)).integers(self._single, size=self.group) for index in indices
        ]
        return np.concatenate(drawn)

    def read_ahead(self) -> None:
        """From now on read what is expected in the background; only for a dataset that uses no global random stream."""
        if self._tensors is None:
            self._ahead = ReadAhead(self._read)

    def expect(self, coming: Iterable[Indices]) -> None:
        """Name the batches that will be fetched next, in this order; a mistake costs time only."""
        if self._ahead is not None:
            self._ahead.expect(list(coming))

    def fetch(self, indices: Indices) -> Any:
        """The examples at `indices` as one batch on the device.

        Raises:
            RunError: the dataset or the collate function failed, or the examples do not stack.
        """
        return self.on_device(self.read(indices))

    def read(self, indices: Indices) -> Any:
        """The same where the dataset keeps its examples, mostly the host's memory; raises as `fetch` does."""
        return self._read(indices) if self._ahead is None else self._ahead.get(indices)

    def on_device(self, batch: Any) -> Any:
        """A batch on its way to the device, without waiting for it."""
        return map_tensors(batch, lambda tensor: tensor.to(self.device, non_blocking=True))

    def _read(self, indices: Indices) -> Any:
        """One batch in the host's memory, pinned where it goes to a GPU."""
        batch = self._collated(indices)
        return batch if self.device.type != "cuda" else map_tensors(batch, _pinned)

    def _item(self, index: int) -> Any:
        with user_code(f"reading example {index} of the dataset"):
            return self.dataset[index]

    def _collated(self, groups: Indices) -> Any:
        indices = self.examples(groups)
        if self._tensors is not None:
            chosen = torch.from_numpy(indices)
            batch: Any = [tensor[chosen] for tensor in self._tensors]
            return batch if len(batch) > 1 else batch[0]
        with user_code(f"reading {counted(len(indices))} of the dataset"):
            if hasattr(self.dataset, "__getitems__"):
                examples = list(self.dataset.__getitems__(indices.tolist()))
            else:
                examples = [self._item(index) for index in indices.tolist()]
        collate = self._collate if self._collate is not None else default_collate
        with user_code(
            f"putting {counted(len(examples))} into one batch",
            remedy="Make every example the same shape, or name a `collate:` function that pads them.",
        ):
            return collate(examples)


def _as_tensors(dataset: Any) -> tuple[torch.Tensor, ...] | None:
    """The tensors behind a dataset that only indexes tensors: reading them at once is the same."""
    if type(dataset) is TensorDataset:
        return dataset.tensors
    if isinstance(dataset, torch.Tensor):
        return (dataset,)
    if (
        isinstance(dataset, tuple)
        and dataset
        and all(isinstance(item, torch.Tensor) and item.ndim > 0 for item in dataset)
        and len({len(item) for item in dataset}) == 1
    ):
        return tuple(dataset)
    return None


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    """Only what is in the host's memory can be."""
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


def map_tensors(batch: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A batch of the same form with its tensors changed."""
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(item, change) for key, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(item, change) for item in batch))
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        return [map_tensors(item, change) for item in batch]
    return batch
