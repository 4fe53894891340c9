"""Shared pieces: configs, tasks whose answer is known, and how to wait for another process."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes
from torch import nn
from torch.utils.data import TensorDataset

from bnoise_cli.examples.models import MLP
from bnoise_cli.examples.quadratic import NoisyQuadratic, mean_loss, unit_noise
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Task, Traits

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
# The program, called: its arguments to its exit code, stdout and stderr.
Call = Callable[..., tuple[int, str, str]]
# Writes a file, given its name and text, into the empty working folder.
Write = Callable[[str, str], Path]

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
  horizon: "off"
"""
# A noisy quadratic whose runs take a few dozen steps, on few examples: a whole sweep takes a second or two.
TINY_SWEEP = """\
version: 1
model:
  _target_: bnoise_cli.examples.quadratic.NoisyQuadratic
  dimension: 32
  decay: 0.5
  noise_decay: 0.5
  noise_scale: 1.0
dataset:
  _target_: bnoise_cli.examples.quadratic.unit_noise
  dimension: 32
  examples: 256
objective:
  _target_: bnoise_cli.examples.quadratic.mean_loss
optimizer:
  _target_: torch.optim.SGD
  lr: 0.5
training:
  batch_size: 128
sweep:
  goal: 0.4
  seeds: 2
  batch_sizes: [2, 8, 32]
"""

# The objective of QUADRATIC_CONFIG and TINY_SWEEP, which also makes a file when the program is well under way.
MARKING = """\
from pathlib import Path
from bnoise_cli.examples.quadratic import mean_loss
calls = 0
def marking(model, batch):
    global calls
    calls += 1
    if calls == 3000:
        Path("well under way").touch()
    return mean_loss(model, batch)
"""


_unit_noise = cache(unit_noise)


@cache
def import_torchvision() -> ModuleType:
    """torchvision, or skip.

    Its wheel's own operators need the build of torch that it was made with. Classifiers use none of them, so that if
    they do not load their names are declared, which is all that importing it asks for.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    with suppress(RuntimeError):  # operator torchvision::nms does not exist
        return importlib.import_module("torchvision")
    operators = torch.library.Library("torchvision", "DEF")
    _kept.append(operators)
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


_kept: list[Any] = []


#: For configs/resnet18.yaml: a sixteenth of the pixels. A probe measures some batches whatever its budget.
SMALL_IMAGES = ["--set", "dataset.size=8"]


def need_for(config: str) -> None:
    """Skip if a config needs a package that is not installed."""
    if config in ("gpt2", "resnet18") and importlib.util.find_spec("torchvision") is not None:
        import_torchvision()  # which transformers looks for
    package = {"gpt2": "transformers", "resnet18": "torchvision"}.get(config)
    if package is not None:
        pytest.importorskip(package)


def quadratic_task(
    noise_scale: float = 50.0, *, examples: int = 65536, micro_batch_size: int = 256, **options: Any
) -> Task:
    """A noisy quadratic as the probe sees it; `options` go to the model."""
    degrees = options.pop("degrees_of_freedom", float("inf"))
    model = NoisyQuadratic(noise_scale=noise_scale, **options)
    data = _unit_noise(model.dimension, examples, degrees)
    task = Task(model, mean_loss, Batches(data, None, CPU), micro_batch_size=micro_batch_size)
    task.adopt(Traits(stochastic=False))
    return task


def quadratic(task: Task) -> NoisyQuadratic:
    """The model of `quadratic_task`."""
    assert isinstance(task.model, NoisyQuadratic)
    return task.model


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def mlp_task(*layers: nn.Module, micro_batch_size: int = 8, dtype: torch.dtype = torch.float64) -> Task:
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(
        torch.randn(60, 5, generator=generator, dtype=dtype), torch.randint(3, (60,), generator=generator)
    )
    model = nn.Sequential(MLP([5, 7]), nn.ReLU(), *layers, MLP([7, 3])).to(dtype)
    task = Task(model, cross_entropy, Batches(data, None, CPU), micro_batch_size=micro_batch_size)
    task.adopt(Traits(stochastic=False))
    return task


def user_code(name: str) -> str:
    """The text of tests/user_code/NAME.py, a file as users write them."""
    return (ROOT / "tests" / "user_code" / f"{name}.py").read_text(encoding="utf-8")


def legend(axes: Axes) -> list[str]:
    """The labels in the legend of a panel."""
    found = axes.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]
