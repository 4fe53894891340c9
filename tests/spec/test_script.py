"""`bnoise init train.py`: what the text of a script says, in the style of common tutorials; no script is ever run."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from bnoise_cli.errors import CallError
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.script.pieces import read_script
from bnoise_cli.spec.script.reading import Found
from bnoise_cli.spec.script.syntax import Script
from tests.cases import ROOT, Call, Write

#: A classifier with argparse, everything inside main(); parse_args() at import would end a process.
CLASSIFIER = """
import argparse
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torchvision import datasets, transforms

raise RuntimeError("this script was run")

class Net(nn.Module):
    def __init__(self, width, classes=10):
        super().__init__()
        self.out = nn.Linear(width, classes)

    def forward(self, x):
        return F.log_softmax(self.out(x.flatten(1)), dim=1)

def train(args, model, device, loader, optimizer):
    for data, target in loader:
        optimizer.zero_grad()
        output = model(data.to(device))
        loss = F.nll_loss(output, target, reduction="mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--nesterov", action="store_true")
    args = parser.parse_args()
    device = torch.device("cpu")
    kwargs = {"batch_size": args.batch_size}
    kwargs.update({"shuffle": True})
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.25,))])
    test_set = datasets.MNIST("data", train=False, transform=transform)
    train_set = datasets.MNIST("data", train=True, transform=transform)
    test_loader = torch.utils.data.DataLoader(test_set, batch_size=1000)
    train_loader = torch.utils.data.DataLoader(train_set, **kwargs)
    model = Net(28 * 28).to(device)
    optimizer = optim.SGD(model.parameters(), args.lr, momentum=0.9, nesterov=args.nesterov)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1)
    train(args, model, device, train_loader, optimizer)

if __name__ == "__main__":
    main()
"""
#: A language model in files of its own, settings at the top, micro-batches added up, training at import.
LANGUAGE_MODEL = """
import torch
from net import GPT, Config

batch_size = 12
gradient_accumulation_steps = 5 * 8
learning_rate = 6e-4
beta1, beta2 = 0.9, 0.95
model_args = dict(layers=2, width=16)
model = GPT(Config(**model_args))
optimizer = model.configure_optimizers(0.1, learning_rate, (beta1, beta2))
model = torch.compile(model)
for step in range(10):
    x, y = batch()
    logits, loss = model(x, y)
    (loss / gradient_accumulation_steps).backward()
    optimizer.step()
"""
NET = """
import torch
from dataclasses import dataclass

@dataclass
class Config:
    layers: int = 1

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()

    def configure_optimizers(self, weight_decay, learning_rate, betas):
        groups = [{"params": self.parameters(), "weight_decay": weight_decay}]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)
"""
LIGHTNING = """
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

class Pairs(Dataset):
    def __len__(self):
        return 10

class Lit(L.LightningModule):
    def __init__(self, lr: float = 0.003):
        super().__init__()
        self.save_hyperparameters()
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.criterion(self(x), y)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)

class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 24):
        super().__init__()
        self.batch_size = batch_size

    def val_dataloader(self):
        return DataLoader(Pairs(), batch_size=7)

    def train_dataloader(self):
        return DataLoader(Pairs(), batch_size=self.batch_size, collate_fn=together)

def together(examples):
    return examples

L.Trainer().fit(Lit(), Data())
"""
TRANSFORMERS = """
from datasets import load_dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("tiny")
data = load_dataset("text", split="train")
arguments = TrainingArguments(output_dir="out", learning_rate=2e-5, per_device_train_batch_size=4)
Trainer(model=model, args=arguments, train_dataset=data).train()
"""
#: A loss of its own, one more input, an optimizer that is only one of two.
OWN_LOSS = """
import torch

class Auto(torch.nn.Module):
    pass

def loss_function(recon, x, mu, logvar):
    return recon.sum()

def build():
    return Auto()

def main(data, use):
    model = build()
    if use:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    recon, mu, logvar = model(data)
    loss = loss_function(recon, data, mu, logvar)
    loss.backward()
