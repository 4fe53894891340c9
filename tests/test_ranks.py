"""Several processes that measure together: the answer of one, and one message whatever happens to any of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: A model, and a loss that fails in a chosen way on a chosen rank from a chosen call on.
USER = """\
import os, signal
import torch
from torch import nn
from torch.utils.data import TensorDataset

def model(dropout=0.0, width=32, norm=False):
    blocks = nn.ModuleList(
        nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(dropout)) for _ in range(2)
    )
    return Net(nn.Linear(6, width), blocks, nn.BatchNorm1d(width) if norm else nn.Identity(), nn.Linear(width, 3))

class Net(nn.Module):
    def __init__(self, first, blocks, norm, last):
        super().__init__()
        self.first, self.blocks, self.norm, self.last = first, blocks, norm, last
    def forward(self, x):
        x = self.norm(self.first(x))
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)

def data(n=400):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n + (int(os.environ["RANK"]) if "UNEQUAL" in os.environ else 0), 6, generator=g)
    return TensorDataset(x, (x[:, :3] + torch.randn(len(x), 3, generator=g)).argmax(1))

CALLS = 0

def loss(model, batch):
    global CALLS
    CALLS += 1
    value = nn.functional.cross_entropy(model(batch[0]), batch[1])
    kind, rank, after = os.environ.get("FAULT", "none:0:0").split(":")
    if int(rank) == int(os.environ.get("RANK", "0")) and CALLS > int(after):
        if kind == "raise":
            raise ValueError("a file of this rank is missing")
        if kind == "memory" and len(batch[0]) > 5:
            raise torch.OutOfMemoryError("no room for more than five")
        if kind == "nan":
            return value * float("nan")
        if kind in ("SIGKILL", "SIGSTOP", "SIGINT"):
            os.kill(os.getpid(), getattr(signal, kind))
    return value
"""
CONFIG = """\
version: 1
model: {_target_: train.py:model}
dataset: {_target_: train.py:data}
objective: {_target_: train.py:loss}
optimizer: {_target_: torch.optim.SGD, lr: 0.2}
training: {batch_size: 48, world_size: 1}
probe: {warmup_steps: 5, max_examples: 3000, precision: 0.01}
sweep: {batch_sizes: [4, 8, 16], steps: 12, seeds: 1, max_steps: 200}
"""
#: The program, whose ranks are lost when they say nothing for a few seconds.
PROGRAM = """\
import sys
from datetime import timedelta
from bnoise_cli.measurement import ranks
ranks.TIMEOUT = timedelta(seconds=12)
from bnoise_cli.__main__ import main
main()
"""
#: Long enough for any of these calls on a busy machine.
PATIENCE = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a call of several processes came to."""

    codes: list[int]
    out: list[str]
    err: list[str]
    seconds: float
    folder: Path

    def result(self, kind: str = "probe") -> dict[str, Any]:
        """What was stored."""
        found: dict[str, Any] = json.loads((self.folder / ".bnoise" / f"bnoise.{kind}.json").read_text())
        return found


Together = Callable[..., Ended]


@pytest.fixture
def together(tmp_path: Path) -> Together:
    """Run the program in `size` processes without a launcher: what becomes of the others is theirs alone."""
    (tmp_path / "train.py").write_text(USER)
    (tmp_path / "bnoise.yaml").write_text(CONFIG)

    def call(size: int, *arguments: str, **environment: str) -> Ended:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
        begun = time.monotonic()
        processes = [
            _start(
                [sys.executable, "-c", PROGRAM, *arguments],
                tmp_path,
                (shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else {}) | environment,
            )
            for rank in range(size)
        ]
        try:
            told = [processes[0].communicate(timeout=PATIENCE)]
            seconds = time.monotonic() - begun
            told += [_rest(process) for process in processes[1:]]
        finally:
            for process in processes:
                process.kill()
        out, err = zip(*told, strict=True)
        codes = [process.returncode for process in processes]
        return Ended(codes=codes, out=list(out), err=list(err), seconds=seconds, folder=tmp_path)

    return call


def _start(command: Sequence[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    whole = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment}
    return subprocess.Popen(
        command, cwd=folder, env=whole, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process says that should end soon; one that does not is killed, which its exit code shows."""
    try:
        return process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def _figures(result: dict[str, Any]) -> list[float]:
    return [
        *(result["noise_scale"][key] for key in ("value", "low", "high")),
        result["simple_noise_scale"]["value"],
        result["max_improvement"]["value"],
        *(point["improvement"] for point in result["points"]),
        *(point["step_size"] for point in result["points"]),
    ]


def _same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert _figures(one) == pytest.approx(_figures(other), rel=2e-3)
    for key in ("gradient_examples", "evaluation_examples"):
        assert one["cost"][key] == other["cost"][key]


@pytest.mark.parametrize(
    "changed",
    [
        [],
        ["--set", "optimizer={_target_: torch.optim.AdamW, lr: 1e-3}", "--set", "training.max_grad_norm=0.1"],
        ["--set", "model.norm=true", "--set", "training.batch_size=12"],
    ],
    ids=["SGD", "AdamW with clipping", "BatchNorm"],
)
def test_two_processes_find_what_one_finds(together: Together, changed: list[str]) -> None:
    alone = together(1, "probe", *changed)
    one = alone.result()
    both = together(2, "probe", *changed)
    assert alone.codes[0] in (0, 3)
    assert both.codes == [alone.codes[0], 0]
    _same(both.result(), one)
    assert both.out[1] == both.err[1] == ""


def test_sharded_parameters_give_the_same_answer(together: Together) -> None:
    """The planned run is one of two devices with half of the examples each: the passes hold as many together."""
    adam = [
        "--set",
        "optimizer={_target_: torch.optim.AdamW, lr: 1e-3}",
        "--set",
        "training.max_grad_norm=0.1",
    ]
    one = together(1, "probe", *adam).result()
    sharded = [
        "--set",
        "training.parallel=fsdp",
        "--set",
        "training.world_size=2",
        "--set",
        "probe.budget=1h",
    ]
    both = together(2, "probe", *adam, *sharded)
    assert both.codes == [0, 0], both.err
    _same(both.result(), one)
    assert "Warning" not in both.err[0]
