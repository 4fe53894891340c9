"""Every format of a checkpoint holds the same weights, state and counter."""

from __future__ import annotations

import json
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
import torch

from bnoise_cli.measurement.building.checkpoint import read_checkpoint
from bnoise_cli.measurement.building.optimizer_state import load_optimizer_state
from bnoise_cli.measurement.building.weights import load_weights
from bnoise_cli.measurement.task.preconditioner import preconditioner
from tests.building.checkpoints import (
    Net,
    holds,
    legacy,
    nanogpt,
    plain,
    prefixed,
    script,
    trainer_bin,
    trainer_shards,
    trainer_state,
)


def lightning(model: Net, state: Any) -> str:
    weights = prefixed("net.", model.state_dict())
    content = {"epoch": 1, "global_step": 40, "pytorch-lightning_version": "2.5.0", "state_dict": weights}
    given = {"width": 8, "folder": Path("runs"), "from": PureWindowsPath("c:/data")}
    torch.save(
        {**content, "hyper_parameters": given, "optimizer_states": [state], "lr_schedulers": [], "loops": {}},
        "epoch=1-step=40.ckpt",
    )
    return "epoch=1-step=40.ckpt"


def safe_file(model: Net, state: Any) -> str:
    pytest.importorskip("safetensors.torch").save_file(model.state_dict(), "w.safetensors")
    return "w.safetensors"


def safe_folder(model: Net, state: Any) -> str:
    safetensors = pytest.importorskip("safetensors.torch")
    Path("checkpoint-40").mkdir()
    safetensors.save_file(model.state_dict(), "checkpoint-40/model.safetensors")
    torch.save({"a": 1}, "checkpoint-40/pytorch_model.bin")  # an older one, which is not looked at
    return trainer_state("checkpoint-40", state)


def safe_shards(model: Net, state: Any) -> str:
    safetensors = pytest.importorskip("safetensors.torch")
    Path("checkpoint-40").mkdir()
    places = {name: f"{name}.safetensors" for name in model.state_dict()}
    for name, value in model.state_dict().items():
        safetensors.save_file({name: value}, f"checkpoint-40/{places[name]}")
    Path("checkpoint-40/model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return trainer_state("checkpoint-40", state)


WEIGHTS_ALONE = [plain, legacy, safe_file]


WITH_STATE = [script, nanogpt, lightning, trainer_bin, trainer_shards, safe_folder, safe_shards]


@pytest.mark.parametrize("save", [*WEIGHTS_ALONE, *WITH_STATE])
def test_every_format_holds_the_same(save: Any, saved: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = saved
    path = Path(save(model, optimizer.state_dict()))
    found, other = read_checkpoint(path), Net(seed=9)
    load_weights(other, found)
    assert holds(other, model.state_dict())
    fresh = torch.optim.AdamW(other.parameters(), lr=0.5)
    if save in WEIGHTS_ALONE:
        assert (found.step, found.optimizer_state) == (None, None)
        return
    assert found.step == 40
    assert load_optimizer_state(fresh, list(other.parameters()), found.optimizer_state) is None
    before, after = (preconditioner(o, o.param_groups[0]["params"]) for o in (optimizer, fresh))
    assert before is not None
    assert after is not None
    assert all(torch.equal(one, same) for one, same in zip(before, after, strict=True))
    assert fresh.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("content", "step"), [
    ({"step": 7}, 7), ({"step": 7.0}, 7), ({"iter_num": 7, "step": None}, 7), ({"global_step": torch.tensor([7])}, 7),
    ({"global_step": 8, "step": 7}, 8), ({"epoch": 7}, None), ({"step": True}, None), ({"step": -1}, None),
    ({"step": float("nan")}, None), ({"step": "7"}, None), ({"step": torch.zeros(2)}, None), ({"step": 1 << 80}, None),
    ({"optimizer": "adamw", "step": 0}, 0),
])  # fmt: skip
def test_a_counter_is_a_number_of_steps(tmp_path: Path, content: Any, step: int | None) -> None:
    torch.save({"model": Net().state_dict(), **content}, tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt")
    assert (found.step, found.optimizer_state) == (step, None)
