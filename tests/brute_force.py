"""Tasks on which a line of the loss misleads, and the noise scale of any small task by brute force in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from bnoise_cli.examples.quadratic import mean_loss
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Objective, Task, Traits

Array = NDArray[np.float64]
Tensors = tuple[Tensor, ...]


def mean_gains(
    task: Task, batch_sizes: Sequence[int], draws: Sequence[int], steps: Array, seed: int = 0
) -> Array:
    """The mean gain over the whole dataset, for each step size, of updates at each batch size.

    To first order an update gains ε·Gᵀu, whose mean ε·|G|² is known: what each draw deviates from it is taken off.

    Args:
        task: with a dataset of tensors, small enough to go through the model at once.
        draws: updates at each batch size.

    Returns:
        ΔL(ε, B) in the loss's unit, shape (K, len(steps)).
    """
    model = copy.deepcopy(task.model).double()
    data = [t.double() if t.is_floating_point() else t for t in task.batches.dataset.tensors]
    parameters = list(model.parameters())
    origin = [p.detach().clone() for p in parameters]

    def loss(examples: Any) -> Tensor:
        batch = [t[examples] for t in data]
        return task.objective(model, batch if len(batch) > 1 else batch[0])

    def gradient(index: int) -> Tensor:
        found = torch.autograd.grad(loss(slice(index, index + 1)), parameters)
        return torch.cat([g.flatten() for g in found])

    gradients = torch.stack([gradient(i) for i in range(len(data[0]))])
    mean = gradients.mean(0)
    rng = np.random.default_rng(seed)
    gains = np.zeros((len(batch_sizes), len(steps)))
    sizes = [p.numel() for p in parameters]
    with torch.no_grad():
        start = float(loss(slice(None)))
        for k, (size, count) in enumerate(zip(batch_sizes, draws, strict=True)):
            for _ in range(count):
                update = gradients[rng.integers(len(gradients), size=size)].mean(0)
                luck = float(mean @ (update - mean))
                for j, step in enumerate(steps):
                    for p, o, u in zip(parameters, origin, update.split(sizes), strict=True):
                        p.copy_(o - step * u.view_as(o))
                    gains[k, j] += (start - float(loss(slice(None))) - step * luck) / count
    return gains


def noise_scale_of(batch_sizes: Sequence[int], gains: Array) -> float:
    """B_noise of the law 1/ΔL_opt = (1 + B_noise/B)/ΔL_max (M18 eq. 2.7), least squares of the logarithm."""
    heights = np.log(gains.max(axis=1))
    scales = np.geomspace(0.1, 1e5, 20_000)
    shapes = -np.log1p(scales[:, None] / np.array(batch_sizes))
    left = heights - shapes
    return float(scales[np.argmin(left.var(axis=1))])


def task_of(model: nn.Module, objective: Objective, tensors: Tensors) -> Task:
    """A task on tensors without random masks."""
    batches = Batches(TensorDataset(*tensors), None, torch.device("cpu"))
    task = Task(model, objective, batches, micro_batch_size=64)
    task.adopt(Traits(stochastic=False))
    return task


def train(
    model: nn.Module, objective: Objective, tensors: Tensors, optimizer: torch.optim.Optimizer, steps: int
) -> None:
    """Steps on independent batches of 32 examples."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        chosen = torch.randint(len(tensors[0]), (32,), generator=generator)
        optimizer.zero_grad()
        objective(model, [t[chosen] for t in tensors]).backward()
        optimizer.step()


# --- tokens: attention that is not scaled, after a warm-up that leaves most of the loss -------------------


class Attention(nn.Module):
    """Attention without a scale, as T5 has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        y: Tensor = self.o((self.q(x) @ self.k(memory).mT).softmax(-1) @ self.v(memory))
        return y


class Translator(nn.Module):
    """One layer that reads and one that writes, with tied embeddings of unit size."""

    def __init__(self, tokens: int = 48, width: int = 24, length: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(tokens, width))
        self.place = nn.Parameter(torch.randn(length, width))
        self.read, self.write = Attention(width), Attention(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, source: Tensor) -> Tensor:
        x = self.embedding[source] + self.place
        x = functional.rms_norm(x + self.read(x, x), x.shape[-1:])
        y = functional.rms_norm(self.place + self.write(self.place.expand_as(x), x), x.shape[-1:])
        y = functional.rms_norm(y + self.down(self.up(y).relu()), x.shape[-1:])
        return y @ self.embedding.T


def token_loss(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    source, target = batch
    return functional.cross_entropy(model(source).flatten(0, 1), target.flatten())


@cache
def sentences(count: int = 1500) -> Tensors:
    """Tokens of sentences of unequal popularity, and the same backwards with three in ten replaced."""
    generator = torch.Generator().manual_seed(0)
    popularity = 1 / torch.arange(1, 49)
    source = torch.multinomial(popularity, count * 8, replacement=True, generator=generator).view(count, 8)
    noise = torch.rand(count, 8, generator=generator) < 0.3
    other = torch.multinomial(popularity, count * 8, replacement=True, generator=generator).view(count, 8)
    return source, torch.where(noise, other, source.flip(1))


def token_task() -> Task:
    """Noisy sentences, written backwards."""
    torch.manual_seed(0)
    model, tensors = Translator(), sentences()
    train(model, token_loss, tensors, torch.optim.AdamW(model.parameters(), 3e-3), 300)
    return task_of(model, token_loss, tensors)


# --- graphs: sums over neighbours make the loss turn within a hundredth of what its size suggests ---------------


class GraphNet(nn.Module):
    """Two layers that add up neighbours, and a sum over the nodes."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.one, self.two = (
            nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width))
            for inputs in (4, width)
        )
        self.out = nn.Linear(width, 2)

    def forward(self, x: Tensor, adjacent: Tensor, present: Tensor) -> Tensor:
        h = self.one(x + adjacent @ x).relu() * present
        h = self.two(h + adjacent @ h).relu() * present
        y: Tensor = self.out(h.sum(1) / 10)
        return y


