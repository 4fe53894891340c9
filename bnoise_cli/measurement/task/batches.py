"""Examples by index, put into batches on the device."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import TensorDataset, default_collate

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.task.draws import Indices
from bnoise_cli.measurement.task.population import Population
from bnoise_cli.measurement.task.read_ahead import ReadAhead
from bnoise_cli.measurement.task.user_code import kind_of, user_code
from bnoise_cli.numbers import counted

#: Groups are numbered up to here, so that no group is drawn twice.
_GROUPS = 1 << 60
#: Bytes that are kept in memory: of a dataset for training many small runs, and of batches that are read many times.
_IN_MEMORY, _KEPT = 64 << 20, 1 << 30


class Batches:
    """A dataset with its collate function and the device its batches go to.

    Args:
        streamed: whether `dataset` is only the beginning of a stream.
        population: what a loader's sampler draws; None: all examples alike.
        loader_batch_size: the batch size of the loader that was given.

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
        population: Population | None = None,
        loader_batch_size: int | None = None,
    ) -> None:
        self.streamed, self.population, self.loader_batch_size = streamed, population, loader_batch_size
        self.dataset = dataset
        self.device = device
        self._collate = collate
        self._tensors = _as_tensors(dataset) if collate is None else None
        self._ahead: ReadAhead | None = None
        self._kept: dict[bytes, Any] | None = None
        self.group = 1
        with user_code("the dataset's length"):
            self.dataset_length = len(dataset if self._tensors is None else self._tensors[0])
        self.length = self._single = self.dataset_length
        if population is not None:
            self.length = self._single = population.length
            self.dataset_length = population.size
        if self.dataset_length < 2:
            raise RunError(
                f"the probe needs a dataset of two examples or more; it found {self.dataset_length}. "
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
        """The dataset's numbers of the examples that indices stand for."""
        if self.group > 1:
            drawn = [
                np.random.default_rng(int(index)).integers(self._single, size=self.group) for index in indices
            ]
            indices = np.concatenate(drawn)
        return indices if self.population is None else self.population.examples(indices)

    @property
    def content_hash(self) -> str | None:
        """Hash of the dataset and of what is drawn from it; None if the dataset has no `content_hash`."""
        found: str | None = getattr(self.dataset, "content_hash", None)
        if found is None or self.population is None:
            return found
        return hashlib.sha256(f"{found} {self.population.digest}".encode()).hexdigest()

    def in_memory(self) -> Batches:
        """The same batches from examples collated once, if these are small tensors; otherwise itself.

        The examples must not change between two readings. Reading thousands of small batches example by example takes
        longer than training a small model on them.
        """
        if self._tensors is not None or self._collate is not None or self.streamed:
            return self
        few = default_collate([self._item(index) for index in range(2)])
        if not isinstance(few, list) or not all(isinstance(part, torch.Tensor) for part in few):
            return self
        if self.dataset_length * sum(part[0].nbytes for part in few) > _IN_MEMORY:
            return self
        held = copy.copy(self)
        held._tensors = tuple(default_collate([self._item(i) for i in range(self.dataset_length)]))
        held._ahead = None
        return held

    def read_once(self) -> Batches:
        """The same batches, of which each is read when it is first asked for, and then kept in memory.

        A dataset that augments so gives the same examples again. Otherwise the losses of one and the same weights
        differed by up to a sixth, with digits that are moved at random.
        """
        if self._tensors is not None:
            return self
        once = copy.copy(self)
        once._ahead, once._kept = None, {}
        return once

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
        """The batch before it goes to the device, mostly in the host's memory. Raises as `fetch` does."""
        if self._kept is not None:
            return self._read_once(self._kept, indices)
        return self._read(indices) if self._ahead is None else self._ahead.get(indices)

    def on_device(self, batch: Any) -> Any:
        """A batch on its way to the device, without waiting for it."""
        return _moved(batch, self.device)

    def _read(self, indices: Indices) -> Any:
        """One batch in the host's memory, pinned if it goes to a GPU."""
        batch = self._collated(indices)
        return batch if self.device.type != "cuda" else map_tensors(batch, _pinned)

    def _read_once(self, kept: dict[bytes, Any], indices: Indices) -> Any:
        """A copy of the kept batch, because a model may change what it gets."""
        key = indices.tobytes()
        if key not in kept:
            batch = self._read(indices)
            if _bytes_of([*kept.values(), batch]) > _KEPT:
                return batch
            kept[key] = batch
        return copy.deepcopy(kept[key])

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
        with user_code(f"putting {counted(len(examples))} into one batch", remedy=self._remedy(examples)):
            return collate(examples)

    def _remedy(self, examples: list[Any]) -> str:
        """What to change if these examples do not make a batch."""
        if self._collate is not None and self._collate is not default_collate:
            return "Look for the cause in the collate function."
        leaves = tree_leaves(examples)
        wrong = [
            leaf
            for leaf in leaves
            if not isinstance(leaf, Tensor | np.ndarray | np.generic | float | int | str)
        ]
        if wrong and type(wrong[0]).__module__.startswith("PIL."):
            return (
                "Turn pictures into tensors in the dataset, as torchvision.transforms.ToTensor() does "
                "(datasets of torchvision take it as transform=)."
            )
        if wrong:
            return f"Name a `collate:` function that makes a batch of examples with {kind_of(wrong[0])}."
        return "Make every example the same shape, or name a `collate:` function that pads them."


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


def _moved(batch: Any, device: torch.device) -> Any:
    """A batch on the device; objects that move themselves, such as packed sequences and graphs, do so."""
    own = [part for part in (batch if isinstance(batch, list | tuple) else [batch]) if _moves_itself(part)]
    if not own:
        return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))
    if _moves_itself(batch):
        return batch.to(device)
    return [_moved(part, device) for part in batch]


def _bytes_of(batches: list[Any]) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(batches) if isinstance(leaf, Tensor))


def _moves_itself(part: Any) -> bool:
    return not isinstance(part, Tensor | Mapping) and callable(getattr(part, "to", None))


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in pinned memory, if it is in the host's memory."""
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
