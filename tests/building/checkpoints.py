"""A trained model, and checkpoints of it in every format."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CONFIG = """\
version: 1
model: {_target_: user.py:Net}
dataset: {_target_: user.py:data}
loss: {_target_: torch.nn.MSELoss}
optimizer: {_target_: torch.optim.AdamW, lr: 1e-3}
training: {batch_size: 16}
probe: {warmup_steps: 0, max_examples: 1024}
"""


class Net(nn.Module):
    """The model of the config, also of its source in USER."""

    def __init__(self, tied: bool = False, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(3, 5)
        self.norm = nn.LayerNorm(5)
        self.last = nn.Linear(5, 3)
        if tied:
            self.back = nn.Linear(5, 3, bias=False)
            self.last.weight = self.back.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(self.first(x)))
        return out


USER = f"""\
import torch
from torch import Tensor, nn

{inspect.getsource(Net)}
def data(n=256):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=g)
    return torch.utils.data.TensorDataset(x, x @ torch.ones(3, 3) + torch.randn(n, 3, generator=g))
"""


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> torch.optim.Optimizer:
    """An optimizer after some steps with gradients that differ everywhere."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return optimizer


def decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """As nanoGPT and transformers group parameters."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def holds(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in own)


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def plain(model: Net, state: Any) -> str:
    torch.save(model.state_dict(), "w.pt")
    return "w.pt"


def legacy(model: Net, state: Any) -> str:
    torch.save(model.state_dict(), "w.pth", _use_new_zipfile_serialization=False)
    return "w.pth"


def script(model: Net, state: Any) -> str:
    content = {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": state,
        "step": torch.tensor(40),
    }
    torch.save({**content, "epoch": 3}, "ckpt.tar")
    return "ckpt.tar"


def nanogpt(model: Net, state: Any) -> str:
    weights = prefixed("_orig_mod.", model.state_dict())
    content = {"model": weights, "optimizer": state, "iter_num": 40, "best_val_loss": torch.tensor(2.0)}
    torch.save(
        {**content, "model_args": {"n_layer": 2, "bias": False}, "config": {"device": "cpu"}}, "ckpt.pt"
    )
    return "ckpt.pt"


def trainer_state(folder: str, state: Any) -> str:
    torch.save(state, f"{folder}/optimizer.pt")
    Path(f"{folder}/trainer_state.json").write_text(json.dumps({"epoch": 0.5, "global_step": 40}))
    return folder


def trainer_bin(model: Net, state: Any) -> str:
    Path("checkpoint-40").mkdir()
    torch.save(model.state_dict(), "checkpoint-40/pytorch_model.bin")
    return trainer_state("checkpoint-40", state)


def trainer_shards(model: Net, state: Any) -> str:
    Path("checkpoint-40").mkdir()
    places = {}
    for i, name in enumerate(model.state_dict()):
        places[name] = f"pytorch_model-0000{i % 2 + 1}-of-00002.bin"
    for part in set(places.values()):
        torch.save(
            {n: v for n, v in model.state_dict().items() if places[n] == part}, f"checkpoint-40/{part}"
        )
    index = {"metadata": {}, "weight_map": places}
    Path("checkpoint-40/pytorch_model.bin.index.json").write_text(json.dumps(index))
    return trainer_state("checkpoint-40", state)


def save_run(model: Net, optimizer: torch.optim.Optimizer, names: dict[str, int | None]) -> None:
    """Checkpoints of one run, some with a counter."""
    for name, step in names.items():
        trained(model, optimizer, steps=1)
        counted = {} if step is None else {"step": step}
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **counted}, name)
