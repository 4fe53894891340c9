"""A model, and a loss that fails in a chosen way on a chosen rank from a chosen call on."""

import os
import signal

import torch
from torch import nn
from torch.utils.data import TensorDataset

NORMS = {False: nn.Identity, True: nn.BatchNorm1d, "sync": nn.SyncBatchNorm}


def model(dropout=0.0, width=32, norm=False, tied=False):
    blocks = nn.ModuleList(
        nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(dropout)) for _ in range(2)
    )
    net = Net(nn.Linear(6, width), blocks, NORMS[norm](width), nn.Linear(width, 3))
    if tied:
        net.parts = nn.ModuleDict({"mixing": nn.Linear(width, width, bias=False), "blocks": blocks})
        net.norm = nn.Sequential(nn.Linear(width, width, bias=False), net.parts["mixing"])
        net.norm[0].weight = net.parts["mixing"].weight
    return net


class Net(nn.Module):
    def __init__(self, first, blocks, norm, last):
        super().__init__()
        self.first, self.blocks, self.norm, self.last = first, blocks, norm, last

    def forward(self, x):
        x = self.norm(self.first(x))
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


def data(n=400, noise=1.0):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n + (int(os.environ["RANK"]) if "UNEQUAL" in os.environ else 0), 6, generator=g)
    return TensorDataset(x, (x[:, :3] + noise * torch.randn(len(x), 3, generator=g)).argmax(1))


CALLS = 0


def loss(model, batch):
    global CALLS
    CALLS += 1
    value = nn.functional.cross_entropy(model(batch[0]), batch[1])
    kind, rank, after = os.environ.get("FAULT", "none:0:0").split(":")
    if int(rank) == int(os.environ.get("RANK", "0")) and int(after) < CALLS:
        if kind == "raise":
            raise ValueError("a file of this rank is missing")
        if kind == "memory" and len(batch[0]) > 5:
            raise torch.OutOfMemoryError("no room for more than five")
        if kind == "nan":
            return value * float("nan")
        if kind in ("SIGKILL", "SIGSTOP", "SIGINT"):
            os.kill(os.getpid(), getattr(signal, kind))
    return value
