"""How many examples go into a pass: chosen by their time, which tests make up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bnoise_cli.measurement.task.pass_size import MOST, choose_pass_size
from bnoise_cli.measurement.task.task import Task
from tests.cases import mlp_task


def seconds_of(task: Task, fixed: float, each: float, room: int = 1024) -> Callable[[], float]:
    """A device that takes `fixed + each·m` for a pass of m examples, and has room for `room`."""

    def seconds() -> float:
        task.micro_batch_size = min(task.micro_batch_size, room)
        return fixed / task.micro_batch_size + each

    return seconds


@pytest.mark.parametrize(
    ("fixed", "each", "most", "room", "chosen"),
    [
        (1e-3, 1e-3, 1024, 1024, 4),  # 2, 1.5, 1.25, 1.125 ms: the last saves a tenth and no more
        (1e-3, 0.0, 1024, 1024, 32),  # the dataset has 60 examples
        (1e-3, 0.0, 8, 1024, 8),
        (1e-3, 0.0, 1024, 4, 4),
        (0.0, 1e-3, 1024, 1024, 1),
        (10.0, 0.0, 1024, 1024, 1),  # a trial would take too much of the time
    ],
)
def test_passes_grow_while_that_saves_time(
    fixed: float, each: float, most: int, room: int, chosen: int
) -> None:
    task = mlp_task(micro_batch_size=1)
    choose_pass_size(task, most, seconds_of(task, fixed, each * 1.0001, room), 60.0)
    assert task.micro_batch_size == task.planned_micro_batch_size == chosen


def test_a_larger_planned_micro_batch_is_kept() -> None:
    task = mlp_task(micro_batch_size=2 * MOST)
    choose_pass_size(task, 1024, seconds_of(task, 1.0, 0.0), 1e6)
    assert task.micro_batch_size == 2 * MOST
