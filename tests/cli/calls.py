"""A user's script and config for the tests of the program."""

from __future__ import annotations

USER = """\
import torch
from torch import nn
from torch.utils.data import TensorDataset

class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

def data(n=200, flat=True):
    g = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, 3, generator=g), torch.randint(2, (n,), generator=g))

class Ragged:
    def __len__(self): return 9
    def __getitem__(self, i): return torch.zeros(i + 1), 0

class Neither:
    pass

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        for x, y in data(6000):
            yield x, y

def loader():
    return torch.utils.data.DataLoader(data(), batch_size=7, shuffle=True, collate_fn=my_collate)

def my_collate(examples):
    return [torch.stack([x for x, _ in examples]) + 100, torch.stack([y for _, y in examples])]

def plus_one(model, batch):
    assert batch[0].mean() > 50
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)

calls = 0
def late_nan(model, batch):
    global calls
    calls += 1
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    return loss * float('nan') if calls > 30 else loss

def vector(model, batch):
    return model(batch[0])

def raising(model, batch):
    raise KeyError('my mistake')

def no_model():
    return 3

def leaving():
    raise SystemExit(0)

def chatty(model, batch):
    print('hello')
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

def negated(model, batch):
    return -chatty(model, batch)
"""


USER_CONFIG = """\
version: 1
model: {_target_: user.py:Net}
dataset: {_target_: user.py:data}
loss: {_target_: torch.nn.CrossEntropyLoss}
optimizer: {_target_: torch.optim.SGD, lr: 0.1}
probe: {warmup_steps: 5, max_examples: 2000}
"""
