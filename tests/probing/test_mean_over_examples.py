"""What a batch's loss is a mean of: kinds of data, of losses and of randomness, each against what is known of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence, pad_sequence

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.outcome import TaskFindings
from bnoise_cli.measurement.probing.checks import check_task
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Task
from tests.cases import CPU


class Examples:
    """Sixteen-step sequences of six inputs, cut to unequal lengths, with a label for each step and one for all."""

    def __init__(self, *, noise: float = 0.0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> dict[str, Any]:
        draws = np.random.default_rng(index)
        length = int(draws.integers(2, 17))
        x = draws.standard_normal((16, 6)) + self.noise * np.random.standard_normal((16, 6))
        steps = draws.integers(3, size=16)
        return {
            "x": torch.tensor(x, dtype=torch.float32),
            "y": int(steps[0]),
            "steps": torch.from_numpy(steps),
            "length": length,
            "name": f"example {length}",
        }


def model(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *layers, nn.Tanh(), nn.Linear(8, 3))


def plain(examples: list[dict[str, Any]]) -> Any:
    return torch.stack([e["x"][0] for e in examples]), torch.tensor([e["y"] for e in examples])


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def contrastive(model: nn.Module, batch: Any) -> Tensor:
    z = nn.functional.normalize(model(batch[0]), dim=1)
    return nn.functional.cross_entropy(z @ z.T / 0.1, torch.arange(len(z)))


def time_first(examples: list[dict[str, Any]]) -> Any:
    return torch.stack([e["x"] for e in examples], 1), torch.stack([e["steps"] for e in examples], 1)


def over_time(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def with_names(examples: list[dict[str, Any]]) -> Any:
    return {"x": torch.stack([e["x"][0] for e in examples]), "names": [e["name"] for e in examples]}


def by_name(model: nn.Module, batch: Any) -> Tensor:
    labels = torch.tensor([len(name) % 3 for name in batch["names"]])
    return nn.functional.cross_entropy(model(batch["x"]), labels)


def with_targets(examples: list[dict[str, Any]]) -> Any:
    return [e["x"] for e in examples], [{"steps": e["steps"][: e["length"]]} for e in examples]


def of_each_target(model: nn.Module, batch: Any) -> Tensor:
    each = [
        nn.functional.cross_entropy(model(x[: len(t["steps"])]), t["steps"])
        for x, t in zip(*batch, strict=True)
    ]
    return torch.stack(each).mean()


def packed(examples: list[dict[str, Any]]) -> Any:
    sequences = [e["x"][: e["length"]] for e in examples]
    labels = pad_sequence([e["steps"][: e["length"]] for e in examples], True, padding_value=-100)
    return pack_sequence(sequences, enforce_sorted=False), labels


def over_packed(model: nn.Module, batch: Any) -> Tensor:
    unpacked, _ = pad_packed_sequence(batch[0], batch_first=True)
    return nn.functional.cross_entropy(model(unpacked).flatten(0, 1), batch[1].flatten())


def with_lengths(examples: list[dict[str, Any]]) -> Any:
    lengths = torch.tensor([e["length"] for e in examples])
    return torch.stack([e["x"] for e in examples]), torch.stack([e["steps"] for e in examples]), lengths


def in_mask(batch: Any) -> Tensor:
    return torch.arange(16) < batch[2][:, None]


def over_lengths(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0])[in_mask(batch)], batch[1][in_mask(batch)])


def with_mask(examples: list[dict[str, Any]]) -> Any:
    batch = with_lengths(examples)
    return {"inputs": {"x": batch[0]}, "tags": batch[1], "mask": in_mask(batch)}


def over_mask(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(
        model(batch["inputs"]["x"])[batch["mask"]], batch["tags"][batch["mask"]]
    )


def as_nodes(examples: list[dict[str, Any]]) -> Any:
    return {
        "nodes": torch.cat([e["x"][: e["length"]] for e in examples]),
        "labels": torch.cat([e["steps"][: e["length"]] for e in examples]),
    }


def over_nodes(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch["nodes"]), batch["labels"])


def over_heavy_classes(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1], weight=torch.tensor([1.0, 5.0, 20.0]))


def of_four(model: nn.Module, batch: Any) -> Tensor:
    assert len(batch[0]) >= 4, "needs four"
    return cross_entropy(model, batch)


def of_pairs(examples: list[dict[str, Any]]) -> Any:
    if len(examples) % 2:
        raise ValueError("Batch size should be even")
    return plain(examples)


def torch_noise(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0] + torch.randn_like(batch[0])), batch[1])


def numpy_noise(model: nn.Module, batch: Any) -> Tensor:
    noise = torch.tensor(np.random.standard_normal(batch[0].shape), dtype=torch.float32)
    return nn.functional.cross_entropy(model(batch[0] + noise), batch[1])


def python_noise(model: nn.Module, batch: Any) -> Tensor:
    scale = torch.tensor([[random.uniform(0.5, 1.5)] for _ in batch[0]])
    return nn.functional.cross_entropy(model(batch[0] * scale), batch[1])


def one_noise_for_all(model: nn.Module, batch: Any) -> Tensor:
    """As one step of diffusion, or one rate of masking, for a whole batch."""
    return nn.functional.cross_entropy(model(batch[0] * torch.rand(1)), batch[1])


def check(
    objective: Any,
    collate: Any = plain,
    *layers: nn.Module,
    noise: float = 0.0,
    micro_batch_size: int = 16,
    seed: int = 0,
) -> tuple[TaskFindings, Task]:
    batches = Batches(Examples(noise=noise), collate, CPU)
    task = Task(model(*layers), objective, batches, micro_batch_size=micro_batch_size)
    return check_task(task, seed), task


@pytest.mark.parametrize("micro_batch_size", [2, 5, 16, 40])
@pytest.mark.parametrize(
    ("objective", "collate"),
    [
        (cross_entropy, plain),
        (over_time, time_first),  # with 16 time steps, as many as examples
        (by_name, with_names),
        (of_each_target, with_targets),
    ],
)
def test_batches_of_every_form_are_means(objective: Any, collate: Any, micro_batch_size: int) -> None:
    findings, task = check(objective, collate, micro_batch_size=micro_batch_size)
    assert (findings.is_mean, findings.group, findings.refused, task.traits.weighing) == (True, 1, None, None)


@pytest.mark.parametrize("micro_batch_size", [5, 16])
@pytest.mark.parametrize(
    ("objective", "collate", "weighed_by"),
    [
        (over_packed, packed, "labels of `1`"),
        (over_lengths, with_lengths, "sum of `2`"),
        (over_mask, with_mask, "non-zero entries of `mask`"),
        (over_nodes, as_nodes, "labels of `labels`"),
    ],
)
def test_what_a_weighted_mean_is_over_is_found(
    objective: Any, collate: Any, weighed_by: str, micro_batch_size: int
) -> None:
    findings, task = check(objective, collate, micro_batch_size=micro_batch_size)
    lengths = [Examples()[i]["length"] for i in range(300)]
    assert findings.weighed_by == weighed_by
    assert findings.by_tokens == pytest.approx(np.mean(lengths), rel=0.1)
    assert (findings.is_mean, findings.group) == (True, 1)
    assert task.traits.weighing is not None


def test_a_weighted_mean_of_unknown_weights_is_said_to_be_one() -> None:
    findings, task = check(over_heavy_classes)
    assert (findings.weighted, findings.is_mean, findings.group) == (True, False, 16)
    assert task.traits.weighing is None


@pytest.mark.parametrize(
    ("objective", "layers", "noise"),
    [
        (torch_noise, (), 0.0),
        (numpy_noise, (), 0.0),
        (python_noise, (), 0.0),
        (one_noise_for_all, (), 0.0),
        (cross_entropy, (nn.Dropout(0.5),), 0.0),
        (cross_entropy, (), 1.0),
    ],
)
def test_randomness_is_not_a_lack_of_a_mean(objective: Any, layers: Any, noise: float) -> None:
    """The test's level is 1 in 2,048, so that none of a few seeds fails."""
    for seed in range(8):
        findings, _ = check(objective, plain, *layers, noise=noise, seed=seed)
        assert findings.stochastic
        assert (findings.is_mean, findings.weighted, findings.group) == (True, False, 1)


