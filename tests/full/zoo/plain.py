"""Kinds in plain torch, in the styles of torchvision, timm, transformers, torch_geometric and of public training code.

Each function makes a `Kind`; its name is that of the kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence, pad_sequence
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Sampler, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from tests.full.zoo.kind import Kind

#: Examples of a dataset.
N = 96
ALL = range(N)
#: Options of a loss that is not a mean over examples.
IN_GROUPS: dict[str, Any] = {"in_groups": True, "batch_size": 4, "max_examples": 4000, "tolerance": 0.15}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(count: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed))


def built(module: type[nn.Module], *arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return module(*arguments)


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def points(separation: float = 1.0) -> tuple[Tensor, Tensor]:
    """Inputs of shape (N, 6) whose class shifts them."""
    y = classes(3, N)
    return drawn(N, 6) + separation * functional.one_hot(y, 6), y


def classified(model: Any, batch: Any) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def of_points(**options: Any) -> Kind:
    """An MLP, or the model that is given, on the points, with the options of a `Kind`."""
    x, y = points()
    usual: dict[str, Any] = {
        "model": mlp(6, 8, 3),
        "data": TensorDataset(x, y),
        "objective": classified,
        "examples": ALL,
    }
    return Kind(**usual | options)


# --- pictures -------------------------------------------------------------------------------------------


class Outputs(NamedTuple):
    logits: Tensor
    aux_logits1: Tensor
    aux_logits2: Tensor


class Inception(nn.Module):
    """Three outputs in training mode and one in evaluation mode, as torchvision's GoogLeNet and Inception."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3)
        self.aux1, self.aux2, self.fc = nn.Linear(6, 4), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        early = self.stem(x).relu()
        late = self.body(early).relu()
        logits = self.fc(late.mean((2, 3)))
        if not self.training:
            return logits
        return Outputs(logits, self.aux1(early.mean((2, 3))), self.aux2(late.amax((2, 3))))


def pictures() -> tuple[Tensor, Tensor]:
    """Shape (N, 3, 12, 12); the class is the place of a bright band."""
    y = classes(4, N)
    x = 0.5 * drawn(N, 3, 12, 12)
    for k in range(4):
        x[y == k, :, 3 * k : 3 * k + 3] += 1
    return x, y


def three_outputs(model: Any, batch: Any) -> Tensor:
    """As GoogLeNet and Inception are trained."""
    out = model(batch[0])
    aux = functional.cross_entropy(out.aux_logits1, batch[1]) + functional.cross_entropy(
        out.aux_logits2, batch[1]
    )
    return functional.cross_entropy(out.logits, batch[1]) + 0.3 * aux


def auxiliary_heads() -> Kind:
    x, y = pictures()

    return Kind(
        model=built(Inception),
        data=DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True),
        objective=three_outputs,
        examples=ALL,
    )


class Detector(nn.Module):
    """Lists of pictures and of targets in, a dict of losses out in training mode: torchvision's detection."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.label, self.box = nn.Conv2d(3, 6, 3), nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        features = torch.stack([self.body(image[None]).relu().mean((0, 2, 3)) for image in images])
        if not self.training:
            return [{"boxes": box, "scores": label} for box, label in zip(features, features, strict=True)]
        assert targets is not None
        labels = [
            functional.cross_entropy(self.label(f).expand(len(t["labels"]), 4), t["labels"])
            for f, t in zip(features, targets, strict=True)
        ]
        boxes = [
            functional.smooth_l1_loss(self.box(f).expand_as(t["boxes"]), t["boxes"])
            for f, t in zip(features, targets, strict=True)
        ]
        return {"loss_classifier": torch.stack(labels).mean(), "loss_box_reg": torch.stack(boxes).mean()}


def in_tuples(rows: list[Any]) -> tuple[Any, ...]:
    """The collate function of torchvision's references: pictures and targets stay apart."""
    return tuple(zip(*rows, strict=True))


def summed_losses(model: Any, batch: Any) -> Tensor:
    """As torchvision's references train detection."""
    images, targets = batch
    total: Tensor = sum(model(list(images), list(targets)).values())
    return total


