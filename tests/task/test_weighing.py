"""Losses that are means over tokens of unequal sequences, against sums over tokens; and precisions."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bnoise_cli.data import padded
from bnoise_cli.maths.analysis import Design
from bnoise_cli.maths.pass_plan import plan_pass
from bnoise_cli.measurement.probing.checks import check_task
from bnoise_cli.measurement.probing.line_evaluation import evaluate_line
from bnoise_cli.measurement.probing.plan import Plan
from bnoise_cli.measurement.probing.rounding import choose_line_precision, rounding_floor
from bnoise_cli.measurement.task.activations import fit_micro_batch
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.gradients import add_gradient
from bnoise_cli.measurement.task.losses import mean_loss
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.weighing import tokens_in
from bnoise_cli.measurement.training.steps import take_step
from tests.cases import CPU


class Sentences(Dataset[dict[str, Tensor]]):
    """Between 2 and 9 tokens of 11 kinds."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        draws = np.random.default_rng(index)
        ids = torch.from_numpy(draws.integers(11, size=draws.integers(2, 10)))
        return {"input_ids": ids, "labels": ids}


class Bigrams(nn.Module):
    """The next token by the one before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.logits = nn.Embedding(11, 11, dtype=torch.float64)

    def losses(self, ids: Tensor) -> Tensor:
        """Of every token but the first, summed."""
        return nn.functional.cross_entropy(self.logits(ids[:-1]), ids[1:], reduction="sum")


def shifted(model: Any, batch: Any) -> Tensor:
    logits, labels = model.logits(batch["input_ids"])[:, :-1], batch["labels"][:, 1:]
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def own_positions(model: Any, batch: Any) -> Tensor:
    labels = batch["labels"]
    return nn.functional.cross_entropy(model.logits(batch["input_ids"]).flatten(0, 1), labels.flatten())


def masked(model: Any, batch: Any) -> Tensor:
    each = nn.functional.cross_entropy(
        model.logits(batch["input_ids"]).transpose(1, 2), batch["input_ids"], reduction="none"
    )
    return (each * batch["attention_mask"]).sum() / batch["attention_mask"].sum()


def sentences_task(objective: Any = shifted, micro_batch_size: int = 4) -> Task:
    return Task(Bigrams(), objective, Batches(Sentences(), padded, CPU), micro_batch_size=micro_batch_size)


@pytest.mark.parametrize("objective", [shifted, own_positions, masked])
def test_a_mean_over_tokens_is_recognised_whatever_it_is_over(objective: Any) -> None:
    task = sentences_task(objective)
    findings = check_task(task, 0)
    assert task.traits.weighing is not None
    assert (findings.is_mean, findings.group) == (True, 1)
    lengths = [len(Sentences()[i]["labels"]) for i in range(200)]
    assert findings.by_tokens == pytest.approx(np.mean(lengths) - (objective is shifted), rel=0.1)
    assert findings.tokens_per_example == pytest.approx(np.mean(lengths), rel=0.1)


def test_a_mean_over_tokens_is_recognised_by_micro_batches_of_two_whatever_is_drawn() -> None:
    """One pair of sentences in eight has two of the same length and shows nothing."""
    for seed in range(20):
        task = sentences_task(micro_batch_size=2)
        check_task(task, seed)
        assert task.traits.weighing is not None


@pytest.mark.parametrize("micro_batch_size", [1, 3, 64])
def test_sums_are_those_over_tokens_however_they_are_split(micro_batch_size: int) -> None:
    """Gradient, loss and line: Σ over tokens divided by examples times the tokens of an average one."""
    task = sentences_task(micro_batch_size=micro_batch_size)
    check_task(task, 0)
    assert task.traits.weighing is not None
    average = task.traits.weighing.per_example
    indices = np.array([5, 9, 9, 17, 40, 41, 42, 150])
    model: Any = task.model

    def over_tokens() -> Tensor:
        return torch.stack([model.losses(Sentences()[int(i)]["input_ids"]) for i in indices]).sum()

    found = task.zeros()
    blocks = add_gradient(task, found, indices, Draws(0, Stream.REPLICATE))
    [expected] = torch.autograd.grad(over_tokens() / average, list(model.parameters()))
    torch.testing.assert_close(found[0], expected)
    tokens = sum(len(Sentences()[int(i)]["input_ids"]) - 1 for i in indices)
    assert sum(block.weight for block in blocks) == pytest.approx(tokens / average)
    assert mean_loss(task, indices, Draws(0, Stream.REPLICATE)) == pytest.approx(
        over_tokens().item() / tokens
    )
    origin = [p.detach().clone() for p in task.parameters]
    before = over_tokens().item()
    curve = evaluate_line(task, origin, found, len(indices), 0.5, indices, Draws(0, Stream.REPLICATE))
    with torch.no_grad():
        task.parameters[0].sub_(0.5 * found[0] / len(indices))
    assert curve.sum() == pytest.approx((before - over_tokens().item()) / average / len(indices), rel=1e-6)


def test_a_training_step_divides_by_the_tokens_of_its_batch() -> None:
    task = sentences_task(micro_batch_size=3)
    check_task(task, 0)
    indices = np.arange(10)
    before = task.parameters[0].detach().clone()
    loss = shifted(task.model, padded([Sentences()[i] for i in range(10)]))
    [expected] = torch.autograd.grad(loss, task.parameters)
    take_step(task, torch.optim.SGD(task.parameters, lr=1.0), indices, None, Draws(0, Stream.REPLICATE))
    torch.testing.assert_close(before - task.parameters[0], expected)


def test_tokens_of_a_batch_are_counted_where_its_form_shows_them() -> None:
    ids = torch.zeros(3, 5, dtype=torch.int64)
    assert tokens_in((ids, ids)) == tokens_in({"input_ids": ids}) == tokens_in(ids) == 15
    assert tokens_in({"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0]])}) == 2
    assert tokens_in((torch.zeros(3, 5), ids[:, 0])) is None
    assert tokens_in({"image": torch.zeros(3, 5)}) is None


# --- precision ----------------------------------------------------------------------------------------


def linear_task(autocast: torch.dtype | None, dtype: torch.dtype = torch.float32, shift: float = 0.0) -> Task:
    """Regression; the loss of a large offset is what a low precision cannot tell apart."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(512, 8, generator=draws)
    data = torch.utils.data.TensorDataset(x.to(dtype), x.sum(1, keepdim=True).to(dtype))
    torch.manual_seed(0)
    model = nn.Linear(8, 1).to(dtype)

    def objective(model: nn.Module, batch: Any) -> Tensor:
        return ((model(batch[0]) - batch[1]) ** 2).mean() + shift

    return Task(model, objective, Batches(data, None, CPU), micro_batch_size=64, autocast=autocast)


