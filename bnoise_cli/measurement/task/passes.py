"""Examples in parts that fit the memory, each pass shared among the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import torch

from bnoise_cli.errors import NotFiniteError, RunError
from bnoise_cli.measurement.task.batches import Indices
from bnoise_cli.measurement.task.user_code import OutOfMemoryError

if TYPE_CHECKING:
    from bnoise_cli.measurement.task.task import Task

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
    task.expect(indices)
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
    """What a pass of sharded parameters ends with, when one rank cannot go on."""
    if isinstance(error, RunError):
        return error
    return RunError(
        f"out of memory with {examples} examples on one device of a model in {task.ranks.size} parts. "
        f"Lower training.batch_size (over world_size), or use more devices. The allocator said: {error}"
    )


def _amount(group: int) -> str:
    return "a single example" if group == 1 else f"the {group} examples that one device is to take at once"