def detection() -> Kind:
    x, y = pictures()
    counts = (classes(3, N, seed=2) + 1).tolist()
    items = [
        (x[i], {"boxes": drawn(n, 4, seed=i), "labels": (y[i] + torch.arange(n)) % 4})
        for i, n in enumerate(counts)
    ]

    return Kind(
        model=built(Detector),
        data=DataLoader(items, batch_size=16, shuffle=True, collate_fn=in_tuples),  # type: ignore[arg-type]
        objective=summed_losses,
        examples=ALL,
    )


class Segmenter(nn.Module):
    """A dict of outputs, as torchvision's segmentation models."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.aux = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x).relu()
        return {"out": self.head(features), "aux": self.aux(features)}


def masks() -> tuple[Tensor, Tensor]:
    """Pictures, and the class of each pixel: its brightest channel, numbered otherwise in half of the pictures."""
    x, _ = pictures()
    return x, (x.argmax(1) + classes(4, N, 1, 1).clamp(max=2)) % 3


def two_masks(model: Any, batch: Any) -> Tensor:
    """As torchvision's references train segmentation."""
    out = model(batch[0])
    return functional.cross_entropy(out["out"], batch[1]) + 0.5 * functional.cross_entropy(
        out["aux"], batch[1]
    )


def segmentation() -> Kind:
    """Every pixel has a class."""
    x, y = masks()

    return Kind(
        model=built(Segmenter),
        data=TensorDataset(x, y),
        objective=two_masks,
        examples=ALL,
    )


def segmentation_with_void() -> Kind:
    """Pixels without a class carry 255, as in VOC and Cityscapes: the mean is over the others."""
    x, y = masks()
    void = (
        torch.rand(N, 1, 12, generator=torch.Generator().manual_seed(3))
        < torch.linspace(0, 0.8, N)[:, None, None]
    )
    y = y.masked_fill(void, 255)
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    return Kind(
        model=model,
        data=TensorDataset(x, y),
        loss=criterion,
        examples=ALL,
        weights=(y != 255).sum((1, 2)).tolist(),
        doubts={"unequal_lengths"},
    )


def channels_last() -> Kind:
    x, y = pictures()
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)
    )

    def loss(model: Any, batch: Any) -> Tensor:
        return functional.cross_entropy(model(batch[0].to(memory_format=torch.channels_last)), batch[1])

    return Kind(
        model=model.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        data=TensorDataset(x, y),
        objective=loss,
        examples=ALL,
    )


# --- sequences ------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """An LSTM that gives a class for each step of a padded batch, with or without packing it."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.embedding, self.rnn, self.out = (
            nn.Embedding(20, 8),
            nn.LSTM(8, 8, batch_first=True),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        embedded = self.embedding(x)
        if self.packed:
            found, _ = self.rnn(
                pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
            )
            hidden, _ = pad_packed_sequence(found, batch_first=True)
        else:
            hidden, _ = self.rnn(embedded)
        logits: Tensor = self.out(hidden)
        return logits


def sentences() -> list[tuple[Tensor, Tensor]]:
    """Tokens and their classes, of 2 to 11 steps."""
    lengths = (classes(10, N, seed=2) + 2).tolist()
    tokens = [classes(19, n, seed=i) + 1 for i, n in enumerate(lengths)]
    return [(x, (x + classes(2, len(x), seed=7)) % 4) for x in tokens]


