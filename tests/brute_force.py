"""Tasks on which a line of the loss misleads, and the noise scale of any small task by brute force in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from bnoise_cli.examples.quadratic import mean_loss
from bnoise_cli.maths.intervals import jackknife_error
from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Objective, Task, Traits
from bnoise_cli.records import Estimate

Array = NDArray[np.float64]
Tensors = tuple[Tensor, ...]

#: Step sizes of brute force, over the best one by the law.
_STEPS = np.geomspace(1 / 5, 5, 17)
#: A second difference moves the weights by this part of their size: rounding and fourth order are below 1e-5 of it.
_DIFFERENCE = 1e-5
#: The draws are divided into this many parts, whose scatter gives the standard errors.
_PARTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The best mean gains of single steps, in the loss's unit, and the noise scale of the law through them."""

    batch_sizes: tuple[int, ...]
    #: ΔL_opt(B) at each batch size, and its standard error, shape (K,).
    gains: Array
    errors: Array
    #: ΔL_max, of the gradient of the whole dataset, without error.
    limit: float
    #: B_noise of the least squares of log ΔL_opt at the batch sizes and at B → ∞, and its standard error.
    noise_scale: float
    error: float


def brute_force(task: Task, batch_sizes: Sequence[int], draws: Sequence[int], seed: int = 0) -> Truth:
    """Gains over the whole dataset of steps along updates at each batch size, in float64.

    The means of Gᵀu and uᵀHu over updates u are known, a and b + c/B (M18 eq. 2.5), with a, b and c computed from the
    gradients of all examples. They are control variates of the gains, with coefficients by least squares at each step.
    Without them, 30 to 200 draws are wrong by a fifth.

    Args:
        task: with a dataset of tensors, small enough to go through the model at once.
        draws: updates at each batch size.
    """
    loss = _WholeLoss(task)
    gradients = loss.example_gradients()
    mean = gradients.mean(0)
    deviations = gradients - mean
    a, b = float(mean @ mean), loss.curvature(mean)
    c = sum(loss.curvature(deviation) for deviation in deviations) / len(deviations)
    limit = max(loss.gains(mean, a / abs(b) * np.geomspace(1 / 64, 64, 241)))
    longest, simple = 2 * limit / a, float((deviations**2).sum()) / len(deviations) / a
    rng = np.random.default_rng(seed)
    parts = []  # for each batch size the best mean gain, and the same without each part of the draws
    for size, count in zip(batch_sizes, draws, strict=True):
        steps = longest / (1 + simple / size) * _STEPS
        found, controls = np.zeros((count, len(steps))), np.zeros((count, 2))
        for draw in range(count):
            update = gradients[rng.integers(len(gradients), size=size)].mean(0)
            found[draw] = loss.gains(update, steps)
            controls[draw] = mean @ update - a, loss.curvature(update) - (b + c / size)
        groups = np.arange(count) % _PARTS
        kept = [np.full(count, True), *(groups != part for part in range(_PARTS))]
        parts.append([_top(_mean_given(found[which], controls[which])) for which in kept])
    tops = np.array(parts)  # shape (K, 1 + _PARTS)
    scales = [_law(batch_sizes, column, limit) for column in tops.T]
    return Truth(
        batch_sizes=tuple(batch_sizes),
        gains=tops[:, 0],
        errors=np.array([jackknife_error(row[1:]) for row in tops]),
        limit=limit,
        noise_scale=scales[0],
        error=jackknife_error(np.array(scales[1:])),
    )


class _WholeLoss:
    """The loss over the whole dataset of a copy of a task's model, in float64."""

    def __init__(self, task: Task) -> None:
        self._model = copy.deepcopy(task.model).double()
        self._objective = task.objective
        self._data = [t.double() if t.is_floating_point() else t for t in task.batches.dataset.tensors]
        self._parameters = list(self._model.parameters())
        self._origin = self._flat(self._parameters).detach()
        self._start = self._loss(slice(None)).item()

    def example_gradients(self) -> Tensor:
        """The gradient of every example, shape (N, parameters)."""
        losses = (self._loss(slice(index, index + 1)) for index in range(len(self._data[0])))
        return torch.stack([self._flat(torch.autograd.grad(loss, self._parameters)) for loss in losses])

    def curvature(self, update: Tensor) -> float:
        """uᵀHu, by a central difference."""
        step = _DIFFERENCE * float(self._origin.norm() / update.norm())
        return -float(self.gains(update, np.array([-step, step])).sum()) / step**2

    def gains(self, update: Tensor, steps: Array) -> Array:
        """L(θ) − L(θ − ε·update) at each ε; the parameters are put back."""
        changes = []
        with torch.no_grad():
            for step in steps:
                nn.utils.vector_to_parameters(self._origin - step * update, self._parameters)
                changes.append(self._start - self._loss(slice(None)).item())
            nn.utils.vector_to_parameters(self._origin.clone(), self._parameters)
        return np.array(changes)

    def _loss(self, examples: slice) -> Tensor:
        batch = [t[examples] for t in self._data]
        return self._objective(self._model, batch if len(batch) > 1 else batch[0])

    @staticmethod
    def _flat(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([t.flatten() for t in tensors])


def _mean_given(values: Array, controls: Array) -> Array:
    """Means of the columns of `values`, given that the mean of each control is zero."""
    ones = np.ones((len(values), 1))
    coefficients, *_ = np.linalg.lstsq(np.hstack([ones, controls]), values, rcond=None)
    means: Array = coefficients[0]
    return means


def _top(gains: Array) -> float:
    """The highest point of gains at `_STEPS`, of a parabola through the three highest in log ε."""
    best = int(np.argmax(gains))
    assert 0 < best < len(gains) - 1, "the best step lies outside the steps that were tried"
    near = slice(best - 1, best + 2)
    bend, slope, height = np.polyfit(np.log(_STEPS[near]), gains[near], 2)
    return float(height - slope**2 / (4 * bend))


def _law(batch_sizes: Sequence[int], gains: Array, limit: float) -> float:
    """B_noise of 1/ΔL_opt = (1 + B_noise/B)/ΔL_max (M18 eq. 2.7): least squares of the logarithm, with B → ∞."""
    heights = np.log([*gains, limit])
    scales = np.geomspace(0.1, 1e5, 20_000)
    shapes = -np.log1p(scales[:, None] / np.array([*batch_sizes, np.inf]))
    return float(scales[np.argmin((heights - shapes).var(axis=1))])


def found_of(task: Task, seed: int, max_examples: int) -> Estimate:
    """What a probe prints: where the law does not hold it gives a lower limit alone."""
    settings = ProbeSettings(seed=seed, max_examples=max_examples, budget_seconds=600)
    analysis = probe(task, settings).analysis
    assert analysis is not None
    estimate = analysis.noise_scale
    return estimate if analysis.law_holds else Estimate(value=None, low=estimate.low, high=None)


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