def graph_loss(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    *graph, classes = batch
    return functional.cross_entropy(model(*graph), classes)


@cache
def _graphs(count: int = 600, most: int = 20) -> Tensors:
    """Graphs of 5 to 19 nodes, padded; those of class 1 have more edges."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(count) % 2
    nodes = torch.randint(5, most, (count, 1), generator=generator)
    present = (torch.arange(most) < nodes).float()[..., None]
    chance = torch.where(classes == 1, 0.35, 0.22)[:, None, None]
    half = torch.rand(count, most, most, generator=generator) < chance
    adjacent = (half | half.mT).float() * present * present.mT
    x = (1 + 0.1 * torch.randn(count, most, 4, generator=generator)) * present
    return x, adjacent, present, classes


def graph_task() -> Task:
    """Graphs of unequal size, after three epochs of SGD that leave nearly all of the loss."""
    torch.manual_seed(0)
    model, tensors = GraphNet(), _graphs()
    train(model, graph_loss, tensors, torch.optim.SGD(model.parameters(), 0.02), 57)
    return task_of(model, graph_loss, tensors)


# --- a policy: recorded actions, whose ratios are clipped ------------------------------------------------


class Policy(nn.Module):
    """Logits of two actions and the value of a state."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.act, self.value = nn.Linear(width, 2), nn.Linear(width, 1)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(states)
        return self.act(h), self.value(h)[:, 0]


def policy_loss(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    """The clipped surrogate of PPO with a value loss and an entropy bonus, a mean over steps."""
    states, actions, recorded, advantages, returns = batch
    logits, value = model(states)
    logs = logits.log_softmax(1)
    ratio = (logs.gather(1, actions[:, None])[:, 0] - recorded).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    entropy = -(logs.exp() * logs).sum(1)
    return -surrogate.mean() + 0.1 * functional.mse_loss(value, returns) - 0.01 * entropy.mean()


def policy_task(steps: int = 10) -> Task:
    """Recorded steps of an untrained policy, after a few steps of Adam."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    model = Policy()
    states = torch.randn(2000, 4, generator=generator)
    with torch.no_grad():
        logs = model(states)[0].log_softmax(1)
    actions = (torch.rand(2000, generator=generator) > logs[:, 0].exp()).long()
    side = 2 * actions - 1
    returns = side * torch.tanh(states[:, 0] - states[:, 1]) + torch.randn(2000, generator=generator)
    recorded = logs.gather(1, actions[:, None])[:, 0]
    tensors = (states, actions, recorded, returns - returns.mean(), returns)
    train(model, policy_loss, tensors, torch.optim.Adam(model.parameters(), 3e-3), steps)
    return task_of(model, policy_loss, tensors)


# --- shapes: a loss that is written down, with an irreducible part of 1 ------------------------------------

#: φ(θ) near θ = 0.1, where the mean gradient is not zero and the best step gains some thousandths of the loss.
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "quadratic": lambda t: t**2,
    "quartic wall": lambda t: t**2 + 300 * (t - 0.1) ** 4,
    "walls like |x|": lambda t: t**2 + 2 * functional.softplus(100 * (-t - 0.05)) / 100,
    "bounded": lambda t: 0.01 * (1 - torch.exp(-((t / 0.1) ** 2))),
}


class Shape(nn.Module):
    """The mean of φ over coordinates, plus 1, plus noise that is linear in θ and has no mean."""

    def __init__(self, shape: str, dimension: int = 32) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.linspace(0.05, 0.15, dimension))
        self.shape = SHAPES[shape]

    def forward(self, noise: Tensor) -> Tensor:
        return 1 + self.shape(self.theta).mean() + noise @ self.theta


def shape_task(shape: str, noise: float, examples: int = 1500) -> Task:
    """A written-down loss; `noise` is the standard deviation of a gradient over the size of the mean gradient."""
    model = Shape(shape)
    [gradient] = torch.autograd.grad(model.shape(model.theta).mean(), model.theta)
    z = torch.randn(examples, len(model.theta), generator=torch.Generator().manual_seed(0))
    z = (z - z.mean(0)) * noise * gradient.norm() / len(model.theta) ** 0.5
    return task_of(model, mean_loss, (z,))