def lstm(packed: bool) -> Kind:
    items = sentences()

    def collate(rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        lengths = torch.tensor([len(x) for x, _ in rows])
        x = pad_sequence([x for x, _ in rows], batch_first=True)
        return x, pad_sequence([y for _, y in rows], batch_first=True, padding_value=-100), lengths

    def loss(model: Any, batch: Any) -> Tensor:
        x, y, lengths = batch
        return functional.cross_entropy(model(x, lengths).flatten(0, 1), y.flatten(), ignore_index=-100)

    return Kind(
        model=built(Tagger, packed),
        data=DataLoader(items, batch_size=16, shuffle=True, collate_fn=collate),  # type: ignore[arg-type]
        objective=loss,
        examples=ALL,
        weights=[len(x) for x, _ in items],
        doubts={"unequal_lengths"},
    )


def lstm_packed() -> Kind:
    return lstm(packed=True)


def lstm_padded() -> Kind:
    return lstm(packed=False)


class LastState(nn.Module):
    """Classifies a packed sequence by its last hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(6, 8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Tensor:
        _, hidden = self.rnn(x)
        logits: Tensor = self.out(hidden[-1])
        return logits


def packed_sequences() -> Kind:
    """The collate function packs."""
    lengths = (classes(10, N, seed=2) + 2).tolist()
    items = [
        (drawn(n, 6, seed=i) + y, y)
        for i, (n, y) in enumerate(zip(lengths, classes(3, N).tolist(), strict=True))
    ]

    def collate(rows: list[tuple[Tensor, int]]) -> tuple[Any, Tensor]:
        return pack_sequence([x for x, _ in rows], enforce_sorted=False), torch.tensor([y for _, y in rows])

    return Kind(
        model=built(LastState),
        data=items,
        collate=collate,
        objective=classified,
        examples=ALL,
    )


class Speech(nn.Module):
    """Frames first, as torch's CTC loss takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return functional.log_softmax(self.out(self.rnn(x)[0]), 2)


def ctc() -> Kind:
    """Connectionist temporal classification: targets of unequal length in one row, the mean over examples."""
    lengths = (classes(3, N, seed=2) + 1).tolist()
    items = [(drawn(8, 6, seed=i), classes(4, n, seed=i) + 1) for i, n in enumerate(lengths)]

    def collate(rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        targets = [y for _, y in rows]
        x = torch.stack([x for x, _ in rows], 1)
        return x, torch.cat(targets), torch.tensor([8] * len(rows)), torch.tensor([len(y) for y in targets])

    def loss(model: Any, batch: Any) -> Tensor:
        return functional.ctc_loss(model(batch[0]), *batch[1:])

    return Kind(
        model=built(Speech),
        data=items,
        collate=collate,
        objective=loss,
        examples=ALL,
    )


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.EmbeddingBag(30, 6, mode="mean", sparse=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.words(x))
        return logits


def sparse_embeddings() -> Kind:
    x, y = classes(30, N, 5), classes(3, N)
    return Kind(
        model=built(Embedded),
        data=(x, y),
        loss=nn.CrossEntropyLoss(),
        examples=ALL,
    )


# --- losses ---------------------------------------------------------------------------------------------


class VAE(nn.Module):
    """Noise is drawn in forward(), in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.mean, self.variance = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 2)
        self.decode = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encode(x).tanh()
        mean, log_variance = self.mean(hidden), self.variance(hidden)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decode(z), mean, log_variance


def vae() -> Kind:
    x, _ = points(3.0)

    def loss(model: Any, x: Tensor) -> Tensor:
        found, mean, log_variance = model(x)
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
        return ((found - x).square().sum() + divergence) / len(x)

    return Kind(
        model=built(VAE),
        data=x,
        objective=loss,
        examples=ALL,
        draws=16,
        doubts={"random_masks"},
        tolerance=0.1,
    )


def siamese() -> Kind:
    """Pairs of inputs, alike or not, and a margin between the unlike."""
    x, y = points(2.0)
    other = torch.arange(N).flip(0)
    alike = (y == y[other]).float()

    def loss(model: Any, batch: Any) -> Tensor:
        one, two, alike = batch
        distance = functional.pairwise_distance(model(one), model(two))
        return (alike * distance.square() + (1 - alike) * (1 - distance).relu().square()).mean()

    return Kind(
        model=mlp(6, 8, 4),
        data=TensorDataset(x, x[other], alike),
        objective=loss,
        examples=ALL,
    )


class Gan(nn.Module):
    """A generator and a critic with spectral norm; one of them is trained."""

    def __init__(self, trained: str) -> None:
        super().__init__()
        norm = parametrizations.spectral_norm
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6))
        self.critic = nn.Sequential(norm(nn.Linear(6, 8)), nn.LeakyReLU(0.1), norm(nn.Linear(8, 1)))
        for name in {"generator", "critic"} - {trained}:
            self.get_submodule(name).requires_grad_(False)


def gan_critic() -> Kind:
    """The hinge loss of pictures and of made ones."""
    x, _ = points(2.0)
    z = drawn(N, 4, seed=9)

    def loss(model: Any, batch: Any) -> Tensor:
        real, noise = batch
        made = model.generator(noise).detach()
        return (1 - model.critic(real)).relu().mean() + (1 + model.critic(made)).relu().mean()

    return Kind(
        model=built(Gan, "critic"),
        data=(x, z),
        objective=loss,
        examples=ALL,
        doubts={"frozen", "held_buffers"},
    )


def gan_generator() -> Kind:
    """Its noise is drawn in the loss."""
    x, _ = points(2.0)

    def loss(model: Any, x: Tensor) -> Tensor:
        found: Tensor = -model.critic(model.generator(torch.randn(len(x), 4))).mean()
        return found

    return Kind(
        model=built(Gan, "generator"),
        data=x,
        objective=loss,
        examples=ALL,
        batch_sizes=[4, 16, 64],
        draws=10,
        doubts={"frozen", "held_buffers", "random_masks"},
        tolerance=0.1,
    )


def gradient_penalty() -> Kind:
    """As WGAN-GP: the loss holds a gradient of the model by its inputs."""

    def loss(model: Any, batch: Any) -> Tensor:
        inputs = batch[0].clone().requires_grad_()
        logits = model(inputs)
        [slopes] = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
        penalty = (slopes.norm(dim=1) - 1).square().mean()
        return functional.cross_entropy(logits, batch[1]) + penalty

    return of_points(objective=loss)


def multi_task() -> Kind:
    """Two heads, whose losses are added; a dict of inputs and targets."""
    x, y = points()
    model = nn.ModuleDict({"body": mlp(6, 8), "label": nn.Linear(8, 3), "value": nn.Linear(8, 1)})
    items = [{"x": x[i], "label": y[i], "value": x[i, 0] * x[i, 1]} for i in ALL]

    def loss(model: Any, batch: Any) -> Tensor:
        hidden = model["body"](batch["x"]).tanh()
        value = functional.mse_loss(model["value"](hidden)[:, 0], batch["value"])
        return functional.cross_entropy(model["label"](hidden), batch["label"]) + 0.5 * value

    return Kind(
        model=model,
        data=items,
        objective=loss,
        examples=ALL,
    )


class LowRank(nn.Module):
    """A frozen layer and a trainable product of two thin matrices beside it."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features) / 3)
        self.b = nn.Parameter(0.1 * torch.randn(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.base(x) + x @ self.a.T @ self.b.T
        return found


def lora() -> Kind:
    torch.manual_seed(0)
    model = nn.Sequential(LowRank(nn.Linear(6, 16), 2), nn.Tanh(), LowRank(nn.Linear(16, 3), 2))
    return of_points(model=model, doubts={"frozen"})


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.time, self.body = nn.Embedding(10, 6), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        found: Tensor = self.body(x + self.time(t))
        return found


def diffusion() -> Kind:
    """A step of the schedule and noise, drawn for each example."""
    x, _ = points(3.0)

    def loss(model: Any, x: Tensor) -> Tensor:
        t, noise = torch.randint(0, 10, (len(x),)), torch.randn_like(x)
        kept = (1 - t / 10)[:, None]
        return functional.mse_loss(model(kept.sqrt() * x + (1 - kept).sqrt() * noise, t), noise)

    return Kind(
        model=built(Denoiser),
        data=DataLoader(x, batch_size=16, shuffle=True),  # type: ignore[arg-type]
        objective=loss,
        examples=ALL,
        draws=16,
        doubts={"random_masks"},
        tolerance=0.15,
    )


def recorded_steps() -> tuple[Tensor, Tensor, Tensor]:
    """States, actions and returns."""
    x, y = points()
    return x, y, 1 + x[:, 0] + 0.5 * drawn(N, seed=4)


def policy_gradient() -> Kind:
    """REINFORCE with a baseline that is the same for all batches."""
    states, actions, returns = recorded_steps()
    baseline = float(returns.mean()) - 1

    def loss(model: Any, batch: Any) -> Tensor:
        policy = torch.distributions.Categorical(logits=model(batch[0]))
        return -(policy.log_prob(batch[1]) * (batch[2] - baseline)).mean()

    return of_points(
        data=TensorDataset(states, actions, returns),
        objective=loss,
    )


def normalised_advantages() -> Kind:
    """As PPO: the advantages of a batch have mean zero and deviation one."""
    states, actions, returns = recorded_steps()

    def loss(model: Any, batch: Any) -> Tensor:
        policy = torch.distributions.Categorical(logits=model(batch[0]))
        advantages = (batch[2] - batch[2].mean()) / (batch[2].std() + 1e-8)
        return -(policy.log_prob(batch[1]) * advantages).mean()

    return of_points(
        data=TensorDataset(states, actions, returns),
        objective=loss,
        **IN_GROUPS,
        doubts={"not_a_mean", "small_batches"},
    )


def contrastive() -> Kind:
    """As SimCLR and CLIP: the others of a batch are the negatives."""
    x, _ = points(2.0)
    other = x + 0.5 * drawn(N, 6, seed=5)

    def loss(model: Any, batch: Any) -> Tensor:
        one, two = (functional.normalize(model(part), dim=1) for part in batch)
        return functional.cross_entropy(one @ two.T / 0.5, torch.arange(len(one)))

    return of_points(
        data=TensorDataset(x, other),
        objective=loss,
        **IN_GROUPS,
        doubts={"not_a_mean"},
    )


def negatives_by_positives() -> Kind:
    """As RetinaNet's focal loss: a sum over all anchors, divided by the positive ones of the batch."""
    x, _ = points()
    positive = (torch.rand(N, 10, generator=torch.Generator().manual_seed(3)) < 0.3).float()
    positive[:, 0] = 1

    def loss(model: Any, batch: Any) -> Tensor:
        each = functional.binary_cross_entropy_with_logits(model(batch[0]), batch[1], reduction="none")
        return each.sum() / batch[1].sum()

    return of_points(
        model=mlp(6, 8, 10),
        data=(x, positive),
        objective=loss,
        weights=positive.sum(1).tolist(),
        doubts={"unequal_lengths"},
    )


def sum_over_the_batch() -> Kind:
    """`reduction="sum"`: the gradient grows with the batch."""
    return of_points(
        objective=None,
        loss=nn.CrossEntropyLoss(reduction="sum"),
        **IN_GROUPS,
        doubts={"not_a_mean"},
    )


# --- layers ---------------------------------------------------------------------------------------------


def spectral_norm() -> Kind:
    """Every pass in training mode moves the buffers u and v, which bnoise holds."""
    torch.manual_seed(0)
    norm = parametrizations.spectral_norm
    model = nn.Sequential(norm(nn.Linear(6, 8)), nn.Tanh(), norm(nn.Linear(8, 3)))
    return of_points(model=model, doubts={"held_buffers"})


def weight_norm() -> Kind:
    torch.manual_seed(0)
    norm = parametrizations.weight_norm
    return of_points(model=nn.Sequential(norm(nn.Linear(6, 8)), nn.Tanh(), norm(nn.Linear(8, 3))))


def dropout() -> Kind:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 3))
    return of_points(model=model, draws=10, doubts={"random_masks"}, tolerance=0.1)


def batch_norm() -> Kind:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    return of_points(model=model, **IN_GROUPS, doubts={"batch_norm"})


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda x: self.first(x).tanh(), x, use_reentrant=False)
        logits: Tensor = self.second(hidden)
        return logits


def gradient_checkpointing() -> Kind:
    return of_points(model=built(Checkpointed))


def compiled() -> Kind:
    """torch.compile, with a backend that needs no C++ compiler."""
    return of_points(model=torch.compile(mlp(6, 8, 3), backend="eager"))


# --- graphs ---------------------------------------------------------------------------------------------


class Graphs:
    """Several graphs as one, as torch_geometric batches them."""

    def __init__(self, graphs: list[dict[str, Tensor]]) -> None:
        sizes = [len(graph["x"]) for graph in graphs]
        self.x = torch.cat([graph["x"] for graph in graphs])
        self.y = torch.cat([graph["y"] for graph in graphs])
        self.tag = torch.cat([graph["tag"] for graph in graphs])
        self.links = torch.block_diag(*(graph["links"] for graph in graphs))
        self.batch = torch.repeat_interleave(torch.tensor(sizes))
        self.num_graphs = len(graphs)

    def to(self, _: torch.device) -> Graphs:
        return self

    def to_dict(self) -> dict[str, Any]:
        return vars(self)


class GraphNetwork(nn.Module):
    def __init__(self, per_node: bool) -> None:
        super().__init__()
        self.per_node = per_node
        self.one, self.two, self.out = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, graphs: Graphs) -> Tensor:
        hidden = self.one(graphs.x + graphs.links @ graphs.x).tanh()
        hidden = self.two(hidden + graphs.links @ hidden).tanh()
        if not self.per_node:
            pooled = torch.zeros(graphs.num_graphs, 8)
            hidden = pooled.index_add(0, graphs.batch, hidden)
        logits: Tensor = self.out(hidden)
        return logits