@pytest.mark.parametrize(
    ("layers", "noise"), [((), 0.0), ((nn.Dropout(0.3),), 0.0), ((), 0.3), ((nn.Dropout(0.3),), 0.3)]
)
def test_a_loss_of_pairs_is_seen_through_randomness(layers: Any, noise: float) -> None:
    for seed in range(4):
        findings, _ = check(contrastive, plain, *layers, noise=noise, seed=seed)
        assert (findings.is_mean, findings.weighted, findings.group) == (False, False, 16)


@pytest.mark.parametrize(
    ("objective", "collate", "micro_batch_size", "words"),
    [
        (of_four, plain, 8, "batch of 1 example failed with AssertionError: needs four"),
        (of_four, plain, 33, "batch of 1 example failed"),
        (of_four, plain, 6, "batch of 3 examples failed"),
        (cross_entropy, of_pairs, 8, "putting 1 example into one batch failed"),
        (cross_entropy, of_pairs, 34, "Batch size should be even"),
    ],
)
def test_a_loss_that_needs_several_examples_is_measured_in_groups(
    objective: Any, collate: Any, micro_batch_size: int, words: str
) -> None:
    findings, _ = check(objective, collate, micro_batch_size=micro_batch_size)
    assert findings.group == micro_batch_size
    assert findings.refused is not None
    assert words in findings.refused


