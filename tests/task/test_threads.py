"""Passes on one torch thread, or on what a container's quota allows, where that is faster."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bnoise_cli.measurement.task import threads
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.records import Threads
from tests.cases import quadratic_task


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """torch on eight threads; the list holds what the number was set to."""
    now = [8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    return now


def passes_take(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> None:
    """Seconds of a pass on a micro-batch by the number of threads."""

    def known(task: Task, draws: object, times: int) -> float:
        return seconds[torch.get_num_threads()] * times

    monkeypatch.setattr(threads, "_seconds", known)
    monkeypatch.setattr(threads, "_pass_seconds", lambda task, draws: (known(task, draws, 1),) * 2)


def quota(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    (folder / "cpu.max").write_text(text)
    monkeypatch.setattr(threads, "_GROUP", folder)


@pytest.mark.parametrize(
    ("seconds", "limit", "found"),
    [
        ({8: 4e-3, 1: 1e-3}, "max 100000", Threads(number=1, usual=8, times_faster=4.0)),
        ({8: 1e-3, 1: 4e-3}, "max 100000", None),
        ({8: 1.1e-3, 1: 1e-3}, "max 100000", None),
        ({8: 9e-3, 2: 2e-3, 1: 3e-3}, "150000 100000", Threads(number=2, usual=8, times_faster=4.5)),
        ({8: 0.1, 1: 0.05}, "max 100000", None),
        ({8: 2.0, 1: 2e-3}, "max 100000", Threads(number=1, usual=8, times_faster=1000.0)),
    ],
    ids=[
        "one is faster",
        "eight are faster",
        "alike",
        "a quota of one and a half cores",
        "large tensors",
        "a busy machine",
    ],
)
def test_the_fastest_number_of_threads(
    seconds: dict[int, float], limit: str, found: Threads | None,
    eight: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    passes_take(monkeypatch, seconds)
    quota(monkeypatch, tmp_path, limit)
    task = quadratic_task()
    before = [parameter.clone() for parameter in task.parameters]
    assert threads.quickest_threads(task, 0) == found
    assert eight[-1] == 8
    assert all(map(torch.equal, task.parameters, before))


def test_the_number_is_given_back_after_a_failure(eight: list[int]) -> None:
    def fail() -> None:
        with threads.use_threads(1):
            assert torch.get_num_threads() == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.get_num_threads() == 8
    with threads.use_threads(None):
        pass
    assert eight == [8, 1, 8]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container(
    files: dict[str, str], found: float | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(threads, "_GROUP", tmp_path)
    assert threads.cpu_quota() == found