def graphs(per_node: bool) -> Kind:
    items = []
    for i in ALL:
        count = 3 + i % 8
        linked = (drawn(count, count, seed=i) > 0.5).float() / 3
        items.append({
            "x": drawn(count, 4, seed=i + 500), "links": linked, "y": torch.tensor([i % 2]),
            "tag": (linked.sum(1) > 1).long(),
        })  # fmt: skip

    def loss(model: Any, batch: Graphs) -> Tensor:
        return functional.cross_entropy(model(batch), batch.tag if per_node else batch.y)

    return Kind(
        model=built(GraphNetwork, per_node),
        data=DataLoader(items, batch_size=16, shuffle=True, collate_fn=Graphs),  # type: ignore[arg-type]
        objective=loss,
        examples=ALL,
        weights=[len(item["x"]) for item in items] if per_node else (),
        doubts={"unequal_lengths"} if per_node else set(),
    )


def graph_labels() -> Kind:
    return graphs(per_node=False)


def node_labels() -> Kind:
    return graphs(per_node=True)


# --- loaders --------------------------------------------------------------------------------------------


def weighted_sampler() -> Kind:
    """A class that is balanced by its weights: every example stands in the population as often as it is drawn."""
    x, y = points()
    weights = [1 + 2 * int(label) for label in y]
    loader = DataLoader(TensorDataset(x, y), batch_size=16, sampler=WeightedRandomSampler(weights, N))
    return of_points(
        data=loader,
        examples=[i for i, weight in enumerate(weights) for _ in range(weight)],
        doubts={"sampler"},
    )


