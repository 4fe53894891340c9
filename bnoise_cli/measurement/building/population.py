"""Which examples a DataLoader draws, and how often each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.task.population import Population
from bnoise_cli.measurement.task.user_code import kind_of, user_code
from bnoise_cli.numbers import counted

#: Samplers that draw every example equally often.
_ALIKE = (SequentialSampler, RandomSampler, DistributedSampler)
#: Most indices that are read from a sampler whose class is unknown.
_MOST = 1 << 22


def population_of(loader: DataLoader[Any]) -> Population | None:
    """What the loader's sampler draws from; None if it draws all examples alike.

    If the class of the sampler is unknown, one pass over it gives the indices to draw from, with repeats.

    Raises:
        RunError: the sampler failed, or its items are not numbers of examples.
    """
    sampler: Any = loader.batch_sampler
    structured = type(sampler) is not BatchSampler
    if not structured:
        sampler = sampler.sampler
        if isinstance(sampler, _ALIKE):
            return None
    name, length = type(sampler).__name__, len(loader.dataset)  # type: ignore[arg-type]
    if isinstance(sampler, WeightedRandomSampler) and sampler.replacement:
        weights = sampler.weights.double().numpy()
        return Population.by_weights(weights, sampler=name)
    with user_code(f"one pass over the loader's {name}"):
        drawn = list(islice(_numbers(sampler), _MOST))
    if not drawn or not all(isinstance(number, int | np.integer) or _is_number(number) for number in drawn):
        found = kind_of(drawn[0]) if drawn else "nothing"
        raise RunError(
            f"the loader's {name} must give numbers of examples (0 to {length - 1}); it gave {found}. Let `dataset:` "
            "build the dataset itself, without a loader."
        )
    indices = np.array([int(number) for number in drawn], dtype=np.int64)
    return Population.of_indices(indices, of=length, sampler=name, structured=structured)


def _numbers(sampler: Iterable[Any]) -> Iterator[Any]:
    for item in sampler:
        if isinstance(item, list | tuple):
            yield from item
        else:
            yield item


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point()


def unbatched(loader: Iterable[Any], most: int) -> tuple[list[Any], bool]:
    """The first examples of a loader whose items are batches already, and whether there are more.

    Raises:
        RunError: the loader failed, or the parts of an item do not share a first dimension.
    """
    examples: list[Any] = []
    items = iter(loader)
    with user_code("reading ready batches of the loader (batch_size=None)"):
        for item in items:
            examples += _rows(item)
            if len(examples) >= most:
                break
    more = len(examples) > most or next(items, None) is not None
    return examples[:most], more


def _rows(item: Any) -> list[Any]:
    leaves, form = tree_flatten(item)
    lengths = [len(leaf) if isinstance(leaf, Tensor) and leaf.ndim else None for leaf in leaves]
    if not leaves or lengths[0] is None or any(length != lengths[0] for length in lengths):
        shapes = ", ".join(
            str(tuple(leaf.shape)) if isinstance(leaf, torch.Tensor) else type(leaf).__name__
            for leaf in leaves[:6]
        )
        raise RunError(
            "items of a loader with batch_size=None are taken for ready batches, whose parts must share a first "
            f"dimension; one has {shapes}. Let `dataset:` build a dataset of single examples."
        )
    return [tree_unflatten([leaf[row] for leaf in leaves], form) for row in range(lengths[0])]


def require_one_dataset(built: Any) -> None:
    """
    Raises:
        RunError: several datasets, loaders or arrays of unequal length were built, or a table.
    """
    kind = type(built)
    if kind.__module__.partition(".")[0] in ("pandas", "polars"):
        raise RunError(
            f"`dataset:` must build examples by number; it built a {kind.__name__}, whose items are columns. Return "
            "a pair of tensors, as (torch.tensor(table[inputs].to_numpy()), torch.tensor(table[label].to_numpy()))."
        )
    if not isinstance(built, list | tuple) or not built or hasattr(built, "_fields"):
        return
    form = "list" if isinstance(built, list) else "tuple"
    whole = (DataLoader, torch.utils.data.Dataset)
    if all(isinstance(part, whole) for part in built):
        name = "DataLoader" if all(isinstance(part, DataLoader) for part in built) else "dataset"
        raise RunError(
            f"`dataset:` must build one dataset; it built a {form} of {counted(len(built), name)}. Return the first, "
            "if that is for training."
        )
    if isinstance(built, tuple) and all(is_array(part) for part in built):
        lengths = [len(part) for part in built]
        if len(set(lengths)) > 1:
            raise RunError(
                "`dataset:` must build arrays with one row for each example; it built a tuple of "
                f"{len(built)} with {', '.join(f'{length:,}' for length in lengths)} rows. Return those for training."
            )


def is_array(value: Any) -> bool:
    """Whether an object is a table with rows of numbers."""
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0


def as_tensors(arrays: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """NumPy arrays and tensors as tensors, without a copy if that is possible."""
    return tuple(torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays)
