"""Models and data of other packages from YAML alone, against the loops that their users would write."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from bnoise_cli.examples.datasets import DigitImages, StdlibText
from tests.cases import Call, Write

GPT2 = """
  _target_: transformers.GPT2LMHeadModel
  config: {_target_: transformers.GPT2Config, vocab_size: 256, n_positions: 32, n_embd: 32, n_layer: 2, n_head: 2,
           bos_token_id: 0, eos_token_id: 0, resid_pdrop: 0.0, embd_pdrop: 0.0, attn_pdrop: 0.0}
"""
RESNET = {
    "num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic",
}  # fmt: skip


def probed(bnoise: Call, write: Write, config: dict[str, Any]) -> dict[str, Any]:
    write("c.yaml", yaml.safe_dump(config))
    code, out, said = bnoise("probe", "c.yaml", "--json", "--quiet")
    assert code in (0, 3), said
    result: dict[str, Any] = json.loads(out)
    return result


def loop_simple(gradients: Sequence[Tensor], batch_size: int) -> float:
    """tr(Σ)/|G|² from the gradients of independent batches (arXiv:1812.06162 appendix A.1)."""
    together = torch.stack(list(gradients)).double()
    n, mean = len(together), together.mean(0)
    each, whole = (together**2).sum(1).mean(), (mean**2).sum()
    return float(batch_size * n * (each - whole) / (n * whole - each))


def loop_noise_scale(gains: dict[int, np.ndarray[Any, Any]], steps: dict[int, np.ndarray[Any, Any]]) -> float:
    """B_noise from the best mean gain at two batch sizes; gains have shape (draws, step sizes)."""
    best = {}
    for size, rows in gains.items():
        fit = np.polynomial.Polynomial.fit(np.r_[0, steps[size]], np.r_[0, rows.mean(0)], 4)
        best[size] = fit(np.linspace(0, steps[size][-1], 400)).max()
    small, large = sorted(best)
    ratio = best[large] / best[small]
    return float((ratio - 1) / (1 / small - ratio / large))


def train(model: nn.Module, loss_of: Callable[[Any], Tensor], draw: Callable[[], Any], rate: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(draw()).backward()
        optimizer.step()


class Loop:
    """What a user would write: a model, its loss of a batch, and batches by indices."""

    def __init__(self, model: nn.Module, loss_of: Callable[[Any], Tensor], length: int, group: int) -> None:
        self.model, self.loss_of, self.length, self.group = model, loss_of, length, group
        self.parameters = list(model.parameters())
        self.draws = np.random.default_rng(1)

    def gradient(self, size: int) -> list[Tensor]:
        """Of `size` examples, `group` at a time."""
        self.model.zero_grad()
        for _ in range(size // self.group):
            loss = self.loss_of(self.draws.integers(self.length, size=self.group)) * self.group / size
            loss.backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in self.parameters]

    def flat(self, size: int) -> Tensor:
        return torch.cat([g.flatten() for g in self.gradient(size)])

    def gains(
        self, size: int, draws: int, steps: np.ndarray[Any, Any], evaluation: list[Any]
    ) -> np.ndarray[Any, Any]:
        start = [p.detach().clone() for p in self.parameters]

        def loss() -> float:
            with torch.no_grad():
                return float(np.mean([float(self.loss_of(part)) for part in evaluation]))

        before, rows = loss(), []
        for _ in range(draws):
            gradient, row = self.gradient(size), []
            for step in steps:
                with torch.no_grad():
                    for p, s, g in zip(self.parameters, start, gradient, strict=True):
                        p.copy_(s - step * g)
                row.append(before - loss())
            with torch.no_grad():
                for p, s in zip(self.parameters, start, strict=True):
                    p.copy_(s)
            rows.append(row)
        return np.array(rows)


def assert_same_number(
    loop: Loop, result: dict[str, Any], small: int, large: int, *, at_once: int, draws: int
) -> None:
    """B_simple by the loop inside the interval, with its own error of a few percent; B_noise likewise, of a fifth.

    Args:
        at_once: examples of each of the eight passes that evaluate the loss.
        draws: updates of `large` examples; four times as many of `small`.
    """
    simple = loop_simple([loop.flat(loop.group) for _ in range(4096 // loop.group)], loop.group)
    found = result["simple_noise_scale"]
    assert found["low"] / 1.1 <= simple <= found["high"] * 1.1
    steps, gains = {}, {}
    for size, updates in ((small, 4 * draws), (large, draws)):
        point = min(
            (p for p in result["points"] if p["batch_size"]), key=lambda p: abs(p["batch_size"] - size)
        )
        steps[size] = point["step_size"] * np.array([0.4, 0.8, 1.2, 1.8])
        evaluation = [loop.draws.integers(loop.length, size=at_once) for _ in range(8)]
        gains[size] = loop.gains(size, updates, steps[size], evaluation)
    found = result["noise_scale"]
    assert found["low"] / 1.35 <= loop_noise_scale(gains, steps) <= found["high"] * 1.35


def test_a_gpt2_is_probed_as_by_hand(transformers: ModuleType, bnoise: Call, write: Write) -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=256, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    text: Any = StdlibText(context=32, form="transformers")

    def loss_of(indices: np.ndarray[Any, Any]) -> Tensor:
        ids = torch.stack([text[int(i)]["input_ids"] for i in indices])
        loss: Tensor = model(input_ids=ids, labels=ids).loss
        return loss

    draws = np.random.default_rng(0)
    train(model, loss_of, lambda: draws.integers(len(text), size=32), rate=0.3)
    torch.save(model.state_dict(), "w.pt")
    result = probed(bnoise, write, {
        "version": 1, "model": yaml.safe_load(GPT2), "checkpoint": "w.pt",
        "dataset": {"_target_": "bnoise_cli.examples.datasets.StdlibText", "context": 32, "form": "transformers"},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.3},
        "probe": {"warmup_steps": 0, "max_examples": 8_000, "budget": "10m", "precision": 0.3, "horizon": "off"},
    })  # fmt: skip
    assert result["provenance"]["tokens_per_example"] == 32
    assert result["noise_scale"]["high"] is not None
    assert_same_number(Loop(model, loss_of, len(text), 8), result, small=8, large=256, at_once=64, draws=10)


def test_a_resnet_with_batch_norm_is_probed_as_by_hand(
    transformers: ModuleType, bnoise: Call, write: Write
) -> None:
    """In training mode, 16 at a time: what data-parallel training with 16 on each device does."""
    torch.manual_seed(0)
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=10, **RESNET))
    x, y = DigitImages(size=16, channels=1).tensors

    def loss_of(indices: np.ndarray[Any, Any]) -> Tensor:
        loss: Tensor = model(pixel_values=x[indices], labels=y[indices]).loss
        return loss

    draws = np.random.default_rng(0)
    train(model, loss_of, lambda: draws.integers(len(x), size=16), rate=0.02)
    torch.save(model.state_dict(), "w.pt")
    write(
        "mine.py", "def loss(model, batch):\n    return model(pixel_values=batch[0], labels=batch[1]).loss\n"
    )
    result = probed(bnoise, write, {
        "version": 1, "checkpoint": "w.pt",
        "model": {
            "_target_": "transformers.ResNetForImageClassification",
            "config": {"_target_": "transformers.ResNetConfig", "num_labels": 10, **RESNET},
        },
        "dataset": {"_target_": "bnoise_cli.examples.datasets.DigitImages", "size": 16, "channels": 1},
        "objective": {"_target_": "mine.py:loss"},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.02},
        "training": {"batch_size": 16},
        "probe": {"warmup_steps": 0, "max_examples": 10_000, "budget": "10m", "precision": 0.3, "horizon": "off"},
    })  # fmt: skip
    assert "batch_norm" in {doubt["code"] for doubt in result["doubts"]}
    assert_same_number(Loop(model, loss_of, len(x), 16), result, small=16, large=256, at_once=16, draws=20)


def test_lora_counts_the_trainable_parameters_alone(
    transformers: ModuleType, bnoise: Call, write: Write
) -> None:
    pytest.importorskip("peft")
    result = probed(bnoise, write, {
        "version": 1,
        "model": {
            "_target_": "peft.get_peft_model", "model": yaml.safe_load(GPT2),
            "peft_config": {
                "_target_": "peft.LoraConfig", "r": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True,
            },
        },
        "dataset": {"_target_": "bnoise_cli.examples.datasets.StdlibText", "context": 32, "form": "transformers"},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-2},
        "probe": {"warmup_steps": 10, "max_examples": 1000},
    })  # fmt: skip
    [frozen] = [doubt for doubt in result["doubts"] if doubt["code"] == "frozen"]
    assert frozen["finding"].startswith("99% of the parameters are frozen")


@pytest.mark.parametrize("kind", ["json", "parquet", "folder", "columns"])
def test_datasets_of_hugging_face_from_local_files(
    transformers: ModuleType, bnoise: Call, write: Write, kind: str
) -> None:
    datasets = pytest.importorskip("datasets")
    rows = np.random.default_rng(0).integers(0, 256, (300, 32)).tolist()
    data = datasets.Dataset.from_dict({"input_ids": rows, "labels": rows})
    load: dict[str, Any] = {"_target_": "datasets.load_dataset", "_args_": [kind], "split": "train"}
    if kind == "folder":
        data.save_to_disk("kept")
        load = {"_target_": "datasets.load_from_disk", "_args_": ["kept"]}
    elif kind == "json":
        load["data_files"] = str(write("d.jsonl", "\n".join(json.dumps(row) for row in data)))
    else:
        data.to_parquet("d.parquet")
        load |= {"_args_": ["parquet"], "data_files": "d.parquet"}
    if kind == "columns":  # no split: several by name
        del load["split"]
    write("c.yaml", yaml.safe_dump({
        "version": 1, "model": yaml.safe_load(GPT2), "dataset": load,
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
        "probe": {"warmup_steps": 2, "max_examples": 500},
    }))  # fmt: skip
    code, out, said = bnoise("probe", "c.yaml", "--json", "--quiet")
    if kind == "columns":
        assert code == 4
        assert "several by name: train" in said
        return
    assert code in (0, 3), said
    assert json.loads(out)["provenance"]["dataset_length"] == 300


def test_texts_of_unequal_length_count_by_their_tokens(
    transformers: ModuleType, bnoise: Call, write: Write
) -> None:
    datasets = pytest.importorskip("datasets")
    text = Path(importlib.import_module("argparse").__file__ or "").read_text(encoding="utf-8")
    lines = [{"text": line} for line in text.splitlines() if len(line) > 3]
    write("d.jsonl", "\n".join(map(json.dumps, lines)))
    result = probed(bnoise, write, {
        "version": 1, "model": yaml.safe_load(GPT2),
        "dataset": {
            "_target_": "bnoise_cli.data.Texts", "context": 32,
            "texts": {
                "_target_": "datasets.load_dataset", "_args_": ["json"], "data_files": "d.jsonl", "split": "train",
            },
        },
        "collate": {"_target_": "bnoise_cli.data.padded"},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
        "probe": {"warmup_steps": 10, "max_examples": 2000},
    })  # fmt: skip
    assert datasets
    codes = {doubt["code"] for doubt in result["doubts"]}
    assert "unequal_lengths" in codes
    assert "not_a_mean" not in codes
    lengths = [min(32, len(line["text"])) for line in lines]
    assert result["provenance"]["tokens_per_example"] == pytest.approx(np.mean(lengths), rel=0.1)


def test_an_argument_that_the_signature_hides_is_believed(
    transformers: ModuleType, bnoise: Call, write: Write
) -> None:
    """Configurations of transformers take more than `inspect.signature` says."""
    config = {"_target_": "transformers.ResNetConfig", "num_labels": 10, "num_channels": 1}
    write("c.yaml", yaml.safe_dump({
        "version": 1, "model": {"_target_": "transformers.ResNetForImageClassification", "config": config},
        "dataset": {"_target_": "none.py:x"}, "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    }))  # fmt: skip
    _, _, said = bnoise("check", "c.yaml", "--validate-only")
    code, _, said = bnoise("probe", "c.yaml")
    assert code == 2
    assert "num_labels" not in said
    assert "torch" in sys.modules
