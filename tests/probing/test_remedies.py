"""From a mistake that users make to the remedy that mends it: one situation each."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.cases import Call, Write

TRAIN = """
import numpy as np
import torch
from torch import nn

class Pictures(torch.utils.data.Dataset):
    def __len__(self): return 512
    def __getitem__(self, i):
        from PIL import Image
        return Image.new("L", (2, 3), i % 7), i % 3

class Labelled(torch.utils.data.Dataset):
    def __init__(self, label="whole"): self.label = label
    def __len__(self): return 512
    def __getitem__(self, i):
        y = {"whole": i % 3, "float": float(i % 3), "beyond": 1 + i % 3, "below": -1 if i % 2 else 0}[self.label]
        return torch.randn(6, generator=torch.Generator().manual_seed(i)), y

class Answer(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.net, self.form = nn.Linear(6, 3), form
    def forward(self, x):
        logits = self.net(x)
        return {"dict": {"logits": logits}, "tuple": (logits, x), "plain": logits}[self.form]

def loader(batch_size=32):
    return torch.utils.data.DataLoader(Labelled(), batch_size=batch_size)
"""
BASE: dict[str, Any] = {
    "version": 1,
    "model": {"_target_": "train.py:Answer", "form": "plain"},
    "dataset": {"_target_": "train.py:Labelled"},
    "loss": {"_target_": "torch.nn.CrossEntropyLoss"},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    "training": {"batch_size": 32},
    "probe": {"warmup_steps": 2, "horizon": "off", "max_examples": 2000},
}


@pytest.fixture
def said(bnoise: Call, write: Write) -> Any:
    """What a probe of a changed config says, errors and doubts alike."""

    def run(changes: dict[str, Any], *arguments: str) -> tuple[int, str]:
        write("train.py", TRAIN)
        write("c.yaml", yaml.safe_dump({**BASE, **changes}))
        code, out, err = bnoise("probe", "c.yaml", *arguments)
        return code, " ".join((err + out).split())

    return run


SITUATIONS = {
    "a PIL image": ({"dataset": {"_target_": "train.py:Pictures"}}, 4, "torchvision.transforms.ToTensor"),
    "float labels": (
        {"dataset": {"_target_": "train.py:Labelled", "label": "float"}}, 4, "whole numbers",
    ),
    "labels beyond the classes": (
        {"dataset": {"_target_": "train.py:Labelled", "label": "beyond"}}, 4, "from 0 to one less",
    ),
    "labels below zero": (
        {"dataset": {"_target_": "train.py:Labelled", "label": "below"}}, 4, "from 0 to one less",
    ),
    "a model that answers a dict": ({"model": {"_target_": "train.py:Answer", "form": "dict"}}, 4, "`objective:`"),
    "a model that answers a tuple": ({"model": {"_target_": "train.py:Answer", "form": "tuple"}}, 4, "`objective:`"),
    "a summed loss": (
        {
            "loss": {"_target_": "torch.nn.CrossEntropyLoss", "reduction": "sum"},
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.001},
        },
        3, "reduction='mean'",
    ),
    "a name in other letters": (
        {"optimizer": {"_target_": "torch.optim.Adamw", "lr": 0.1}}, 2, "did you mean `AdamW`?",
    ),
    "momentum": (
        {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}}, 0, "A horizon (probe.h",
    ),
    "an interpolation": (
        {"optimizer": {"_target_": "torch.optim.SGD", "lr": "${lr}"}}, 2, "the interpolation `${lr}`",
    ),
    "a loader of another batch size": (
        {"dataset": {"_target_": "train.py:loader", "batch_size": 16}}, 0, "batch size is 16",
    ),
    "no batch size": ({"training": {}}, 0, "so 64 stands for the planned batch"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "code", "words"), SITUATIONS.values(), ids=SITUATIONS)
def test_a_mistake_meets_its_remedy(said: Any, changes: dict[str, Any], code: int, words: str) -> None:
    found, text = said(changes)
    assert words in text
    assert found == code, text