def small_plan(scale: float) -> Plan:
    stages = plan_pass((4, 16, 64))
    design = Design(
        batch_sizes=np.array([4.0, 16.0, 64.0]),
        scales=np.full(3, scale),
        blocks=np.array([stage.blocks for stage in stages]),
        limit=None,
    )
    return Plan(design=design, stages=stages, evaluation_examples=8192, slope=4.0)


@pytest.mark.parametrize(("scale", "full"), [(0.13, False), (1e-5, True)])
def test_lines_are_in_full_precision_where_autocast_would_falsify_them(scale: float, full: bool) -> None:
    """Steps that change the loss by much are seen in bfloat16; tiny ones are lost in its rounding."""
    task = linear_task(torch.bfloat16)
    origin = [p.detach().clone() for p in task.parameters]
    choose_line_precision(task, origin, small_plan(scale), Draws(0, Stream.REPLICATE))
    assert task.full_lines == full
    assert task.autocast is torch.bfloat16
    plain = linear_task(None)
    choose_line_precision(plain, origin, small_plan(scale), Draws(0, Stream.REPLICATE))
    assert not plain.full_lines


def test_the_floor_of_rounding_is_that_of_the_type() -> None:
    """An offset of a thousand costs float32 three digits; float64 has them to spare."""
    floors = {}
    for name, task in {
        "float32": linear_task(None, shift=1000.0),
        "float64": linear_task(None, torch.float64, shift=1000.0),
    }.items():
        origin = [p.detach().clone() for p in task.parameters]
        floors[name] = rounding_floor(task, origin, small_plan(0.1), Draws(0, Stream.REPLICATE))
        assert all(torch.equal(p, o) for p, o in zip(task.parameters, origin, strict=True))
    assert 1e-6 < floors["float32"] < 1e-3
    assert floors["float64"] < 1e-11


# --- memory -------------------------------------------------------------------------------------------


def test_micro_batches_fit_what_the_backward_pass_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations are counted, parameters are not."""
    from bnoise_cli.measurement.task import activations

    layers = [nn.Linear(256, 256), nn.Tanh()] * 8
    data = torch.utils.data.TensorDataset(torch.randn(512, 256))
    objective: Any = lambda model, batch: model(batch).square().mean()  # noqa: E731
    task = Task(nn.Sequential(*layers), objective, Batches(data, None, CPU), micro_batch_size=256)
    fit_micro_batch(task, Draws(0, Stream.REPLICATE))
    assert task.micro_batch_size == 256
    kept = 8 * 256 * 4 * 2  # at most an input and an output of 256 numbers for each layer
    monkeypatch.setattr(activations, "_MOST_ON_CPU", 64 * kept)
    fit_micro_batch(task, Draws(0, Stream.REPLICATE))
    assert task.micro_batch_size in (64, 128)
    assert task.planned_micro_batch_size == task.micro_batch_size


def test_what_the_backward_pass_keeps_is_let_go() -> None:
    """A tensor that is kept for the step that made it holds itself, and no collector finds it."""
    outputs: list[weakref.ref[Any]] = []

    class Squash(nn.Tanh):
        def forward(self, inputs: Tensor) -> Tensor:
            result = super().forward(inputs)
            outputs.append(weakref.ref(result))
            return result

    data = torch.utils.data.TensorDataset(torch.randn(8, 16))
    objective: Any = lambda model, batch: model(batch).square().mean()  # noqa: E731
    task = Task(
        nn.Sequential(nn.Linear(16, 16), Squash()), objective, Batches(data, None, CPU), micro_batch_size=4
    )
    fit_micro_batch(task, Draws(0, Stream.REPLICATE))
    gc.collect()
    assert outputs
    assert not any(output() is not None for output in outputs)
