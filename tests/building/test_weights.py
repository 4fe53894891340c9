"""Weights whose names differ from the names of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.building.checkpoint import Checkpoint, read_checkpoint
from bnoise_cli.measurement.building.weights import fitting_weights, load_weights
from tests.building.checkpoints import Net, holds, prefixed


def of(weights: dict[str, Any]) -> Checkpoint:
    return Checkpoint(path=Path("w.pt"), weights=weights, optimizer_state=None, step=None)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "a.net._orig_mod."],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_prefix_that_all_names_share_is_no_part_of_them(prefix: str, compiled: bool) -> None:
    model, other = Net(), Net(seed=9)
    target = torch.compile(other) if compiled else other
    assert isinstance(target, nn.Module)
    load_weights(target, of(prefixed(prefix, model.state_dict())))
    assert holds(other, model.state_dict())


def test_a_compiled_part_has_the_names_of_a_plain_one() -> None:
    model, other = Net(), Net(seed=9)
    other.first = torch.compile(other.first)  # type: ignore[assignment]
    load_weights(other, of(model.state_dict()))
    assert torch.equal(other.last.weight, model.last.weight)
    assert holds(other.first._orig_mod, model.first.state_dict())  # type: ignore[arg-type]


def test_a_prefix_of_the_models_own_stays() -> None:
    """All of its names share one too."""
    model, other = (nn.Sequential(nn.Sequential(Net(seed=seed))) for seed in (1, 2))
    load_weights(other, of(model.state_dict()))
    assert holds(other, model.state_dict())
    with pytest.raises(RunError, match=r"missing from it: 0\.0\.first"):
        load_weights(other, of(model[0].state_dict()))


def test_what_is_tied_may_be_left_out(tmp_path: Path) -> None:
    model, other = Net(tied=True), Net(tied=True, seed=9)
    whole = model.state_dict()
    for left_out in ("back.weight", "last.weight"):
        load_weights(other, of({name: value for name, value in whole.items() if name != left_out}))
        assert holds(other, whole)
        assert other.back.weight is other.last.weight
    with pytest.raises(RunError, match=r"missing from it: last\.bias\)"):
        fitting_weights(other, of({n: v for n, v in whole.items() if n not in ("back.weight", "last.bias")}))
    untied = {name: value for name, value in Net().state_dict().items() if name != "last.weight"}
    with pytest.raises(RunError, match=r"missing from it: last\.weight\)"):
        fitting_weights(Net(), of(untied))


def test_the_misfit_of_the_nearest_names_is_told() -> None:
    weights = prefixed("net.", Net().state_dict())
    weights.pop("net.last.bias")
    with pytest.raises(
        RunError, match=r"w\.pt does not match the model \(missing from it: last\.bias\)\. Give"
    ):
        load_weights(Net(), of(weights))


def test_what_transformers_saves(transformers: Any, tmp_path: Path) -> None:
    """GPT-2, whose last layer is tied to the first and left out of the file, whole and in parts."""
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    for options in ({}, {"max_shard_size": "4KB"}):
        folder = tmp_path / str(len(options))
        model.save_pretrained(folder, **options)
        found, other = read_checkpoint(folder), transformers.GPT2LMHeadModel(config)
        assert "lm_head.weight" not in found.weights
        load_weights(other, found)
        assert holds(other, model.state_dict())
    assert len(list((tmp_path / "1").glob("*.safetensors"))) > 1
