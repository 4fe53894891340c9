"""The dataset that a config names, as examples by index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.building.instantiate import function_part, part
from bnoise_cli.measurement.building.population import (
    as_tensors,
    is_array,
    population_of,
    require_one_dataset,
    unbatched,
)
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.user_code import enough_memory, kind_of, user_code
from bnoise_cli.spec.load import Spec

#: A stream is cut to its first examples, this many.
_BUFFER = 4096


def build_batches(spec: Spec, device: torch.device) -> Batches:
    """The dataset with its collate function.

    From a DataLoader its dataset, its collate function and the population of its sampler are taken. The probe chooses
    order and batch sizes itself. A stream is cut to its first examples.

    Raises:
        RunError: the user's code failed, or built no dataset.
    """
    with enough_memory("building the dataset"), user_code("building the dataset"):
        dataset = part(spec, "dataset")
        if callable(dataset) and not hasattr(dataset, "__getitem__"):
            dataset = dataset()
    require_one_dataset(dataset)
    collate: Callable[[list[Any]], Any] | None = None
    loader: DataLoader[Any] | None = None
    ready = False
    if isinstance(dataset, DataLoader):
        loader = dataset
        ready = loader.batch_sampler is None
        dataset, collate = loader.dataset, None if ready else loader.collate_fn
    with user_code("building the collate function"):
        collate = function_part(spec, "collate") or collate
    if isinstance(dataset, Mapping):
        raise RunError(
            f"`dataset:` must build one dataset; it built several by name: {', '.join(map(str, dataset))}. "
            "Name one, with `split: train` where Hugging Face's datasets load it."
        )
    if loader is not None and ready:
        dataset, streamed = unbatched(loader, _BUFFER)
        return Batches(dataset, collate, device, streamed=streamed)
    dataset = _with_tensors(dataset)
    if isinstance(dataset, tuple) and dataset and all(map(is_array, dataset)):
        dataset = as_tensors(dataset)
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        population = None if loader is None else population_of(loader)
        size = None if loader is None else loader.batch_size
        return Batches(dataset, collate, device, population=population, loader_batch_size=size)
    if not hasattr(dataset, "__iter__"):
        raise RunError(
            "`dataset:` must build something with a length and items (len(dataset), dataset[i]), or a stream of "
            f"examples; it built {kind_of(dataset)}."
        )
    with (
        enough_memory(f"reading the first {_BUFFER} examples of the dataset"),
        user_code(f"reading the first {_BUFFER} examples of the dataset, which is a stream,"),
    ):
        kept = list(islice(iter(dataset), _BUFFER))
    return Batches(kept, collate, device, streamed=True)


def _with_tensors(dataset: Any) -> Any:
    """Make a Hugging Face dataset of plain lists return tensors, which `default_collate` needs."""
    if type(dataset).__module__.partition(".")[0] != "datasets" or not hasattr(dataset, "with_format"):
        return dataset
    chosen = getattr(dataset, "format", None)  # streams have none
    return (
        dataset
        if isinstance(chosen, Mapping) and chosen["type"] is not None
        else dataset.with_format("torch")
    )
