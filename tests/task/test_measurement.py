"""Gradients, lines, replicates and the state that is given back, against naive twins."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bnoise_cli.errors import RunError
from bnoise_cli.maths import line
from bnoise_cli.maths.pass_plan import plan_pass
from bnoise_cli.measurement.probing.checks import check_task
from bnoise_cli.measurement.probing.line_evaluation import DivergedError, evaluate_line
from bnoise_cli.measurement.probing.replicate import measure_replicate
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.draws import Draws, Stream, _key
from bnoise_cli.measurement.task.gradients import add_gradient, squared_norms
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.task import Task, Traits
from bnoise_cli.measurement.task.user_code import OutOfMemoryError, user_code
from bnoise_cli.measurement.training.steps import Trainer
from tests.cases import CPU, cross_entropy, mlp_task, quadratic_task


def full_loss(task: Task, indices: np.ndarray) -> float:
    with torch.no_grad():
        return float(cross_entropy(task.model, task.batches.fetch(indices)))


# --- gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batch_size", [1, 3, 64])
def test_gradient_sums_equal_one_backward_pass(micro_batch_size: int) -> None:
    task = mlp_task(micro_batch_size=micro_batch_size)
    indices = np.array([3, 3, 50, 7, 11, 20, 41])
    found = task.zeros()
    blocks = add_gradient(task, found, indices, Draws(0, Stream.REPLICATE))
    cross_entropy(task.model, task.batches.fetch(indices)).backward()
    for value, parameter in zip(found, task.parameters, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(value / 7, parameter.grad)
    assert sum(block.examples for block in blocks) == 7
    assert max(block.examples for block in blocks) <= micro_batch_size
    start = 0
    for block in blocks:
        part = task.zeros()
        add_gradient(task, part, indices[start : start + block.examples], Draws(0, Stream.REPLICATE))
        start += block.examples
        norm = pytest.approx(sum(float((g**2).sum()) for g in part))
        assert block.squared_norm == block.preconditioned == norm
        assert block.weight == block.examples
    assert task.spent.gradient == 14


def test_frozen_parameters_take_no_part_and_tied_ones_count_once() -> None:
    task = mlp_task()
    model: Any = task.model
    next(model.parameters()).requires_grad_(False)
    model.add_module("again", model[0])
    again = Task(model, cross_entropy, task.batches, micro_batch_size=4)
    assert len(again.parameters) == 3


def test_a_parameter_that_is_not_used_has_no_gradient() -> None:
    task = mlp_task()
    task.model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    task = Task(task.model, cross_entropy, task.batches, micro_batch_size=4)
    found = task.zeros()
    add_gradient(task, found, np.arange(4), Draws(0, Stream.REPLICATE))
    assert not found[0].any()


def test_micro_batches_are_halved_until_they_fit() -> None:
    task = mlp_task(micro_batch_size=16)
    seen = []

    def objective(model: nn.Module, batch: Any) -> torch.Tensor:
        if len(batch[0]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(batch[0]))
        return cross_entropy(model, batch)

    small = Task(task.model, objective, task.batches, micro_batch_size=16)
    found, expected = small.zeros(), task.zeros()
    add_gradient(small, found, np.arange(18), Draws(0, Stream.REPLICATE))
    add_gradient(task, expected, np.arange(18), Draws(0, Stream.REPLICATE))
    torch.testing.assert_close(found, expected)
    assert seen == [4, 4, 4, 3, 3]
    assert small.micro_batch_size == 4


def test_no_memory_for_one_example_is_an_error() -> None:
    def objective(model: nn.Module, batch: Any) -> torch.Tensor:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    task = Task(mlp_task().model, objective, mlp_task().batches, micro_batch_size=4)
    with pytest.raises(RunError, match="out of memory with a single example"):
        add_gradient(task, task.zeros(), np.arange(4), Draws(0, Stream.REPLICATE))


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (lambda model, batch: model(batch[0]), r"a batch of 4 examples gave a tensor of shape \(4, 3\)"),
        (lambda model, batch: 3.0, "must be one number"),
        (lambda model, batch: model(batch[0]).mean() * 1j, "gave a complex tensor"),
        (lambda model, batch: model(batch[0]).mean() * math.nan, "is nan.*number 0, 1, 2, 3"),
        (lambda model, batch: model(batch[0]).detach().mean(), "does not depend on any trainable parameter"),
        (lambda model, batch: model(batch[1]), "failed with RuntimeError.*test_measurement.py"),
        (lambda model, batch: model(batch[0]).mean().sqrt() * 0 + model(batch[0]).sum().abs().log() * 0 +
         (model(batch[0]) * 0).sum().sqrt(), "gradient of 4 examples is not finite"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_loss_is_said(objective: Any, words: str) -> None:
    task = Task(mlp_task().model, objective, mlp_task().batches, micro_batch_size=4)
    with pytest.raises(RunError, match=words):
        add_gradient(task, task.zeros(), np.arange(4), Draws(0, Stream.REPLICATE))


# --- batches ------------------------------------------------------------------------------------------


class Items:
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_tensors_are_read_as_items_would_be() -> None:
    x, y = torch.randn(9, 2), torch.arange(9)
    indices = np.array([8, 0, 3, 3])
    for fast, slow in [
        (TensorDataset(x, y), Items(list(zip(x, y, strict=True)))),
        ((x, y), Items(list(zip(x, y, strict=True)))),
        (x, Items(list(x))),
    ]:
        torch.testing.assert_close(
            Batches(fast, None, CPU).fetch(indices), Batches(slow, None, CPU).fetch(indices)
        )


def test_dictionaries_and_collate_functions() -> None:
    items = Items([{"a": torch.tensor(float(i))} for i in range(4)])
    assert Batches(items, None, CPU).fetch(np.array([1, 2]))["a"].tolist() == [1, 2]
    assert Batches(items, len, CPU).fetch(np.array([1, 2])) == 2


@pytest.mark.parametrize(
    ("items", "words"),
    [([], "it found 0"), ([1], "it found 1")],
)
def test_a_dataset_needs_two_examples(items: list[int], words: str) -> None:
    with pytest.raises(RunError, match=words):
        Batches(Items(items), None, CPU)


def test_examples_that_do_not_stack_are_named() -> None:
    items = Items([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(RunError, match=r"putting 2 examples into one batch failed.*`collate:`"):
        Batches(items, None, CPU).fetch(np.array([0, 1]))


def test_draws_are_uniform_and_streams_independent() -> None:
    counts = np.bincount(Draws(1, Stream.PILOT, 2).indices(20_000, 10), minlength=10)
    assert abs(counts - 2000).max() < 5 * math.sqrt(2000)
    assert not np.array_equal(
        Draws(1, Stream.PILOT, 2).indices(9, 99), Draws(1, Stream.PILOT, 3).indices(9, 99)
    )
    again = Draws(1, Stream.PILOT, 2)
    again.seed()
    assert np.array_equal(Draws(1, Stream.PILOT, 2).indices(9, 99), again.indices(9, 99))


# --- lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_line_is_the_loss_at_moved_weights(preconditioned: bool) -> None:
    task = mlp_task()
    if preconditioned:
        task.preconditioner = [torch.rand_like(p) + 0.5 for p in task.parameters]
    total = task.zeros()
    add_gradient(task, total, np.arange(6), Draws(0, Stream.REPLICATE))
    examples = np.arange(20, 45)
    with preserved(task.model, 0) as origin:
        curve = evaluate_line(task, origin, total, 6, 0.3, examples, Draws(1, Stream.REPLICATE))
    base = full_loss(task, examples)
    moved = copy.deepcopy(task.model)
    for node in line.NODES:
        P = task.preconditioner or [torch.ones_like(p) for p in task.parameters]
        with torch.no_grad():
            for p, q, g, s in zip(moved.parameters(), task.parameters, total, P, strict=True):
                p.copy_(q - node * 0.3 * s * g / 6)
        change = base - float(cross_entropy(moved, task.batches.fetch(examples)).detach())
        assert float(np.polyval([*curve[::-1], 0.0], node)) == pytest.approx(change, abs=1e-12)
    assert task.spent.evaluation == 25 * 5


def test_slope_and_curvature_are_those_of_autograd() -> None:
    task = mlp_task()
    total = task.zeros()
    add_gradient(task, total, np.arange(6), Draws(0, Stream.REPLICATE))
    examples = np.arange(20, 45)
    with preserved(task.model, 0) as origin:
        scale = 1e-3
        curve = evaluate_line(task, origin, total, 6, scale, examples, Draws(1, Stream.REPLICATE))
    loss = cross_entropy(task.model, task.batches.fetch(examples))
    gradient = torch.autograd.grad(loss, task.parameters, create_graph=True)
    u = [g / 6 for g in total]
    slope = sum((a * b).sum() for a, b in zip(gradient, u, strict=True))
    assert isinstance(slope, torch.Tensor)
    hessian_u = torch.autograd.grad(slope, task.parameters)
    kappa = sum(float((a * b).sum()) for a, b in zip(hessian_u, u, strict=True))
    assert curve[0] / scale == pytest.approx(float(slope.detach()), rel=1e-6)
    assert float(line.curvature(curve, np.asarray(scale))) == pytest.approx(kappa, rel=1e-3)


def test_the_same_masks_at_every_step_size() -> None:
    """With dropout a loss still is a smooth function of the step: a tiny line is almost straight."""
    task = mlp_task(nn.Dropout(0.5))
    task.adopt(Traits(stochastic=True))
    total = task.zeros()
    with preserved(task.model, 0) as origin:
        add_gradient(task, total, np.arange(6), Draws(0, Stream.REPLICATE))
        curve = evaluate_line(task, origin, total, 6, 1e-6, np.arange(20, 45), Draws(1, Stream.REPLICATE))
    assert abs(curve[1]) < 1e-3 * abs(curve[0])


def test_a_line_that_leaves_the_finite_says_so_and_restores() -> None:
    task = mlp_task()

    def steep(model: nn.Module, batch: Any) -> torch.Tensor:
        value = cross_entropy(model, batch)
        return value if float(value.detach()) < 2 else value * math.inf

    task = Task(task.model, steep, task.batches, micro_batch_size=8)
    before = [p.detach().clone() for p in task.parameters]
    total = task.zeros()
    add_gradient(task, total, np.arange(6), Draws(0, Stream.REPLICATE))
    with preserved(task.model, 0) as origin, pytest.raises(DivergedError, match="not finite"):
        evaluate_line(task, origin, total, 6, 1e4, np.arange(20), Draws(1, Stream.REPLICATE))
    assert all(torch.equal(p, q) for p, q in zip(task.parameters, before, strict=True))


# --- replicates ---------------------------------------------------------------------------------------


def test_a_replicate_equals_its_naive_twin() -> None:
    """Every update from scratch, in the same order of draws."""
    task = mlp_task(micro_batch_size=64)
    stages, scales = plan_pass([2, 8, 20]), [0.1, 0.2, 0.3]
    with preserved(task.model, 0) as origin:
        found = measure_replicate(task, origin, stages, scales, 12, Draws(7, Stream.REPLICATE))
    draws = Draws(7, Stream.REPLICATE)
    drawn: list[int] = []
    curves, gradients = [], []
    for stage, scale in zip(stages, scales, strict=True):
        lines = []
        for _ in range(stage.lines):
            fresh = draws.indices(stage.batch_size if stage.blocks else 20 - len(drawn), 60)
            if len(fresh):
                draws.seed()
                gradients.append(fresh)
            drawn.extend(fresh)
            batch = np.array(fresh if stage.blocks else drawn)
            total = task.zeros()
            add_gradient(task, total, batch, Draws(0, Stream.REPLICATE))
            examples = draws.indices(12 // stage.lines, 60)
            base = full_loss(task, examples)
            changes = []
            for node in line.NODES:
                moved = copy.deepcopy(task.model)
                with torch.no_grad():
                    for p, g in zip(moved.parameters(), total, strict=True):
                        p.sub_(node * scale * g / len(batch))
                changes.append(base - float(cross_entropy(moved, task.batches.fetch(examples)).detach()))
            draws.seed()
            lines.append(line.coefficients(np.array(changes)))
        curves.append(np.mean(lines, axis=0))
    np.testing.assert_allclose(found.curves, np.array(curves), atol=1e-12)

    def mean_gradient(indices: np.ndarray) -> torch.Tensor:
        total = task.zeros()
        add_gradient(task, total, indices, Draws(0, Stream.REPLICATE))
        return torch.cat([t.flatten() for t in total]) / len(indices)

    means = [mean_gradient(block) for block in gradients]
    sizes = [len(block) for block in gradients]
    pairs = [
        (sizes[i] * sizes[j], sizes[i] * sizes[j] * float(means[i] @ means[j]))
        for i in range(len(means)) for j in range(len(means)) if i != j
    ]  # fmt: skip
    assert found.signal == pytest.approx(sum(p for _, p in pairs) / sum(n for n, _ in pairs))
    assert found.slope == found.signal


# --- what is given back -------------------------------------------------------------------------------


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": {k: v.clone() for k, v in model.state_dict().items()},
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),  # type: ignore[index]
        "python": random.getstate(),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in before["weights"].items():
        assert torch.equal(value, after["weights"][key]), key
    for one, other in zip(before["gradients"], after["gradients"], strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert before["modes"] == after["modes"]
    assert torch.equal(before["torch"], after["torch"])
    assert np.array_equal(before["numpy"], after["numpy"])
    assert before["python"] == after["python"]


def objectives() -> Iterator[Any]:
    yield cross_entropy

    def failing(model: nn.Module, batch: Any) -> torch.Tensor:
        failing.calls += 1  # type: ignore[attr-defined]
        random.random(), np.random.random(), torch.rand(1)
        if failing.calls > 150:  # type: ignore[attr-defined]
            raise ValueError("a mistake of the user")
        return cross_entropy(model, batch)

    failing.calls = 0  # type: ignore[attr-defined]
    yield failing


@pytest.mark.parametrize("objective", list(objectives()))
def test_the_probe_gives_everything_back_bit_for_bit(objective: Any) -> None:
    from bnoise_cli.measurement.outcome import StopReason
    from bnoise_cli.measurement.probing.budget import ProbeSettings
    from bnoise_cli.measurement.probing.probe import probe

    base = mlp_task(nn.BatchNorm1d(7), nn.Dropout(0.2), dtype=torch.float32)
    base.model.train()
    task = Task(base.model, objective, base.batches, micro_batch_size=8)
    task.adopt(Traits(group=8))
    cross_entropy(task.model, task.batches.fetch(np.arange(9))).backward()
    task.parameters[1].grad = None
    base.model.get_submodule("1").eval()
    before = state_of(task.model)
    settings = ProbeSettings(max_examples=2000, precision=0.001)
    if objective is cross_entropy:
        assert probe(task, settings).stop is StopReason.BUDGET
    else:
        with pytest.raises(RunError, match="a mistake of the user"):
            probe(task, settings)
    assert_same(before, state_of(task.model))


# --- checks -------------------------------------------------------------------------------------------


def test_a_plain_task_passes() -> None:
    findings = check_task(mlp_task(), 0)
    assert (findings.stochastic, findings.is_mean, findings.batch_norms) == (False, True, 0)
    assert findings.group == 1


def test_the_checks_leave_the_micro_batch_as_it_was() -> None:
    for size in (4, 64):
        task = mlp_task(micro_batch_size=size)
        check_task(task, 0)
        assert task.micro_batch_size == task.planned_micro_batch_size == size


def test_dropout_makes_a_task_stochastic_and_still_a_mean() -> None:
    task = mlp_task(nn.Dropout(0.5))
    findings = check_task(task, 0)
    assert (findings.stochastic, findings.is_mean, task.traits.stochastic) == (True, True, True)


@pytest.mark.parametrize("tracked", [True, False])
def test_batch_norm_makes_groups(tracked: bool) -> None:
    """Groups of what goes through the model at once, each with the statistics that training gives it."""
    task = mlp_task(nn.BatchNorm1d(7, track_running_stats=tracked))
    task.model.train()
    assert check_task(task, 0).batch_norms == 1
    groups = task.in_groups()
    assert (groups.batches.group, groups.micro_batch_size) == (8, 1)
    found, expected = groups.zeros(), task.zeros()
    blocks = add_gradient(groups, found, np.array([5, 9]), Draws(0, Stream.REPLICATE))
    assert [(block.examples, block.weight) for block in blocks] == [(1, 1.0)] * 2
    for index in (5, 9):
        members = groups.batches.examples(np.array([index]))
        assert len(members) == 8
        assert np.array_equal(members, groups.batches.examples(np.array([index]))), (
            "a group is always the same"
        )
        add_gradient(task, expected, members, Draws(0, Stream.REPLICATE))
    torch.testing.assert_close([8 * value for value in found], expected)


def test_batch_norm_in_evaluation_mode_is_a_mean() -> None:
    task = mlp_task(nn.BatchNorm1d(7))
    task.model.eval()
    findings = check_task(task, 0)
    assert (findings.batch_norms, findings.group, findings.is_mean) == (0, 1, True)


def test_a_contrastive_loss_is_no_mean() -> None:
    def contrastive(model: nn.Module, batch: Any) -> torch.Tensor:
        z = model(batch[0])
        return nn.functional.cross_entropy(z @ z.T, torch.arange(len(z)))

    base = mlp_task()
    findings = check_task(Task(base.model, contrastive, base.batches, micro_batch_size=8), 0)
    assert not findings.is_mean
    assert findings.group == 8
    assert findings.mean_gap > 0.05


def test_a_loss_that_does_not_repeat_is_refused() -> None:
    own = torch.Generator().manual_seed(0)

    def restless(model: nn.Module, batch: Any) -> torch.Tensor:
        return cross_entropy(model, batch) * (1 + 0.1 * torch.rand(1, generator=own))

    base = mlp_task()
    with pytest.raises(RunError, match="must repeat"):
        check_task(Task(base.model, restless, base.batches, micro_batch_size=8), 0)


def test_a_loss_that_moves_the_weights_is_refused() -> None:
    def moving(model: nn.Module, batch: Any) -> torch.Tensor:
        with torch.no_grad():
            for p in model.parameters():
                p.clamp_(-0.01, 0.01)
        return cross_entropy(model, batch)

    base = mlp_task()
    before = [p.detach().clone() for p in base.parameters]
    with pytest.raises(RunError, match="changed the model's parameters in place"):
        check_task(Task(base.model, moving, base.batches, micro_batch_size=8), 0)
    assert all(torch.equal(p, q) for p, q in zip(base.parameters, before, strict=True))


def test_models_that_cannot_be_probed() -> None:
    base = mlp_task()
    for parameter in base.model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(RunError, match="none with requires_grad"):
        Task(base.model, cross_entropy, base.batches, micro_batch_size=8)
    with pytest.raises(RunError, match="bfloat16"):
        Task(mlp_task().model.bfloat16(), cross_entropy, base.batches, micro_batch_size=8)


# --- warm-up ------------------------------------------------------------------------------------------


def test_warm_up_is_the_optimizers_own_training() -> None:
    task, twin = mlp_task(), mlp_task()
    optimizer = torch.optim.SGD(task.parameters, lr=0.1, momentum=0.9)
    trainer = Trainer(task, optimizer, batch_size=20, max_grad_norm=0.5, seed=3)
    trainer.train_until(4, lambda step: None)
    trainer.train_until(7, lambda step: None)
    draws = Draws(3, Stream.WARM_UP)
    plain = torch.optim.SGD(twin.parameters, lr=0.1, momentum=0.9)
    for _ in range(7):
        indices = draws.indices(20, 60)
        for _ in range(3):  # one mask seed for each micro-batch of 8
            draws.seed()
        plain.zero_grad()
        cross_entropy(twin.model, twin.batches.fetch(indices)).backward()
        nn.utils.clip_grad_norm_(twin.parameters, 0.5)
        plain.step()
    torch.testing.assert_close(task.parameters, twin.parameters)
    assert trainer.step == 7


def test_divergence_in_the_warm_up_names_the_step() -> None:
    task = quadratic_task(examples=128, dimension=4)
    trainer = Trainer(
        task, torch.optim.SGD(task.parameters, lr=1e30), batch_size=4, max_grad_norm=None, seed=0
    )
    with pytest.raises(RunError, match=r"warm-up training, step [1-9].*batch of 4"):
        trainer.train_until(50, lambda step: None)


def test_an_error_is_placed_in_the_users_own_file_not_in_the_package() -> None:
    with (
        pytest.raises(RunError, match=r"the maths failed with \w+: .* \(at .*test_measurement.py:\d+"),
        user_code("the maths"),
    ):
        line.coefficients(np.zeros(1))


def test_out_of_memory_is_recognised() -> None:
    from bnoise_cli.measurement.task.user_code import user_code

    for error in (torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("DefaultCPUAllocator: no")):
        with pytest.raises(OutOfMemoryError), user_code("testing"):
            raise error


@pytest.mark.parametrize("error", [ValueError("a worker has gone"), SystemExit(1)])
def test_ctrl_c_that_the_users_code_turns_into_an_error_stays_an_interruption(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnoise_cli import interrupt
    from bnoise_cli.measurement.task.user_code import user_code

    def stubborn() -> None:
        try:
            interrupt._interrupt(2, None)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setitem(interrupt._state, "asked", False)
    with pytest.raises(KeyboardInterrupt), user_code("testing"):
        stubborn()


@pytest.mark.parametrize("weighted", [False, True])
def test_norms_of_large_tensors_are_exact(weighted: bool) -> None:
    """Single float32 sums are off by 1e-4 here: as much as the signal may be of what they are the difference of."""
    model = nn.Linear(2048, 2048, bias=False)
    task = Task(
        model,
        lambda model, batch: model(batch).mean(),
        Batches(torch.zeros(2, 2048), None, CPU),
        micro_batch_size=2,
    )
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(2048, 2048, generator=generator)
    scale = torch.rand(2048, 2048, generator=generator)
    if weighted:
        task.preconditioner = [scale]
    exact = [float((vector.double() ** 2).sum()), float((vector.double() ** 2 * scale.double()).sum())]
    plain, preconditioned = squared_norms(task, [vector])
    assert plain == pytest.approx(exact[0], rel=3e-6)
    assert preconditioned == pytest.approx(exact[weighted], rel=3e-6)


# --- random streams -----------------------------------------------------------------------------------


def test_no_two_random_streams_meet() -> None:
    words = sorted({0, 1, 7, *(1 << power for power in range(64)), (1 << 63) - 1, (1 << 64) - 1})
    seeds = [*words, *(-word for word in words[1:-1]), 5 + (7 << 32), 5 + (7 << 64), -(1 << 127)]
    keys: list[tuple[int, ...]] = [(seed, stream) for seed in seeds for stream in Stream]
    keys += [(seed, stream, word) for seed in (0, 5) for stream in Stream for word in words]
    keys += [(5, Stream.REPLICATE, *([0] * before), word) for before in (1, 2) for word in words]
    first = {
        tuple(np.random.SeedSequence(_key(seed, Stream(stream), *which)).generate_state(4))
        for seed, stream, *which in keys
    }
    assert len(first) == len(set(keys)) == len(keys)


def test_the_register_of_streams_holds_each_number_once() -> None:
    assert len({stream.value for stream in Stream.__members__.values()}) == len(Stream.__members__)


@pytest.mark.parametrize(
    ("seed", "which"), [(1 << 127, ()), (-(1 << 127) - 1, ()), (0, (-1,)), (0, (1 << 64,)), (0, (0, 0, 0, 0))]
)
def test_a_key_that_does_not_fit_is_refused_instead_of_cut(seed: int, which: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"found"):
        Draws(seed, Stream.REPLICATE, *which)


def test_a_loss_may_take_gradients_itself() -> None:
    """A penalty on the slope of the model by its inputs, as WGAN-GP and models of forces have it."""

    def penalised(model: nn.Module, batch: Any) -> torch.Tensor:
        x = batch[0].clone().requires_grad_()
        [slope] = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return slope.square().sum(1).mean()

    task = mlp_task()
    task.objective = penalised
    findings = check_task(task, 0)
    assert (findings.is_mean, findings.stochastic) == (True, False)
    batch = task.batches.fetch(np.arange(8))
    found = task.loss_value(batch, 0, "a batch")
    assert float(found) == pytest.approx(penalised(task.model, batch).item())
    assert not found.requires_grad
