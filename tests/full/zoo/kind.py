"""A kind of model and loader as people have them, and its simple noise scale by the loop that its user would write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, default_collate

#: f(model, examples) → the loss of these examples as one batch, in training mode.
LossOf = Callable[[Any, list[int]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a call of `bnoise_cli.probe` is given, and what is known of it."""

    model: nn.Module
    #: A dataset or a loader.
    data: Any
    #: f(model, batch); None: `loss`, or the model computes its own.
    objective: Callable[[Any, Any], Tensor] | None = None
    loss: nn.Module | None = None
    collate: Callable[[list[Any]], Any] | None = None
    #: None: the objective of the dataset's items, collated.
    loss_of: LossOf | None = None
    #: The examples that the loader draws, as often as it does.
    examples: Sequence[int]
    #: How much an example counts in the mean of a batch; empty: all alike.
    weights: Sequence[float] = ()
    #: How often the random loss of each example is drawn by hand; 1: it is not random.
    draws: int = 1
    #: Whether the loss is not a mean over examples, so that batches are made of groups of `batch_size`.
    in_groups: bool = False
    #: How many such groups are drawn by hand: 1200 leave an error of a few percent.
    groups: int = 1200
    batch_size: int = 16
    #: Three named ones are a third of the passes, for models whose passes are slow.
    batch_sizes: list[int] | Literal["auto"] = "auto"
    max_examples: int = 1500
    seed: int = 0
    #: The doubts about the task that must be told, and no others.
    doubts: set[str] = field(default_factory=set)
    #: The interval may miss the truth by this part: random losses have an error by hand too.
    tolerance: float = 0.05

    def loss_of_examples(self, examples: list[int]) -> Tensor:
        """The loss of these examples as one batch."""
        if self.loss_of is not None:
            return self.loss_of(self.model, examples)
        of_loader = isinstance(self.data, DataLoader)
        items = self.data.dataset if of_loader else self.data
        if isinstance(items, tuple):
            items = TensorDataset(*items)
        collate = self.data.collate_fn if of_loader else self.collate or default_collate
        batch = collate([items[i] for i in examples])
        if self.objective is not None:
            return self.objective(self.model, batch)
        found: Tensor
        found = self.model(**batch).loss if self.loss is None else self.loss(self.model(batch[0]), batch[1])
        return found


def simple_noise_scale(kind: Kind) -> float:
    """tr(Σ)/|G|² (arXiv:1812.06162, eq. 2.9), in examples, in float64."""
    kind.model.train()
    torch.manual_seed(5)
    return _of_groups(kind) if kind.in_groups else _of_examples(kind)


def _of_examples(kind: Kind) -> float:
    """From the gradient of every example, weighted by its count over the mean count.

    A random loss is drawn several times. The scalar product of the means of two draws has no bias.
    """
    counts = kind.weights or [1.0] * len(kind.examples)
    mean_count = sum(counts) / len(counts)
    squares, means = [], []
    for _ in range(kind.draws):
        square, mean = _moments(
            _gradient(kind, [i]) * (count / mean_count)
            for i, count in zip(kind.examples, counts, strict=True)
        )
        squares.append(square)
        means.append(mean)
    pairs = [(one, other) for k, one in enumerate(means) for other in means[k + 1 :]] or [
        (means[0], means[0])
    ]
    signal = sum(float(one @ other) for one, other in pairs) / len(pairs)
    return sum(squares) / kind.draws / signal - 1


def _of_groups(kind: Kind) -> float:
    """From the gradients of random batches (appendix A.1)."""
    chosen = torch.randint(len(kind.examples), (kind.groups, kind.batch_size)).tolist()
    each, mean = _moments(_gradient(kind, [kind.examples[i] for i in group]) for group in chosen)
    of_mean = float(mean.square().sum())
    signal = (kind.groups * of_mean - each) / (kind.groups - 1)
    return kind.batch_size * (each - signal) / signal


def _moments(gradients: Iterable[Tensor]) -> tuple[float, Tensor]:
    """The mean squared norm and the mean of gradients, of which only one is held at a time."""
    count, squares, total = 0, 0.0, torch.zeros(())
    for gradient in gradients:
        count += 1
        squares += float(gradient @ gradient)
        total = total + gradient
    return squares / count, total / count


def _gradient(kind: Kind, examples: list[int]) -> Tensor:
    """Shape (trainable parameters,); zero where the loss does not depend on a parameter. Buffers stay as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in kind.model.buffers()]
    parameters = [p for p in kind.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(kind.loss_of_examples(examples), parameters, allow_unused=True)
    parts = [
        (torch.zeros_like(p) if g is None else g.to_dense()).flatten().double()
        for p, g in zip(parameters, found, strict=True)
    ]
    for buffer, value in buffers:
        buffer.copy_(value)
    return torch.cat(parts)
