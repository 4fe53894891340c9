"""Callbacks in real Trainers and in processes that train together: the same bits, and the command's figures."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import bnoise_cli
from bnoise_cli.callbacks import TrainingProbe
from bnoise_cli.examples.models import DigitsCNN
from tests.api.test_door import data, figures
from tests.callbacks.test_training_probe import POINTS, net
from tests.cases import Call, Write, import_torchvision

GPT2 = """\
version: 1
model:
  _target_: own.py:model
checkpoint: [kept/checkpoint-20, kept/checkpoint-40]
dataset:
  _target_: own.py:Tokens
optimizer:
  _target_: torch.optim.AdamW
  lr: 0.01
training:
  batch_size: 8
  max_grad_norm: 1.0
probe: {warmup_steps: 0, max_examples: 1600, batch_sizes: [4, 16, 64], precision: 0.5, horizon: "off"}
"""
GPT2_CODE = """\
import torch
from transformers import GPT2Config, GPT2LMHeadModel

class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, index):
        ids = (torch.arange(12) * (index % 7 + 1) + index) % 31
        return {"input_ids": ids, "labels": ids}

def model():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=32, n_positions=12, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.1, embd_pdrop=0.0, attn_pdrop=0.0,
    ))
"""


def test_a_trainer_goes_on_to_the_same_bits_with_the_commands_figures(
    transformers: ModuleType, bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small GPT-2, probed where the Trainer saves; the command probes its checkpoints."""
    from bnoise_cli.callbacks.transformers import TrainerProbe

    write("own.py", GPT2_CODE)
    write("c.yaml", GPT2)
    monkeypatch.syspath_prepend(".")
    own = __import__("own")

    def train(folder: str, *, probed: bool) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        arguments = transformers.TrainingArguments(
            output_dir=folder, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=41,
            save_steps=20, learning_rate=0.01, lr_scheduler_type="constant", logging_steps=1, report_to="none",
            use_cpu=True, disable_tqdm=True, seed=3,
        )  # fmt: skip
        trainer = transformers.Trainer(own.model(), arguments, train_dataset=own.Tokens())
        if probed:
            trainer.add_callback(TrainerProbe(trainer, config="c.yaml", share=None, at_steps=[20, 40]))
        trainer.train()
        return trainer.model.state_dict(), trainer.state.log_history

    wanted, said = train("plain", probed=False)
    found, told = train("kept", probed=True)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    own_logs = [entry for entry in told if "bnoise/simple_noise_scale" in entry]
    assert [entry["step"] for entry in own_logs] == [20, 40]
    assert [entry["loss"] for entry in told if "loss" in entry] == [e["loss"] for e in said if "loss" in e]
    stored = json.loads(Path(".bnoise/c.probe.json").read_text())
    code, _, err = bnoise("probe", "c.yaml", "--quiet", "--out", "command.json")
    assert code in (0, 3), err
    assert figures(stored) == figures(json.loads(Path("command.json").read_text()))
    wanted_logs = [point["simple_noise_scale"]["value"] for point in stored["trajectory"]]
    assert [entry["bnoise/simple_noise_scale"] for entry in own_logs] == wanted_logs


LIGHTNING = """\
version: 1
model:
  _target_: bnoise_cli.examples.models.DigitsCNN
  channels: 4
checkpoint: [step_20.pt, step_50.pt]
dataset:
  _target_: bnoise_cli.examples.datasets.Digits
loss:
  _target_: torch.nn.CrossEntropyLoss
optimizer:
  _target_: torch.optim.SGD
  lr: 0.1
  momentum: 0.9
training:
  batch_size: 32
probe: {warmup_steps: 0, max_examples: 12000, batch_sizes: [8, 32, 128], precision: 0.5, horizon: "off"}
"""


def test_lightning_goes_on_to_the_same_bits_with_the_commands_figures(bnoise: Call, write: Write) -> None:
    """The CNN on the digits; the command probes the checkpoints."""
    pytest.importorskip("sklearn")
    import_torchvision()
    lightning = pytest.importorskip("lightning.pytorch")
    from bnoise_cli.callbacks.lightning import LightningProbe
    from bnoise_cli.examples.datasets import Digits

    write("c.yaml", LIGHTNING)

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = DigitsCNN(channels=4)

        def training_step(self, batch: Any, i: int) -> torch.Tensor:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    class Keeping(lightning.Callback):  # type: ignore[misc,name-defined]
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            state = trainer.optimizers[0].state_dict()
            kept = {"model": module.net.state_dict(), "optimizer": state, "step": trainer.global_step}
            torch.save(kept, f"step_{trainer.global_step}.pt")

    def train(*callbacks: Any, name: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        module = Module()
        with warnings.catch_warnings(action="ignore"):
            trainer = lightning.Trainer(
                max_steps=55, accelerator="cpu", callbacks=[*callbacks, Keeping()], enable_progress_bar=False,
                enable_model_summary=False, enable_checkpointing=False,
                logger=lightning.loggers.CSVLogger(".", name=name), log_every_n_steps=1,
            )  # fmt: skip
            trainer.fit(module, DataLoader(Digits(), batch_size=32, shuffle=True))
        return dict(module.state_dict())

    wanted = train(name="plain")
    found = train(LightningProbe(config="c.yaml", share=None, at_steps=[20, 50]), name="probed")
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    stored = json.loads(Path(".bnoise/c.probe.json").read_text())
    code, _, err = bnoise("probe", "c.yaml", "--quiet", "--out", "command.json")
    assert code in (0, 3), err
    assert figures(stored) == figures(json.loads(Path("command.json").read_text()))
    assert "bnoise/noise_scale" in Path("probed/version_0/metrics.csv").read_text()


def _together(rank: int, folder: str) -> None:
    """One of two processes that train together, without probes and with them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for probed in (False, True):
        torch.manual_seed(rank)  # rank 0's weights count; masks differ between the ranks
        model = DistributedDataParallel(nn.Sequential(net(), nn.Dropout(0.2)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        probe = None
        if probed:
            options = {**POINTS, "batch_size": 32, "world_size": 2, "at_steps": [3, 9]}
            out = f"{folder}/result.json"
            loss = nn.CrossEntropyLoss()
            probe = TrainingProbe(model, data(), loss, optimizer=optimizer, share=None, out=out, **options)
        sampler: DistributedSampler[Any] = DistributedSampler(data(), seed=1)
        for step, (x, y) in enumerate(DataLoader(data(), batch_size=16, sampler=sampler), 1):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if probe is not None:
                probe.after_step(step)
        torch.save((model.module.state_dict(), torch.get_rng_state()), f"{folder}/{rank}.{probed}.pt")
    dist.destroy_process_group()


def test_processes_that_train_together_go_on_to_the_same_bits(tmp_path: Path) -> None:
    spawn(_together, (str(tmp_path),), nprocs=2)
    states = {
        name: torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for name in ("0.False", "0.True", "1.False", "1.True")
    }
    torch.testing.assert_close(states["0.True"], states["0.False"], rtol=0, atol=0)
    torch.testing.assert_close(states["1.True"], states["1.False"], rtol=0, atol=0)
    torch.testing.assert_close(states["0.True"][0], states["1.True"][0], rtol=0, atol=0)
    assert [point.step for point in bnoise_cli.load(tmp_path / "result.json").trajectory] == [3, 9]
