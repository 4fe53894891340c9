"""Examples in parts that fit the memory, each pass shared among the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from bnoise_cli.errors import CutShortError, LostRankError, NotFiniteError, RunError
from bnoise_cli.measurement.task.batches import Draws, Indices
from bnoise_cli.measurement.task.ranks import ALONE, Ranks
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.user_code import OutOfMemoryError

T = TypeVar("T")


def passes(task: Task, indices: Indices, run: Callable[[Indices], T]) -> Iterator[tuple[int, T]]:
    """Apply `run` to `indices` in parts that fit the memory, on each rank to its own share of a part.

    A failure on one rank is one on all of them, and so is a lack of memory: the part is made smaller for all. Where the
    parameters are sharded only a loss that is not finite can be agreed on; all else breaks a pass off in the middle.

    Args:
        run: what it gets may be empty.

    Yields:
        (examples of the part, what `run` gave for this rank's share).

    Raises:
        RunError: no memory for a single example, or what `run` raised on any rank.
    """
    expect(task, indices)
    start = 0
    while start < len(indices):
        part = indices[start : start + even_part(len(indices) - start, task.at_once)]
        failure: Exception | None = None
        results: list[T] = []
        try:
            results.append(run(task.ranks.own(part)))
        except (RunError, OutOfMemoryError) as error:
            if task.sharded and not isinstance(error, NotFiniteError):
                raise cut_short(task, task.micro_batch_size * task.batches.group, error) from error
            failure = error
        failure = task.ranks.agree(failure)
        if failure is None:
            start += len(part)
            yield len(part), results.pop()  # a gradient is not to be held here during the next pass
        elif not isinstance(failure, OutOfMemoryError):
            raise failure
        else:
            _make_smaller(task, len(part), failure)


def even_part(count: int, most: int) -> int:
    """The size of the first of as few, as equal parts of `count` as hold at most `most` each."""
    return -(-count // -(-count // most))


def even_parts(indices: Indices, most: int) -> Iterator[Indices]:
    """All of these parts."""
    while len(indices):
        size = even_part(len(indices), most)
        yield indices[:size]
        indices = indices[size:]


def _make_smaller(task: Task, part: int, failure: Exception) -> None:
    """Halve the micro-batch after a part that did not fit."""
    if part <= task.ranks.size:
        raise RunError(
            f"out of memory with {_amount(task.batches.group)}. Free memory on the device, use a larger "
            f"one or a smaller model. The allocator said: {failure}"
        ) from None
    task.micro_batch_size = part // 2
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def cut_short(task: Task, examples: int, error: Exception) -> RunError:
    """What a pass ends with, in the middle of which one rank cannot go on."""
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


def expect(task: Task, *coming: Indices) -> None:
    """Say which examples will be asked for next, so that they can be read in the meantime."""
    ranks = task.ranks
    parts = (ranks.own(part) for indices in coming for part in even_parts(indices, task.at_once))
    task.batches.expect(part for part in parts if len(part))


@contextmanager
def apart(task: Task) -> Iterator[Ranks]:
    """Inside, this rank makes passes of its own, whose parameters are not sharded; gives all ranks."""
    kept, task.ranks = task.ranks, ALONE
    try:
        yield kept
    finally:
        task.ranks = kept


def deal(
    task: Task, indices: Indices, draws: Draws, work: Callable[[Indices], tuple[float, float]]
) -> tuple[float, float]:
    """Sums of what `work` finds on each micro-batch of `indices`, which the ranks take in turn.

    Micro-batches are those of a single process where the loss is no mean over examples; else each rank has one at
    least. Sharded parameters need all ranks for each.

    Raises:
        RunError: what `work` raised on any rank.
    """
    if task.sharded:
        return work(indices)
    sums, failure, planned = [0.0, 0.0], None, task.micro_batch_size
    with apart(task) as ranks:
        size = planned if task.group > 1 else min(planned, -(-len(indices) // ranks.size))
        for number, part in enumerate(even_parts(indices, size)):
            if number % ranks.size != ranks.rank:
                draws.seed()  # of the masks that another rank uses
                continue
            try:
                sums = [have + found for have, found in zip(sums, work(part), strict=True)]
            except RunError as error:
                failure = error
                break
    changed = failure is not None or task.micro_batch_size < planned
    weight, value, changes = task.ranks.total([*sums, changed])
    if changes:
        settle(task, failure)
    return weight, value


def settle(task: Task, failure: RunError | None) -> None:
    """After passes apart: one rank's failure is everyone's, and so is the smallest micro-batch.

    Raises:
        RunError: the failure of the first rank that had one.
    """
    task.micro_batch_size = min(task.ranks.gather(task.micro_batch_size))
    if (found := task.ranks.agree(failure)) is not None:
        raise found


@contextmanager
def alike(task: Task) -> Iterator[None]:
    """Inside, every rank makes the same passes, each by itself where the parameters are not sharded.

    Raises:
        RunError: what any of them raised.
    """
    if task.sharded:
        yield
        return
    failure: RunError | None = None
    with apart(task):
        try:
            yield
        except RunError as error:
            failure = error
    settle(task, failure)