"""


def read(write: Write, text: str, **others: str) -> Found:
    for name, code in others.items():
        write(f"{name}.py", code)
    return read_script(Script.read(write("train.py", text), Path()))


def values(found: Found) -> dict[str, Any]:
    return {key: target.as_value() for key, target in found.targets.items()}


def test_a_classifier_is_found_whole(write: Write) -> None:
    found = read(write, CLASSIFIER)
    normalize = {"_target_": "torchvision.transforms.Normalize", "_args_": [[0.5], [0.25]]}
    steps = [{"_target_": "torchvision.transforms.ToTensor"}, normalize]
    transform = {"_target_": "torchvision.transforms.Compose", "_args_": [steps]}
    assert values(found) == {
        "model": {"_target_": "train.py:Net", "width": 784},
        "dataset": {
            "_target_": "torchvision.datasets.MNIST",
            "_args_": ["data"],
            "train": True,
            "transform": transform,
        },
        "loss": {"_target_": "torch.nn.functional.nll_loss", "reduction": "mean"},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9, "nesterov": False},
    }
    assert (found.batch_size, found.max_grad_norm, found.missing) == (48, 0.5, [])
    assert found.scheduler is not None
    assert "StepLR" in found.scheduler
    assert not found.trains_on_import


def test_a_model_of_another_file_and_an_optimizer_of_its_method(write: Write) -> None:
    found = read(write, LANGUAGE_MODEL, net=NET)
    assert values(found) == {
        "model": {
            "_target_": "net.py:GPT",
            "config": {"_target_": "net.py:Config", "layers": 2, "width": 16},
        },
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 6e-4, "betas": [0.9, 0.95]},
        "objective": {"_target_": "bnoise_cli.data.returned_loss"},
    }
    assert found.missing == ["dataset"]
    assert found.batch_size == 12 * 40
    assert "groups" in found.notes["optimizer"]
    assert found.trains_on_import


def test_a_lightning_module(write: Write) -> None:
    found = read(write, LIGHTNING)
    assert values(found) == {
        "model": {"_target_": "train.py:Lit"},
        "dataset": {"_target_": "train.py:Pairs"},
        "collate": {"_target_": "train.py:together"},
        "loss": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.003},
    }
    assert (found.batch_size, found.missing) == (24, [])


def test_the_trainer_of_transformers(write: Write) -> None:
    found = read(write, TRANSFORMERS)
    assert found.own_loss
    assert (found.batch_size, found.missing) == (4, [])
    assert values(found)["optimizer"] == {"_target_": "torch.optim.AdamW", "lr": 2e-5}
    assert values(found)["dataset"] == {
        "_target_": "datasets.load_dataset",
        "_args_": ["text"],
        "split": "train",
    }


def test_what_cannot_be_named_is_said(write: Write) -> None:
    found = read(write, OWN_LOSS)
    assert set(found.missing) == {"dataset", "loss", "training.batch_size"}
    assert "loss_function(recon, data, mu, logvar)" in found.notes["loss"]
    assert found.notes["optimizer"] == "the script makes it only if use"
    assert values(found)["model"] == {"_target_": "train.py:build"}


@pytest.mark.parametrize(
    ("more", "argument", "expression"),
    [("model = Net(classes())", "width", "classes()"), ("model = Net(3, classes=n)", "classes", "n")],
)
def test_arguments_that_the_text_does_not_say_are_open(
    write: Write, more: str, argument: str, expression: str
) -> None:
    text = CLASSIFIER.replace("model = Net(28 * 28).to(device)", more)
    assert read(write, text).targets["model"].open == ((argument, expression),)


def test_an_own_loss_keeps_its_named_arguments() -> None:
    folder = ROOT / "configs"
    found = read_script(Script.read(folder / "own_script.py", folder))
    assert found.targets["objective"].as_value() == {
        "_target_": "own_script.py:training_loss",
        "smoothing": 0.05,
    }


def test_names_that_stand_for_themselves_end(write: Write) -> None:
    loop = "size = (size, size)\nlr = lr * 0.1\na = b\nb = a\nmodel = a\nmodel = model\n"
    found = read(
        write, loop + "import torch\noptimizer = torch.optim.SGD(model.parameters(), lr=lr, betas=size)\n"
    )
    assert found.targets["optimizer"].open == (("lr", "lr"), ("betas", "size"))
    assert "model" in found.missing


def test_init_writes_it_without_running_it(bnoise: Call, write: Write) -> None:
    write("train.py", CLASSIFIER)
    code, out, err = bnoise("init", "train.py")
    assert (code, out) == (0, "")
    assert "Found in train.py: optimizer (line" in err
    assert "To fill in" not in err
    spec = load_spec(Path("bnoise.yaml"), at_hand=False)
    assert spec.config.optimizer["lr"] == 0.01
    assert spec.config.training.max_grad_norm == 0.5
    text = Path("bnoise.yaml").read_text()
    assert "# The script changes the learning rate (optim.lr_scheduler.StepLR" in text
    assert "betas: [" not in text


def test_init_marks_what_is_missing(bnoise: Call, write: Write) -> None:
    write("train.py", LANGUAGE_MODEL)
    write("net.py", NET)
    code, _, err = bnoise("init", "train.py", "--out", "own.yaml")
    assert code == 0
    assert "To fill in: dataset." in err
    assert "Fill that in. Look it over. Then try it with `bnoise probe own.yaml --dry-run`." in err
    text = Path("own.yaml").read_text()
    assert "# dataset: NOT FOUND." in text
    assert "  betas: [0.9, 0.95]\n" in text
    assert "# training.batch_size: with gradient_accumulation_steps: 40" in text
    assert yaml.safe_load(text)["model"]["config"]["layers"] == 2
    write("train.py", OWN_LOSS)
    bnoise("init", "train.py", "--out", "loss.yaml")
    said = " ".join(Path("loss.yaml").read_text().replace("#", "").split())
    assert re.search(
        r"loss: NOT FOUND. line \d+ calls loss_function\(recon, data, mu, logvar\): write f", said
    )


def test_a_script_that_trains_when_it_is_imported_is_named(bnoise: Call, write: Write) -> None:
    write("train.py", CLASSIFIER.replace('if __name__ == "__main__":\n    main()', "main()"))
    bnoise("init", "train.py")
    assert (
        '# Importing train.py trains: put its loop under `if __name__ == "__main__":`'
        in Path("bnoise.yaml").read_text()
    )


def test_calls_of_init_that_are_wrong(bnoise: Call, write: Write) -> None:
    write("train.py", "def f(:\n")
    code, _, err = bnoise("init", "train.py")
    assert code == 2
    assert "train.py cannot be parsed" in err
    code, _, err = bnoise("init", "none.py")
    assert code == 2
    assert "none.py cannot be read" in err
    code, _, err = bnoise("init", "train.py", "--model", "train.py:f")
    assert code == 2
    assert "Leave the other options out" in err
    with pytest.raises(CallError):
        Script.read(Path("train.py"), Path())


PLAIN = """
import torch
class Net(torch.nn.Module): pass
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr={0})
"""
CHAIN = "".join(f"a{i} = a{i - 1} + a{i - 1}\n" for i in range(1, 19))


@pytest.mark.parametrize(
    "number",
    ["int(1e308 * 10)", f"{'9' * 400} / 3", f"float({'9' * 400})", "1e400 - 1e400", "10 ** 9 ** 9", "a18"],
)
def test_a_number_that_no_config_holds_is_left_open(write: Write, number: str) -> None:
    found = read(write, "a0 = " + "9" * 90 + "\n" + CHAIN.replace("+", "*") + PLAIN.format(number))
    assert [name for name, _ in found.targets["optimizer"].open] == ["lr"]


@pytest.mark.parametrize(
    "text",
    [
        "a0 = 1\n" + CHAIN + PLAIN.format("a18"),
        PLAIN.format("lr") + "lr = unknown()\n" * 10_000,
        "".join(f"def f{i}(x):\n    return g{i}(x)\n" for i in range(4000)) + PLAIN.format("0.1"),
        "".join("  " * i + f"def f{i}():\n" for i in range(90)) + "  " * 90 + "pass\n" + PLAIN.format("0.1"),
        "from torch.utils.data import DataLoader\n" + "x = DataLoader(foo())\n" * 3000 + PLAIN.format("0.1"),
    ],
)
def test_a_long_script_takes_no_longer_than_its_length(write: Write, text: str) -> None:
    """Work grows with the text: names that double, and scopes and assignments that are looked at again for each."""
    begun = time.process_time()
    read(write, text)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAIN.format("-" * 1500 + "1"), "nested too deeply"),
        ("import torch\nmodel = torch" + ".a" * 5000 + "()\n", "recursion|nested too deeply"),
        ("x = 1\0", "null bytes"),
        ("# coding: hex\n", "text encoding"),
    ],
)
def test_a_script_that_cannot_be_read_is_one_message(write: Write, text: str, said: str) -> None:
    with pytest.raises(CallError, match=said):
        read(write, text)


def test_circles_and_folders_above_the_top_end(write: Write) -> None:
    write("other.py", "from train import x\nfrom " + "." * 99 + "far import y\n")
    read(
        write, "from other import x\nclass A(B): pass\nclass B(A): pass\nmodel = A()\n" + PLAIN.format("0.1")
    )


def test_a_name_of_a_script_stays_in_its_comment(bnoise: Call, write: Write) -> None:
    name = "a\nversion: 3\x1b[31m.py"
    write(name, PLAIN.format("0.1"))
    assert bnoise("init", name)[0] == 0
    text = Path("bnoise.yaml").read_text()
    assert "\x1b" not in text
    assert yaml.safe_load(text)["version"] == 1
    assert yaml.safe_load(text)["model"]["_target_"] == f"{name}:Net"


def test_a_link_is_never_written_through(bnoise: Call, write: Write) -> None:
    write("train.py", PLAIN.format("0.1"))
    Path("loop.yaml").symlink_to("loop.yaml")
    Path("other.yaml").symlink_to("elsewhere.yaml")
    for out in ("loop.yaml", "other.yaml", "loop.yaml/x.yaml", "a" * 5000 + ".yaml"):
        code, _, err = bnoise("init", "train.py", "--out", out)
        assert code == 2, err
        assert "Traceback" not in err
    assert not Path("elsewhere.yaml").exists()
