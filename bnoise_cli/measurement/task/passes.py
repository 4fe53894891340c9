"""Passes of examples through the model: split to fit the memory, and shared among the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from bnoise_cli.errors import CutShortError, LostRankError, NotFiniteError, OutOfTimeError, RunError
from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.user_code import OutOfMemoryError

T = TypeVar("T")


def passes(task: Task, indices: Indices, run: Callable[[Indices], T]) -> Iterator[tuple[int, T]]:
    """Split `indices` into parts that fit the memory, and call `run` with this rank's share of each part.

    If one rank fails, all ranks raise its failure; if one runs out of memory, all of them make the part smaller. With
    sharded parameters the ranks can agree on a loss that is not finite only: any other failure interrupts a collective.

    Args:
        run: called with the indices of this rank, which may be none.

    Yields:
        (examples of the part on all ranks, what `run` returned for this rank's share).

    Raises:
        RunError: no memory for a single example, or `run` raised it on any rank.
        OutOfTimeError: the time of the present phase is over (`Task.within`).
    """
    prefetch(task, indices)
    start = 0
    while start < len(indices):
        part = indices[start : start + even_part(len(indices) - start, task.at_once)]
        failure: Exception | None = None
        results: list[T] = []
        try:
            task.require_time(agreed=task.sharded)
            results.append(run(task.ranks.shard(part)))
        except (RunError, OutOfMemoryError) as error:
            if task.sharded and not isinstance(error, NotFiniteError | OutOfTimeError):
                raise cut_short(task, task.micro_batch_size * task.batches.group, error) from error
            failure = error
        failure = task.ranks.first_failure(failure)
        if failure is None:
            start += len(part)
            yield len(part), results.pop()  # the list must not hold a gradient during the next pass
        elif not isinstance(failure, OutOfMemoryError):
            raise failure
        else:
            _make_smaller(task, len(part), failure)


def even_part(count: int, most: int) -> int:
    """Split `count` into as few nearly equal parts of at most `most` as possible; return the size of the first."""
    return -(-count // -(-count // most))


def even_parts(indices: Indices, most: int) -> Iterator[Indices]:
    """Split `indices` into the parts of `even_part`."""
    while len(indices):
        size = even_part(len(indices), most)
        yield indices[:size]
        indices = indices[size:]


def _make_smaller(task: Task, part: int, failure: Exception) -> None:
    """Halve the micro-batch after a part of `part` examples did not fit.

    Raises:
        RunError: the part had a single example a rank.
    """
    if part <= task.ranks.size:
        raise RunError(
            f"out of memory with {_amount(task.batches.group)}. Free memory on the device, use a larger "
            f"one or a smaller model. The allocator said: {failure}"
        ) from None
    task.take_micro_batch(part // 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def cut_short(task: Task, examples: int, error: Exception) -> RunError:
    """The error to raise if this rank cannot continue in the middle of a collective pass."""
    if isinstance(error, LostRankError):
        return error
    if isinstance(error, RunError):
        return CutShortError(str(error))
    return CutShortError(
        f"out of memory with {examples} examples on one device, in a pass of all {task.ranks.size} of them. "
        f"Lower training.batch_size (over world_size), or use more devices. The allocator said: {error}"
    )


def _amount(group: int) -> str:
    return "a single example" if group == 1 else f"the {group} examples that one device is to take at once"


def prefetch(task: Task, *coming: Indices) -> None:
    """Announce the examples that are needed next, so that they can be read in the background."""
    ranks = task.ranks
    parts = (ranks.shard(part) for indices in coming for part in even_parts(indices, task.at_once))
    task.batches.expect(part for part in parts if len(part))


def split_over_ranks(
    task: Task, indices: Indices, draws: Draws, work: Callable[[Indices], tuple[float, float]]
) -> tuple[float, float]:
    """Share `indices` among the ranks, one micro-batch at a time, and add up what `work` returns.

    Every rank gets at least one micro-batch, unless the loss is not a mean over examples: then the micro-batches are
    those of a single process. Sharded parameters need all ranks for every micro-batch.

    Returns:
        The two sums over all micro-batches of all ranks.

    Raises:
        RunError: `work` raised it on any rank.
    """
    if task.sharded:
        return work(indices)
    sums, failure, planned = [0.0, 0.0], None, task.micro_batch_size
    with task.on_this_rank() as ranks:
        size = planned if task.traits.group > 1 else min(planned, -(-len(indices) // ranks.size))
        for number, part in enumerate(even_parts(indices, size)):
            if number % ranks.size != ranks.rank:
                draws.seed()  # the seed of the masks that another rank uses
                continue
            try:
                sums = [have + found for have, found in zip(sums, work(part), strict=True)]
            except RunError as error:
                failure = error
                break
    changed = failure is not None or task.micro_batch_size < planned
    weight, value, changes = task.ranks.all_reduce([*sums, changed])
    if changes:
        agree_after(task, failure)
    return weight, value


def agree_after(task: Task, failure: RunError | None) -> None:
    """After passes on single ranks: all ranks take the smallest micro-batch, and raise the first rank's failure.

    Raises:
        RunError: the failure of the first rank that had one.
    """
    task.take_micro_batch(min(task.ranks.all_gather(task.micro_batch_size)))
    if (found := task.ranks.first_failure(failure)) is not None:
        raise found


@contextmanager
def same_on_all(task: Task) -> Iterator[None]:
    """Inside the block every rank makes the same passes, each on its own unless the parameters are sharded.

    Raises:
        RunError: the passes of any rank raised it.
    """
    if task.sharded:
        yield
        return
    failure: RunError | None = None
    with task.on_this_rank():
        try:
            yield
        except RunError as error:
            failure = error
    agree_after(task, failure)