def test_a_loss_that_fails_at_the_planned_size_is_an_error() -> None:
    with pytest.raises(RunError, match="batch of 3 examples failed with AssertionError: needs four"):
        check(of_four, micro_batch_size=3)


class Follower(nn.Module):
    """Its loss depends on a moving average of its inputs, which every pass in training mode moves."""

    def __init__(self, place: Callable[[nn.Module], None]) -> None:
        super().__init__()
        self.inner = model()
        self.center: Tensor
        place(self)

    def forward(self, x: Tensor) -> Tensor:
        self.center = 0.5 * self.center + 0.5 * x.mean(0).detach()
        found: Tensor = self.inner(x - self.center)
        return found


def as_buffer(module: nn.Module) -> None:
    module.register_buffer("center", torch.zeros(6))


def as_attribute(module: nn.Module) -> None:
    module.center = torch.zeros(6)


def follower_task(place: Callable[[nn.Module], None]) -> Task:
    return Task(Follower(place), cross_entropy, Batches(Examples(), plain, CPU), micro_batch_size=16)


def test_buffers_that_a_pass_changes_are_held() -> None:
    task = follower_task(as_buffer)
    center = task.model.get_buffer("center")
    findings = check_task(task, 0)
    assert (findings.held_buffers, findings.is_mean, findings.stochastic) == (("center",), False, False)
    assert task.model.center is center
    batch = task.batches.fetch(np.arange(8))
    with task.holding_buffers():
        values = [float(task.loss_value(batch, 0, "a batch")) for _ in range(2)]
    assert values[0] == values[1]
    assert not center.any()


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_norm_is_a_mean_over_examples(norm: Any) -> None:
    findings, _ = check(cross_entropy, plain, norm(nn.Linear(8, 8)))
    assert len(findings.held_buffers) == 2
    assert (findings.is_mean, findings.stochastic, findings.group) == (True, False, 1)


def test_state_outside_buffers_is_refused_by_name() -> None:
    with pytest.raises(RunError, match=r"must repeat.* Computing it changed center\."):
        check_task(follower_task(as_attribute), 0)
