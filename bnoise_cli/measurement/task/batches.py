"""Examples by index: independent draws from the dataset, put into batches on the device."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import TensorDataset, default_collate

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.task.read_ahead import ReadAhead
from bnoise_cli.measurement.task.user_code import kind_of, user_code
from bnoise_cli.numbers import count, counted

Indices = NDArray[np.int64]
#: Groups are numbered up to here: so many that none is drawn twice.
_GROUPS = 1 << 60
#: Points on the line of the sums of weights: so many that the weights are kept to 1e-12.
_POINTS = 1 << 40
#: Bytes of a dataset that are kept in memory for training many small runs.
_IN_MEMORY = 64 << 20


class Stream(IntEnum):
    """The register of random streams: every use of random numbers has one, with the words that follow the seed.

    A new use gets a new number. A number that is given to another use changes what is drawn.
    """

    # Probe. The first word is the training step of the probed point.
    PROBE_LOSS = 1  # step: the examples of the reported loss
    WHOLE_DATASET = 2  # step: dropout masks for the gradient of the whole dataset
    PILOT = 3  # step
    REPLICATE = 4  # step, replans before it, number of the replicate
    PROBE_SPEED = 5  # step: time of a gradient example
    PASS_SIZE = 6  # step: memory of a pass
    LINE_PRECISION = 7  # step: lines computed in both precisions
    COMPARED_LINE = 8  # number of the line; the seed is drawn from LINE_PRECISION
    ROUNDING_FLOOR = 9  # step
    # Checks before any measurement, and estimates.
    CHECKS = 10
    CHECK_MEMORY = 11  # memory of the largest micro-batch
    DRY_RUN = 12  # time of a gradient example
    STEP_TIMES = 13  # rank: the batches of timed training steps
    # Training.
    WARM_UP = 14
    TRAINING_RUN = 15  # runs of a sweep: one stream a seed, the same for every batch size and learning rate
    RUN_EVALUATION = 16  # the evaluation loss of a run
    EVALUATION_EXAMPLES = 17  # the examples of that loss
    HORIZON_RUN = 18  # step, batch size, replicate: one run of the horizon, the same for every learning rate
    HORIZON_EVALUATION = 19  # step: the examples on which the horizon's runs are evaluated
    # Comparisons in tests/benchmarks.
    BENCHMARK = 20
    # Losses of the same examples before and after the warm-up.
    WARM_UP_LOSS = 21
    HORIZON_MEMORY = 22  # step: memory of a pass of the horizon's runs


class Draws:
    """One stream of random choices, independent of the streams of all other keys.

    Examples and dropout masks come from two generators, so that the examples drawn do not depend on the number of
    micro-batches that the memory allows.

    Args:
        seed: of the whole measurement, -2¹²⁷ to 2¹²⁷ - 1.
        stream: what the numbers are for.
        which: up to three further words from 0 to 2⁶⁴ - 1, as the register names them.

    Raises:
        ValueError: there are more words, or one is out of range.
    """

    def __init__(self, seed: int, stream: Stream, *which: int) -> None:
        examples, masks = np.random.SeedSequence(_key(seed, stream, *which)).spawn(2)
        self._examples, self._masks = np.random.default_rng(examples), np.random.default_rng(masks)

    def indices(self, count: int, length: int) -> Indices:
        """`count` independent uniform draws from `length` examples, with replacement."""
        return self._examples.integers(length, size=count)

    def seed(self) -> int:
        """A seed for torch's own stream: the dropout masks of one batch."""
        # What `integers(2**63)` makes, in a tenth of the time.
        return int(self._masks.bit_generator.random_raw()) >> 1


def _key(seed: int, stream: Stream, *which: int) -> NDArray[np.uint32]:
    """The key as eleven 32-bit words: stream and number of further words, seed, three further words.

    The length is fixed because `SeedSequence` fills short keys up with zeros: it takes (seed, stream) for
    (seed, stream, 0).
    """
    if len(which) > 3:
        raise ValueError(f"a random stream has at most three words after its seed; found {which}")
    try:
        packed = b"".join(
            [
                int(stream).to_bytes(2, "little"),
                len(which).to_bytes(2, "little"),
                seed.to_bytes(16, "little", signed=True),
                *(word.to_bytes(8, "little") for word in (*which, 0, 0, 0)[:3]),
            ]
        )
    except OverflowError:
        raise ValueError(
            f"a seed needs -2^127 to 2^127 - 1 and the words after it 0 to 2^64 - 1; found {seed} and {which}"
        ) from None
    return np.frombuffer(packed, "<u4")


@dataclass(frozen=True, slots=True)
class Population:
    """The examples that a sampler draws, with their probabilities.

    An index stands for the example at that place; with weights, for a point on the line of their sums.
    """

    #: The class of the sampler.
    sampler: str
    #: The number of examples that can be drawn, and of the dataset.
    size: int
    of: int
    #: The number of indices.
    length: int
    #: Whether the sampler puts batches together, which are not independent draws.
    structured: bool = False
    #: Examples to draw from, with repeats.
    indices: Indices | None = None
    #: Sums of probabilities up to each example.
    sums: NDArray[np.float64] | None = None

    @classmethod
    def by_weights(cls, weights: NDArray[np.float64], *, sampler: str) -> Population:
        """Example i is drawn with probability wᵢ/Σw."""
        sums = np.cumsum(weights)
        size = int(np.count_nonzero(weights))
        return cls(sampler, size, len(weights), _POINTS, sums=sums / sums[-1])

    @classmethod
    def of_indices(cls, indices: Indices, *, of: int, sampler: str, structured: bool) -> Population:
        """All of these are drawn equally often; an example may be among them several times."""
        return cls(sampler, len(np.unique(indices)), of, len(indices), structured, indices=indices)

    def examples(self, indices: Indices) -> Indices:
        """The dataset's numbers of the examples that indices stand for."""
        if self.indices is not None:
            return self.indices[indices]
        assert self.sums is not None
        return np.searchsorted(self.sums, (indices + 0.5) / _POINTS).astype(np.int64)

    def __str__(self) -> str:
        return f"{count(self.size)} of {counted(self.of)} by its {self.sampler}"

    @property
    def digest(self) -> str:
        """Hash of what is drawn and how often."""
        kept = self.indices if self.indices is not None else self.sums
        assert kept is not None
        return hashlib.sha256(kept.tobytes()).hexdigest()


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
        self.group, self.random = 1, False
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
        """The same with all examples collated once, if they are small tensors that never change; else itself.

        Reading thousands of small batches example by example takes longer than training a small model on them.
        """
        if self._tensors is not None or self._collate is not None or self.random or self.streamed:
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
        return _moved(batch, self.device)

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


def _moves_itself(part: Any) -> bool:
    return not isinstance(part, Tensor | Mapping) and callable(getattr(part, "to", None))


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
