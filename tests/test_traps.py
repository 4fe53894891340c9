"""Models and data that break the theory, each from its config to what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Call

#: Write a file into the working folder.
Write = Callable[[str, str], Path]

#: One file of the user's own, with every trap as a function.
USER = '''
import torch
from torch import nn
from torch.nn import functional as F


class Inputs(torch.utils.data.Dataset):
    def __init__(self, lengths=None):
        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(512, 6, generator=draw)
        self.y = torch.randint(3, (512,), generator=draw)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Sentences(Inputs):
    """Between 2 and 12 tokens, short ones harder."""

    def __getitem__(self, i):
        draw = torch.Generator().manual_seed(i)
        length = int(torch.randint(2, 13, (1,), generator=draw))
        step = 1 if length > 6 else 3
        return {"ids": (i + step * torch.arange(length)) % 16}


def pad(examples):
    ids = nn.utils.rnn.pad_sequence([e["ids"] for e in examples], batch_first=True)
    labels = nn.utils.rnn.pad_sequence([e["ids"] for e in examples], batch_first=True, padding_value=-100)
    return {"input_ids": ids, "labels": labels}


class Bigrams(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(16, 8), nn.Linear(8, 16)

    def forward(self, input_ids, labels):
        logits = self.out(self.embed(input_ids))[:, :-1]
        return {"loss": F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)}


def model(extra=None, freeze=False, bfloat16=False):
    body = nn.Linear(6, 16)
    body.requires_grad_(not freeze)
    layers = {None: nn.Tanh(), "norm": nn.BatchNorm1d(16), "dropout": nn.Dropout(0.3)}[extra]
    built = nn.Sequential(body, layers, nn.Linear(16, 3))
    return built.bfloat16() if bfloat16 else built


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.inner, self.outer, self.reentrant = nn.Linear(6, 16), nn.Linear(16, 3), reentrant

    def forward(self, x):
        x = x.requires_grad_()
        x = torch.utils.checkpoint.checkpoint(lambda x: self.inner(x).tanh(), x, use_reentrant=self.reentrant)
        return self.outer(x)


def compiled():
    return torch.compile(model(), backend="aot_eager")


def plain(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


own = torch.Generator().manual_seed(0)


def restless(model, batch):
    return plain(model, batch) * (1 + 0.1 * torch.rand(1, generator=own))


def contrastive(model, batch):
    z = F.normalize(model(batch[0]), dim=1)
    return F.cross_entropy(z @ z.T / 0.1, torch.arange(len(z)))


def moving(model, batch):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.999)
    return plain(model, batch)
'''


@pytest.fixture
def probed(bnoise: Call, write: Write) -> Any:
    """Probe a config of that file; the exit code, the result and what was said."""
    write("train.py", USER)

    def probe(*sets: str, **sections: Any) -> tuple[int, dict[str, Any], str]:
        config = {
            "version": 1,
            "model": {"_target_": "train.py:model"},
            "dataset": {"_target_": "train.py:Inputs"},
            "loss": {"_target_": "torch.nn.CrossEntropyLoss"},
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
            "training": {"batch_size": 32},
            "probe": {"warmup_steps": 20, "max_examples": 6000},
            **sections,
        }
        config = {key: value for key, value in config.items() if value is not None}
        write("bnoise.yaml", json.dumps(config))
        code, out, said = bnoise("probe", "bnoise.yaml", "--json", "--quiet", *sets)
        return code, json.loads(out) if out else {}, said

    return probe


def codes(result: dict[str, Any]) -> set[str]:
    return {doubt["code"] for doubt in result["doubts"]}


@pytest.mark.parametrize(
    ("code", "sections"),
    [
        ("batch_norm", {"model": {"_target_": "train.py:model", "extra": "norm"}}),
        ("random_masks", {"model": {"_target_": "train.py:model", "extra": "dropout"}}),
        ("frozen", {"model": {"_target_": "train.py:model", "freeze": True}}),
        ("not_a_mean", {"loss": None, "objective": {"_target_": "train.py:contrastive"}}),
        (
            "unequal_lengths",
            {
                "model": {"_target_": "train.py:Bigrams"},
                "dataset": {"_target_": "train.py:Sentences"},
                "collate": {"_target_": "train.py:pad"},
                "loss": None,
            },
        ),
    ],
)
def test_a_trap_is_named_among_the_doubts(probed: Any, code: str, sections: dict[str, Any]) -> None:
    exit_code, result, said = probed(**sections)
    assert exit_code in (0, 3), said
    assert code in codes(result)
    others = {"batch_norm", "random_masks", "frozen", "not_a_mean", "unequal_lengths"} - {code}
    assert not others & codes(result)


@pytest.mark.parametrize(
    ("words", "sections"),
    [
        ("must repeat", {"loss": None, "objective": {"_target_": "train.py:restless"}}),
        ("parameters in place", {"loss": None, "objective": {"_target_": "train.py:moving"}}),
        ("precision_mode: bf16-mixed", {"model": {"_target_": "train.py:model", "bfloat16": True}}),
    ],
)
def test_a_trap_is_refused(probed: Any, words: str, sections: dict[str, Any]) -> None:
    exit_code, result, said = probed(**sections)
    assert (exit_code, result) == (4, {})
    assert words in " ".join(said.split())


@pytest.mark.parametrize(
    "model",
    [
        {"_target_": "train.py:Checkpointed", "reentrant": True},
        {"_target_": "train.py:Checkpointed", "reentrant": False},
        {"_target_": "train.py:compiled"},
    ],
)
def test_other_ways_to_run_the_same_model_measure_the_same(probed: Any, model: dict[str, Any]) -> None:
    """Gradient checkpointing of both kinds and torch.compile: equal to rounding, with the same draws."""
    code, result, said = probed(model=model)
    assert code in (0, 3), said
    _, plain, _ = probed()
    assert result["noise_scale"]["value"] == pytest.approx(plain["noise_scale"]["value"], rel=1e-3)
    assert result["cost"]["gradient_examples"] == plain["cost"]["gradient_examples"]


def test_bfloat16_is_measured_in_mixed_precision(probed: Any) -> None:
    """The weights are kept in float32; the number is that of float32, within its interval."""
    mixed = {"warmup_steps": 20, "max_examples": 20_000, "precision_mode": "bf16-mixed"}
    code, result, said = probed(model={"_target_": "train.py:model", "bfloat16": True}, probe=mixed)
    assert code in (0, 3), said
    assert result["provenance"]["dtype"] == "float32, computed in bfloat16"
    _, full, _ = probed(probe={**mixed, "precision_mode": "full"})
    value = result["noise_scale"]["value"]
    assert full["noise_scale"]["low"] / 1.1 <= value <= 1.1 * full["noise_scale"]["high"]
    assert result["simple_noise_scale"]["value"] == pytest.approx(
        full["simple_noise_scale"]["value"], rel=0.1
    )


def test_a_missing_local_file_is_named_with_its_absolute_path(probed: Any, tmp_path: Path) -> None:
    code, _, said = probed(
        dataset={"_target_": "bnoise_cli.data.TokenFile", "path": "train.bin", "context": 8}
    )
    assert code == 4
    assert str(tmp_path / "train.bin") in said.replace("\n", "")