def subset_sampler() -> Kind:
    """The first third is for training; the labels of the rest are wrong."""
    x, y = points()
    y[N // 3 :] = 2 - y[N // 3 :]
    loader = DataLoader(TensorDataset(x, y), batch_size=16, sampler=SubsetRandomSampler(range(N // 3)))
    return of_points(data=loader, examples=range(N // 3), doubts={"sampler"})


class TwoOfEach(Sampler[list[int]]):
    """Batches of two examples of each class, as metric learning takes them."""

    def __init__(self, y: Tensor) -> None:
        self.of_class = [(y == label).nonzero()[:, 0].tolist() for label in range(3)]

    def __iter__(self) -> Iterator[list[int]]:
        for k in range(0, min(map(len, self.of_class)) - 1, 2):
            yield [i for members in self.of_class for i in members[k : k + 2]]


def batch_sampler() -> Kind:
    x, y = points()
    sampler = TwoOfEach(y)
    loader = DataLoader(TensorDataset(x, y), batch_sampler=sampler)
    examples = [i for batch in sampler for i in batch]
    return of_points(data=loader, examples=examples, doubts={"sampler", "batch_sampler"})


def ready_batches() -> Kind:
    """The items of the dataset are batches."""
    x, y = points()
    batches = [(x[k : k + 16], y[k : k + 16]) for k in range(0, N, 16)]
    return of_points(
        data=DataLoader(batches, batch_size=None),  # type: ignore[arg-type]
        loss_of=lambda model, i: classified(model, (x[i], y[i])),
    )


KINDS = [
    auxiliary_heads, detection, segmentation, segmentation_with_void, channels_last, lstm_packed, lstm_padded,
    packed_sequences, ctc, sparse_embeddings, vae, siamese, gan_critic, gan_generator, gradient_penalty, multi_task,
    lora, diffusion, policy_gradient, normalised_advantages, contrastive, negatives_by_positives, sum_over_the_batch,
    spectral_norm, weight_norm, dropout, batch_norm, gradient_checkpointing, compiled, graph_labels, node_labels,
    weighted_sampler, subset_sampler, batch_sampler, ready_batches,
]  # fmt: skip
