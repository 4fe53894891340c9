"""Shared pieces: tasks whose answer is known, and configs on disk."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import settings

from bnoise_cli.cli import app
from bnoise_cli.examples.quadratic import NoisyQuadratic, mean_loss, unit_noise
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Task

os.environ.setdefault("COLUMNS", "100")
torch.set_num_threads(1)
# One commit has one verdict; --hypothesis-profile=default hunts with new examples.
settings.register_profile("repeatable", derandomize=True)

CPU = torch.device("cpu")
#: The program, called: its arguments to its exit code, stdout and stderr.
Call = Callable[..., tuple[int, str, str]]

QUADRATIC_CONFIG = """\
version: 1
model:
  _target_: bnoise_cli.examples.quadratic.NoisyQuadratic
  dimension: 16
  noise_scale: 20.0
dataset:
  _target_: bnoise_cli.examples.quadratic.unit_noise
  dimension: 16
  examples: 4096
objective:
  _target_: bnoise_cli.examples.quadratic.mean_loss
optimizer:
  _target_: torch.optim.SGD
  lr: 0.01
training:
  batch_size: 32
probe:
  warmup_steps: 3
  max_examples: 3000
"""


_unit_noise = cache(unit_noise)


@cache
def import_torchvision() -> ModuleType:
    """torchvision, or skip.

    Its wheel's own operators need the build of torch that it was made with. Models use none of them, so that where they
    do not load their names are declared, which is all that importing it asks for.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    if torch.version.cuda is None:
        operators = torch.library.Library("torchvision", "DEF")
        _kept.append(operators)
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


_kept: list[Any] = []


def quadratic_task(
    noise_scale: float = 50.0, *, examples: int = 65536, micro_batch_size: int = 256, **options: Any
) -> Task:
    """A noisy quadratic as the probe sees it; `options` go to the model."""
    degrees = options.pop("degrees_of_freedom", float("inf"))
    model = NoisyQuadratic(noise_scale=noise_scale, **options)
    data = _unit_noise(model.dimension, examples, degrees)
    task = Task(model, mean_loss, Batches(data, None, CPU), micro_batch_size=micro_batch_size)
    task.stochastic = False
    return task


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a file into an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return Path(name)

    return write


@pytest.fixture
def bnoise(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Call the program in this process."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bnoise", *arguments])
        code = app.run()
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def transformers() -> ModuleType:
    """The package transformers, or skip."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()  # which transformers looks for
    return pytest.importorskip("transformers")
