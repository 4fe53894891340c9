"""Reading in the background: the same batches, whatever is expected and whatever fails."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.checks import check_task
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.read_ahead import ReadAhead
from bnoise_cli.measurement.task.task import Task
from tests.cases import CPU

PARTS = [np.arange(start, start + 3) for start in range(0, 30, 3)]


class Reads:
    """Remembers what was read, and in which thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, bool]] = []

    def __call__(self, indices: np.ndarray[Any, Any]) -> list[int]:
        own = threading.current_thread() is threading.main_thread()
        self.seen.append((int(indices[0]), own))
        return list(indices * 10)


def test_what_is_expected_is_read_in_the_background() -> None:
    read = Reads()
    ahead = ReadAhead(read)
    ahead.expect(PARTS)
    for part in PARTS:
        ahead.expect([part])  # the beginning of what is known already
        assert ahead.get(part) == list(part * 10)
    assert read.seen == [(int(part[0]), False) for part in PARTS], "each once, in order, by the thread"


def test_what_comes_unexpected_is_read_at_once() -> None:
    read = Reads()
    ahead = ReadAhead(read)
    ahead.expect(PARTS[:5])
    assert ahead.get(PARTS[7]) == list(PARTS[7] * 10)
    assert (21, True) in read.seen
    ahead.expect(PARTS[5:])
    assert [ahead.get(part) for part in PARTS[5:]] == [list(part * 10) for part in PARTS[5:]]


def test_a_failure_in_the_thread_is_tried_again_outside() -> None:
    """A database belongs to the thread that opened it."""
    owner = threading.current_thread()

    def read(indices: np.ndarray[Any, Any]) -> list[int]:
        if threading.current_thread() is not owner:
            raise RuntimeError("objects created in a thread can only be used in that same thread")
        return list(indices)

    ahead = ReadAhead(read)
    ahead.expect(PARTS)
    assert ahead.get(PARTS[0]) == [0, 1, 2]

    def broken(indices: np.ndarray[Any, Any]) -> list[int]:
        raise RunError("number 3 is broken")

    ahead = ReadAhead(broken)
    ahead.expect(PARTS)
    with pytest.raises(RunError, match="number 3"):
        ahead.get(PARTS[0])


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Random augmentation from torch's own stream where `noise`, from a generator of its own where `hidden`.

    Args:
        seconds: that reading an example takes.
    """

    def __init__(self, noise: bool = False, hidden: bool = False, seconds: float = 0.0) -> None:
        draws = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(300, 5, generator=draws), torch.randint(3, (300,), generator=draws)
        self.noise, self.draws = noise, draws if hidden else None
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        moved = torch.randn(5, generator=self.draws) if self.noise or self.draws is not None else 0.0
        return self.x[index] + moved, self.y[index]


def points_task(**options: Any) -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 3))

    def objective(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return Task(model, objective, Batches(Points(**options), None, CPU), micro_batch_size=8)


@pytest.mark.full
def test_a_probe_that_reads_ahead_is_the_same_to_the_bit() -> None:
    """Also with dropout, whose masks must not depend on what is read meanwhile."""
    found = []
    for reads_ahead in (False, True):
        task = points_task()
        if reads_ahead:
            task.batches.read_ahead()
        found.append(probe(task, ProbeSettings(max_examples=2000, budget_seconds=600)))
    one, two = (measured.analysis for measured in found)
    assert one is not None
    assert two is not None
    assert one.noise_scale == two.noise_scale
    assert one.points == two.points


@pytest.mark.parametrize(
    ("options", "random", "ahead"),
    [({}, False, True), ({"noise": True}, True, False), ({"hidden": True}, True, True)],
)
def test_augmentation_is_noticed(options: dict[str, bool], random: bool, ahead: bool) -> None:
    """Global random streams are left to the main thread; random examples have no exact gradient."""
    task = points_task(seconds=1e-3, **options)
    findings = check_task(task, 0)
    assert task.traits.random_data == random
    assert (task.batches._ahead is not None) == ahead
    assert findings.stochastic
    assert len(task.batches.fetch(Draws(0, Stream.REPLICATE).indices(4, 300))[0]) == 4
