"""The sweep: against an exact recursion, stacked against one by one, killed and gone on with, and its every end."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnoise_cli.errors import RunError
from bnoise_cli.examples.datasets import Digits
from bnoise_cli.examples.models import MLP
from bnoise_cli.examples.quadratic import NoisyQuadratic, mean_loss, unit_noise
from bnoise_cli.ledger import Ledger
from bnoise_cli.maths.hyperbola import fit_hyperbola
from bnoise_cli.measurement.outcome import SweepProgress, SweepRun
from bnoise_cli.measurement.sweeping.stacking import stacking_pays
from bnoise_cli.measurement.sweeping.sweep import SweepSession
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.training.lanes import SingleLane, StackedLanes, Start
from bnoise_cli.records import Estimate
from bnoise_cli.results.branch import BranchOutcome
from bnoise_cli.results.sweep import sweep_result
from bnoise_cli.results.sweep_doubts import branch_doubts
from bnoise_cli.spec.identity import ledger_hash
from bnoise_cli.spec.load import Spec, load_spec
from bnoise_cli.spec.schema import Sweep
from tests.cases import CPU, MARKING, QUADRATIC_CONFIG, TINY_SWEEP, Call, Write, cross_entropy
from tests.processes import start, wait_for
from tests.samples import CONFIG, GOOD_STEPS, along_a_run, sweep_run


def silent(_: SweepProgress) -> None:
    pass


def swept(spec: Spec, ledger: Path, on_progress: Callable[[SweepProgress], None] = silent) -> SweepRun:
    return SweepSession(spec, CPU, Ledger(ledger, ledger_hash(spec))).run(on_progress)


# --- against the exact answer -------------------------------------------------------------------------


def exact_steps(curvature: Tensor, noise: Tensor, batch_size: int, rate: float, goal: float) -> float:
    """Steps until E[L] = ½Σhᵢ·E[θᵢ²] reaches the goal, from θ = (1, …, 1); infinite where it never does.

    The gradient of a batch drawn with replacement is Hθ − z̄ with Cov(z̄) = Σ/B, so one step of SGD makes of
    the second moments E[θᵢ²] ← (1 − εhᵢ)²·E[θᵢ²] + ε²σᵢ²/B. Between steps log E[L] is interpolated.
    """
    second = torch.ones_like(curvature)
    kept, added = (1 - rate * curvature) ** 2, rate**2 * noise / batch_size
    before = float(0.5 * (curvature * second).sum())
    for step in range(1, 2000):
        second = kept * second + added
        after = float(0.5 * (curvature * second).sum())
        if after <= goal:
            return step - 1 + math.log(before / goal) / math.log(before / after)
        if not after < before:
            return math.inf
        before = after
    return math.inf


@pytest.mark.statistics
@pytest.mark.parametrize("rate", [0.47, 0.425])
def test_steps_on_a_noisy_quadratic_are_those_of_the_exact_second_moments(
    tmp_path: Path, rate: float
) -> None:
    """S(B) is the least of `exact_steps` over learning rates 1.4% apart.

    1024 directions with Hᵢ = i^(−½) and as much noise in each as makes B_crit about 19: so many directions share
    the loss at the goal that a path scatters around its mean by 5% in log S (simulated with exact Gaussian noise).
    The mean over 5 seeds is good to 2.2%, so 5% is a little over two standard errors at B ≤ 16, where noise counts,
    and far more above; the draws are fixed, so the test repeats. Large batches are fastest at ε = 1.9, just below
    2/H₁ = 2 where they diverge, and S ∝ 1/ε there: 4·0.47 = 1.88 is on the grid of learning rates of the one config;
    that of the other goes from 1.70 to 2.02 by 2^(1/4), which would cost 9%, and has 1.85 by 2^(1/8).

    B_crit within 15%: an error of 2.2% in log S at each batch size makes one of 2.2%·√(JᵀJ)⁻¹₂₂ = 4.1% in log B_crit.
    """
    sizes = [2, 4, 8, 16, 32, 64]
    model = NoisyQuadratic(dimension=1024, decay=0.5, noise_decay=0.5, noise_scale=1.2)
    curvature, noise = model.hessian.double(), model.noise_std.double() ** 2
    goal = 0.05 * float(0.5 * curvature.sum())
    config = tmp_path / "q.yaml"
    config.write_text(
        f"""
version: 1
model: {{_target_: bnoise_cli.examples.quadratic.NoisyQuadratic,
         dimension: 1024, decay: 0.5, noise_decay: 0.5, noise_scale: 1.2}}
dataset: {{_target_: bnoise_cli.examples.quadratic.unit_noise, dimension: 1024, examples: 2048}}
objective: {{_target_: bnoise_cli.examples.quadratic.mean_loss}}
optimizer: {{_target_: torch.optim.SGD, lr: {rate}}}
training: {{batch_size: 256}}
sweep: {{goal: {goal}, seeds: 5, batch_sizes: {sizes}}}
"""
    )
    spec = load_spec(config)
    result = sweep_result(swept(spec, tmp_path / "runs.jsonl"), spec)
    rates = [2 ** (power / 50) for power in range(-150, 51)]
    exact = [min(exact_steps(curvature, noise, size, e, goal) for e in rates) for size in sizes]
    assert exact[-1] > 15, "interpolation between steps must not matter"
    for batch, truth in zip(result.batches, exact, strict=True):
        assert batch.steps == pytest.approx(truth, rel=0.05), f"batch size {batch.batch_size}"
    fit = fit_hyperbola(sizes, [[steps] for steps in exact])
    assert fit is not None
    truth = math.exp(fit.log_critical)
    found = result.critical_batch_size
    assert found.value == pytest.approx(truth, rel=0.15)
    assert found.high is not None
    assert found.low < truth < found.high
    assert result.min_steps.value == pytest.approx(fit.min_steps.value, rel=0.1)


# --- side by side and one by one ----------------------------------------------------------------------


def digits_task(dtype: torch.dtype, micro_batch_size: int) -> Task:
    x, y = Digits().tensors
    data = (x.to(dtype), y)
    task = Task(
        MLP([64, 32, 10]).to(dtype),
        cross_entropy,
        Batches(data, None, CPU),
        micro_batch_size=micro_batch_size,
    )
    task.stochastic = False
    return task


def quadratic(dtype: torch.dtype, micro_batch_size: int) -> Task:
    data = unit_noise(16, 512).tensors[0].to(dtype)
    task = Task(
        NoisyQuadratic(dimension=16).to(dtype), mean_loss, Batches(data, None, CPU), micro_batch_size=micro_batch_size
    )  # fmt: skip
    task.stochastic = False
    return task


RATES, SEEDS = [0.02, 0.5, 0.1, 0.5], [0, 0, 1, 7]
MakeTask = Callable[[torch.dtype, int], Task]
Optimizer = Callable[[Sequence[Tensor], float], torch.optim.Optimizer]


def sgd(parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, rate)


def momentum(parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=1e-3)


def adam(parameters: Sequence[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 0.1 * rate)


@pytest.mark.parametrize("make_task", [digits_task, quadratic])
@pytest.mark.parametrize(
    ("make_optimizer", "micro_batch_size", "max_grad_norm"),
    [(sgd, 64, None), (momentum, 5, 0.3), (adam, 64, None)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_runs_side_by_side_are_the_runs_one_by_one(
    make_task: MakeTask,
    make_optimizer: Optimizer,
    micro_batch_size: int,
    max_grad_norm: float | None,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """Weights and losses at every one of 20 steps, with a run that leaves the stack after 8.

    They differ by the order of sums. In double precision that is 1e-16 a step and 1e-10 leaves room for growth along
    training; in single precision, 1e-7, a unit of the MLP near zero may switch in one and not in the other.
    """
    task = make_task(dtype, micro_batch_size)
    evaluation = np.arange(task.batches.length)
    start = Start(task)
    common: dict[str, Any] = {"batch_size": 12, "evaluation": evaluation, "max_grad_norm": max_grad_norm}

    def one(rate: float, seed: int) -> list[tuple[list[Tensor], float]]:
        lane = SingleLane(task, start, make_optimizer(task.parameters, rate), seed=seed, **common)
        path = []
        for _ in range(20):
            lane.step((0,))
            path.append(([p.detach().clone() for p in task.parameters], lane.losses((0,))[0]))
        return path

    alone = [one(rate, seed) for rate, seed in zip(RATES, SEEDS, strict=True)]
    stacked = StackedLanes(task, start, make_optimizer, rates=RATES, seeds=SEEDS, **common)
    for step in range(20):
        lanes = [0, 1, 2, 3] if step < 8 else [0, 2, 3]
        stacked.step(lanes)
        for lane, loss in zip(lanes, stacked.losses(lanes), strict=True):
            weights, expected = alone[lane][step]
            assert loss == pytest.approx(expected, rel=tolerance)
            for one_by_one, together in zip(weights, stacked.weights(lane), strict=True):
                scale = float(one_by_one.abs().max())
                torch.testing.assert_close(together, one_by_one, rtol=0, atol=tolerance * scale)
    for one_by_one, together in zip(alone[1][7][0], stacked.weights(1), strict=True):
        scale = float(one_by_one.abs().max())
        torch.testing.assert_close(together, one_by_one, rtol=0, atol=tolerance * scale)


def test_a_run_that_diverges_leaves_the_others_alone() -> None:
    """θ ← (1 − εh)θ with ε = 1e30 overflows in two steps; the other run takes the steps it takes by itself."""
    task = quadratic(torch.float32, 64)
    start = Start(task)
    common: dict[str, Any] = {"batch_size": 8, "evaluation": np.arange(512), "max_grad_norm": None}
    lane = SingleLane(task, start, sgd(task.parameters, 0.1), seed=0, **common)
    for _ in range(5):
        lane.step((0,))
    alone, loss = task.parameters[0].detach().clone(), lane.losses((0,))[0]
    stacked = StackedLanes(task, start, sgd, rates=[1e30, 0.1], seeds=[0, 0], **common)
    for _ in range(5):
        stacked.step([0, 1])
    broken, whole = stacked.losses([0, 1])
    assert not math.isfinite(broken)
    assert whole == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(stacked.weights(1)[0], alone)
    single = SingleLane(task, start, sgd(task.parameters, 1e30), seed=0, **common)
    for _ in range(5):
        single.step((0,))
    assert not math.isfinite(single.losses((0,))[0])


REFUSING = """\
import torch
from torch import nn
from bnoise_cli.examples.quadratic import NoisyQuadratic

class Branching(NoisyQuadratic):
    '''Its forward pass reads a number out of a tensor, which torch.func cannot do for many runs at once.'''

    def forward(self, z):
        losses = super().forward(z)
        return losses if losses.sum().item() < 1e30 else 2 * losses

class Masked(NoisyQuadratic):
    def forward(self, z):
        return super().forward(nn.functional.dropout(z, 0.1, self.training))

class Normed(nn.Module):
    def __init__(self, dimension):
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(dimension), nn.Linear(dimension, 1)

    def forward(self, z):
        return (self.out(self.norm(z)) - 1).square()
"""


@pytest.mark.parametrize(("name", "options"), [
    ("Branching", "dimension: 32, decay: 0.5, noise_decay: 0.5, noise_scale: 1.0"),
    ("Masked", "dimension: 32, decay: 0.5, noise_decay: 0.5, noise_scale: 1.0"),
    ("Normed", "dimension: 32"),
])  # fmt: skip
def test_a_model_that_cannot_be_stacked_is_swept_one_by_one(write: Write, name: str, options: str) -> None:
    sys.modules.pop(f"_bnoise_user_{Path('user.py').resolve()}", None)
    write("user.py", REFUSING)
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"), [f"model={{_target_: user.py:{name}, {options}}}"])
    session = SweepSession(spec, CPU, Ledger(Path("runs.jsonl"), ledger_hash(spec)))
    assert not stacking_pays(session.shared, 8, 3)
    run = session.run(silent)
    assert run.complete
    assert all(rate is not None for rate in run.chosen.values())
    lines = [json.loads(line) for line in Path("runs.jsonl").read_text().splitlines()]
    assert [line["value"] for line in lines if line.get("kind") == "stacks"] == [False] * 3
    assert all(len(line["runs"]) == 1 for line in lines if line.get("kind") == "runs")


# --- what is given back -------------------------------------------------------------------------------


@dataclasses.dataclass
class State:
    """All that a sweep must give back."""

    weights: dict[str, Tensor]
    gradients: list[Tensor | None]
    modes: list[bool]
    streams: tuple[Any, ...]

    @classmethod
    def of(cls, model: nn.Module) -> State:
        return cls(
            weights=copy.deepcopy(model.state_dict()),
            gradients=[p.grad for p in model.parameters()],
            modes=[module.training for module in model.modules()],
            streams=(random.getstate(), np.random.get_state(), torch.get_rng_state()),
        )

    def assert_same(self, other: State) -> None:
        assert self.weights.keys() == other.weights.keys()
        assert all(torch.equal(value, other.weights[name]) for name, value in self.weights.items())
        assert all(one is two for one, two in zip(self.gradients, other.gradients, strict=True))
        assert self.modes == other.modes
        assert self.streams[0] == other.streams[0]
        assert all(np.array_equal(a, b) for a, b in zip(self.streams[1], other.streams[1], strict=True))
        assert torch.equal(self.streams[2], other.streams[2])


def stop_at(phase: str, error: BaseException, after: int = 3) -> Callable[[SweepProgress], None]:
    """Progress that raises at the so many-th report of a phase."""
    left = [after]

    def on_progress(progress: SweepProgress) -> None:
        if progress.phase == phase:
            left[0] -= 1
            if left[0] == 0:
                raise error

    return on_progress


@pytest.mark.parametrize("name", ["NoisyQuadratic", "Normed", "Masked"])
@pytest.mark.parametrize(
    ("phase", "error"),
    [
        (None, None), ("warm-up", ZeroDivisionError()), ("goal", ZeroDivisionError()),
        ("training", ZeroDivisionError()), ("training", RunError("the disk fell out")),
        ("training", KeyboardInterrupt()), ("probe", ZeroDivisionError()),
    ],
)  # fmt: skip
def test_model_and_random_streams_are_given_back_bit_for_bit(
    write: Write, name: str, phase: str | None, error: BaseException | None
) -> None:
    sys.modules.pop(f"_bnoise_user_{Path('user.py').resolve()}", None)
    write("user.py", REFUSING)
    write("q.yaml", TINY_SWEEP)
    target = "bnoise_cli.examples.quadratic.NoisyQuadratic" if name == "NoisyQuadratic" else f"user.py:{name}"
    spec = load_spec(
        Path("q.yaml"),
        [f"model={{_target_: {target}, dimension: 32}}", "sweep.goal=auto", "sweep.steps=8", "sweep.warmup_steps=5",
         "optimizer.lr=0.05", "sweep.seeds=1"],
    )  # fmt: skip
    session = SweepSession(spec, CPU, Ledger(Path("runs.jsonl"), ledger_hash(spec)))
    model = session.task.model
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    random.seed(5), np.random.seed(6), torch.manual_seed(7)
    before = State.of(model)
    if error is None or phase is None:
        session.run(silent)
        session.plan()
    else:
        # What was finished before an interrupt or a failure that was foreseen is a result, not an exception.
        caught: list[BaseException] = []
        try:
            session.run(stop_at(phase, error, after={"training": 40, "probe": 1}.get(phase, 3)))
        except type(error) as raised:
            caught.append(raised)
        assert caught or not isinstance(error, ZeroDivisionError)
    before.assert_same(State.of(model))


# --- the end of a sweep, and going on -----------------------------------------------------------------


def without_times(text: str) -> dict[str, Any]:
    """A stored result without what the clock decides."""
    data: dict[str, Any] = json.loads(text)
    del data["provenance"]["time"], data["cost"]["seconds"]
    for key in ("throughput", "tradeoff", "recommendation", "alternatives"):
        data.pop(key)
    for run in data["runs"]:
        del run["seconds"]
    data["doubts"] = [doubt for doubt in data["doubts"] if doubt["about"] != "advice"]
    return data


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def finished(path: Path) -> list[tuple[int, int, int, int]]:
    """Which runs a ledger holds, in its order."""
    return [
        (run["batch_size"], run["point"], run["seed"], run["stage"])
        for entry in entries(path)
        if entry["kind"] == "runs"
        for run in entry["runs"]
    ]


def decide_stacks(ledger: Path, spec: Spec, sizes: Sequence[int]) -> None:
    """Every other batch size side by side: what the sweep would else find out by the clock."""
    kept = Ledger(ledger, ledger_hash(spec))
    for i, size in enumerate(sizes):
        kept.append({"kind": "stacks", "batch_size": size, "value": i % 2 == 1})


#: Slow enough to be killed at ten different places.
KILLED = (
    TINY_SWEEP.replace("seeds: 2", "seeds: 4")
    .replace("[2, 8, 32]", "[2, 4, 8, 16, 32]")
    .replace("0.4", "0.25")
)


def test_a_sweep_killed_ten_times_ends_as_one_that_was_not(write: Write, bnoise: Call) -> None:
    """SIGKILL at a random moment after at least one more entry; the same command goes on."""
    config = str(write("q.yaml", KILLED))
    spec = load_spec(Path(config))
    whole, torn = Path("whole.runs.jsonl"), Path("torn.runs.jsonl")
    for ledger in (whole, torn):
        decide_stacks(ledger, spec, [2, 4, 8, 16, 32])
    code, _, err = bnoise("sweep", config, "--out", "whole.json", "--quiet")
    assert code in (0, 3), err
    moments = random.Random(0)
    for _ in range(10):
        before = torn.stat().st_size
        running = start(["sweep", config, "--out", "torn.json", "--quiet"], Path.cwd(), Path("streams"), {})
        while torn.stat().st_size == before and running.process.is_alive():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        assert running.end(0)[0] == -signal.SIGKILL, "it must not end by itself"
        known = finished(torn)
        assert known == finished(whole)[: len(known)], "nothing is measured twice or in another order"
        assert len(known) < len(finished(whole))
    assert bnoise("sweep", config, "--out", "torn.json", "--quiet")[0] == code
    assert finished(torn) == finished(whole)
    assert without_times(Path("torn.json").read_text()) == without_times(Path("whole.json").read_text())


@pytest.mark.parametrize("cut", [1, 2])
def test_rivals_are_remembered_where_a_sweep_goes_on(write: Write, cut: int) -> None:
    """One by one, a run of the first look stops once another was faster, also where that one is known from before.

    The first look at 64 examples is at a half, one and twice the config's learning rate, of which the last is beaten.
    """
    near = {"lr: 0.5": "lr: 1.2", "noise_scale: 1.0": "noise_scale: 2.0", "batch_size: 128": "batch_size: 64",
            "[2, 8, 32]": "[16, 32, 64]", "seeds: 2": "seeds: 1"}  # fmt: skip
    text = TINY_SWEEP
    for old, new in near.items():
        text = text.replace(old, new)
    spec = load_spec(write("q.yaml", text))
    for name in ("whole.jsonl", "cut.jsonl"):
        ledger = Ledger(Path(name), ledger_hash(spec))
        for size in (16, 32, 64):
            ledger.append({"kind": "stacks", "batch_size": size, "value": False})
    swept(spec, Path("whole.jsonl"))
    lines = [entry for entry in entries(Path("whole.jsonl")) if entry["kind"] == "runs"]
    assert "beaten" in [run["outcome"] for line in lines[cut:3] for run in line["runs"]]
    for line in lines[:cut]:
        ledger.append(line)
    swept(spec, Path("cut.jsonl"))
    again = [entry for entry in entries(Path("cut.jsonl")) if entry["kind"] == "runs"]
    plain = [[{**run, "seconds": 0} for line in kind for run in line["runs"]] for kind in (lines, again)]
    assert plain[0] == plain[1]


def test_a_torn_last_line_is_made_again_and_nothing_else(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    assert bnoise("sweep", config, "--quiet")[0] in (0, 3)
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    first, whole = Path(".bnoise/q.sweep.json").read_text(), ledger.read_bytes()
    for torn in (whole[:-1], whole[:-20], whole + b'{"kind": "ru', whole + "é".encode()[:1]):
        ledger.write_bytes(torn)
        code, _, err = bnoise("sweep", config)
        assert code in (0, 3), err
        assert "Going on with" in err
        assert without_times(Path(".bnoise/q.sweep.json").read_text()) == without_times(first)
        assert len(finished(ledger)) == len(set(finished(ledger)))


@pytest.mark.parametrize("damage", [b"\x00\x01garbage\n", b"3\n", b'{"kind": "runs"}\n', b"[]\n"])
def test_a_line_damaged_in_the_middle_loses_nothing_else(write: Write, bnoise: Call, damage: bytes) -> None:
    """Every other finished run is still there, in the ledger or put aside, and the sweep ends as before."""
    config = str(write("q.yaml", TINY_SWEEP))
    bnoise("sweep", config, "--quiet")
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    result = Path(".bnoise/q.sweep.json").read_text()
    lines = ledger.read_bytes().splitlines(keepends=True)
    place = len(lines) // 2
    ledger.write_bytes(b"".join([*lines[:place], damage, *lines[place + 1 :]]))
    code, _, err = bnoise("sweep", config)
    assert code in (0, 3), err
    assert "Traceback" not in err
    kept = b"".join(path.read_bytes() for path in Path(".bnoise").rglob("*.jsonl"))
    assert all(line in kept for i, line in enumerate(lines) if i != place)
    assert (
        without_times(Path(".bnoise/q.sweep.json").read_text())["batches"] == without_times(result)["batches"]
    )


def test_a_changed_config_starts_anew_and_says_so(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    bnoise("sweep", config, "--quiet")
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    before = ledger.read_bytes()
    code, _, err = bnoise("sweep", config, "--set", "sweep.goal=0.8")
    assert code in (0, 3), err
    folder = ledger.parent.absolute() / "history"
    assert f"The config has changed: starting anew. Earlier runs are kept in {folder}." in err
    [aside] = folder.glob("q.sweep.runs.*.jsonl")
    assert aside.read_bytes() == before
    assert ledger.read_bytes() != before


def test_a_config_changed_twice_loses_no_runs(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    bnoise("sweep", config, "--quiet")
    before = Path(".bnoise/q.sweep.runs.jsonl").read_bytes()
    bnoise("sweep", config, "--quiet", "--set", "sweep.goal=0.8")
    bnoise("sweep", config, "--quiet", "--set", "sweep.goal=0.6")
    assert before in [path.read_bytes() for path in Path(".bnoise").rglob("*.jsonl")]


def test_runs_of_other_code_are_not_gone_on_with(write: Write, bnoise: Call) -> None:
    """The config names a file of the user's, whose model is another one now: it starts with half the loss."""
    config = str(
        write("q.yaml", TINY_SWEEP.replace("bnoise_cli.examples.quadratic.mean_loss", "user.py:loss"))
    )
    text = "from bnoise_cli.examples.quadratic import mean_loss\ndef loss(model, batch): return mean_loss(model, batch)"
    write("user.py", text)
    module = f"_bnoise_user_{Path('user.py').resolve()}"
    sys.modules.pop(module, None)
    code, _, err = bnoise("sweep", config, "--quiet")
    assert code in (0, 3), err
    before = Path(".bnoise/q.sweep.runs.jsonl").read_bytes()
    write("user.py", f"{text} / 2")
    sys.modules.pop(module, None)
    code, _, err = bnoise("sweep", config)
    assert "Going on with" not in err
    assert "starting anew" in err or code == 2
    assert before in [path.read_bytes() for path in Path(".bnoise").rglob("*.jsonl")]


def test_other_batch_sizes_and_budgets_use_what_is_known(write: Write, bnoise: Call) -> None:
    """A run depends neither on the other batch sizes nor on the time that is allowed."""
    config = str(write("q.yaml", TINY_SWEEP))
    bnoise("sweep", config, "--quiet")
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    before = finished(ledger)
    code, _, err = bnoise("sweep", config, "--set", "sweep.batch_sizes=[2,8,16,32]", "--budget", "5m",
                          "--set", "advice.max_compute_overhead=3")  # fmt: skip
    assert code in (0, 2, 3), err
    assert "Going on with" in err
    after = finished(ledger)
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)
    assert 16 in {run[0] for run in after[len(before) :]}


def test_a_ledger_that_cannot_be_written_ends_the_sweep_and_keeps_the_result(
    write: Write, bnoise: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the n-th entry on: what was finished is in the result, the last run included."""
    config = str(write("q.yaml", TINY_SWEEP))
    opened, real = [0], Path.open

    def full(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if path.name.endswith(".runs.jsonl") and "a" in mode:
            opened[0] += 1
            if opened[0] > 12:
                raise OSError(28, "No space left on device")
        return real(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    code, out, err = bnoise("sweep", config, "--json")
    assert code == 4
    assert "No space left on device" in err
    assert "Traceback" not in err
    data = json.loads(out)
    assert json.loads(Path(".bnoise/q.sweep.json").read_text()) == data
    assert data["doubts"][0]["code"] == "failed"
    assert len(data["runs"]) >= len(finished(Path(".bnoise/q.sweep.runs.jsonl"))) > 0
    monkeypatch.undo()


def test_a_full_disk_prints_the_result(write: Write, bnoise: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(write("q.yaml", TINY_SWEEP))

    calls, real = [0], os.fsync

    def full(file: int) -> None:
        calls[0] += 1
        if calls[0] > 12:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr("os.fsync", full)
    code, out, err = bnoise("sweep", config)
    assert code == 4
    assert "No space left on device" in err
    data = json.loads(out)
    assert data["kind"] == "sweep"
    assert data["runs"]
    assert not Path(".bnoise/q.sweep.json").exists()


def test_no_room_for_copies_of_the_parameters_keeps_what_is_known(write: Write) -> None:
    write("q.yaml", TINY_SWEEP)
    spec, full = load_spec(Path("q.yaml")), torch.OutOfMemoryError("tried to allocate")

    def at_the_third(progress: SweepProgress) -> None:
        if progress.sizes_done == 2:
            raise full

    run = swept(spec, Path("runs.jsonl"), at_the_third)
    assert str(run.failure).startswith("out of memory while sweeping. Free memory on the device")
    assert not run.complete
    assert len(run.chosen) == 2
    with pytest.raises(RunError, match="out of memory while sweeping"):
        swept(spec, Path("other.jsonl"), stop_at("training", full))


# --- Ctrl-C and the budget ----------------------------------------------------------------------------


def test_ctrl_c_keeps_what_is_known_and_the_same_command_goes_on(write: Write) -> None:
    write("q.yaml", KILLED)
    ledger = Path(".bnoise/q.sweep.runs.jsonl")
    command = [sys.executable, "-m", "bnoise_cli", "sweep", "q.yaml"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # At the third batch size, so that two are known.
    while running.poll() is None and len({run[0] for run in finished(ledger)} if ledger.exists() else ()) < 3:
        time.sleep(0.005)
    for _ in range(2):  # an impatient user
        running.send_signal(signal.SIGINT)
        time.sleep(0.02)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted: the sweep was interrupted." in out
    assert "The same command goes on where it stopped." in out
    data = json.loads(Path(".bnoise/q.sweep.json").read_text())
    assert len(data["batches"]) >= 2
    before = finished(ledger)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    assert "Going on with" in done.stderr
    assert finished(ledger)[: len(before)] == before


def test_ctrl_c_before_a_run_was_finished_says_so(write: Write) -> None:
    config = TINY_SWEEP.replace("seeds: 2", "seeds: 2\n  warmup_steps: 10000000")
    write("q.yaml", config.replace("bnoise_cli.examples.quadratic.mean_loss", "user.py:marking"))
    write("user.py", MARKING)
    running = subprocess.Popen(
        [sys.executable, "-m", "bnoise_cli", "sweep", "q.yaml"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(Path("well under way"))
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=300)
    assert (running.returncode, out) == (130, "")
    assert err.strip() == "bnoise: interrupted before a run was finished."


def test_ctrl_c_while_probing_ends_the_sweep(write: Write) -> None:
    """A probe keeps what it has when it is interrupted; the sweep must not take that for a whole one and go on."""
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"))
    run = swept(spec, Path("runs.jsonl"), stop_at("probe", KeyboardInterrupt(), after=8))
    assert run.interrupted
    assert not run.complete
    assert len(run.chosen) == 3
    assert "trajectory" not in [entry["kind"] for entry in entries(Path("runs.jsonl"))]
    again = swept(spec, Path("runs.jsonl"))
    assert again.complete
    assert again.trajectory


def test_the_budget_ends_a_sweep_with_what_is_known(write: Write, bnoise: Call) -> None:
    """Runs of 10⁵ steps that fall slowly and never arrive take far longer than a second."""
    slow = [
        "--set",
        "sweep.max_steps=100000",
        "--set",
        "sweep.goal=-1",
        "--set",
        "optimizer.lr=1e-5",
        "--quiet",
    ]
    config = str(write("q.yaml", TINY_SWEEP))
    code, out, err = bnoise("sweep", config, "--budget", "1s", *slow)
    assert code == 4
    assert out == ""
    assert "the budget of 1 s was spent before another run arrived. Raise --budget." in err


def test_a_budget_is_spent_call_by_call(write: Write, bnoise: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that runs so fast that a budget of four minutes ends in the middle of the sweep, several times."""
    config = str(write("q.yaml", TINY_SWEEP))
    spec = load_spec(Path(config))
    for name in ("whole", "part"):
        decide_stacks(Path(f"{name}.runs.jsonl"), spec, [2, 8, 32])
    assert bnoise("sweep", config, "--out", "whole.json", "--quiet")[0] in (0, 3)
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    calls = 0
    ended: list[str] = []
    while not Path("part.json").exists() or "budget" in ended:
        calls += 1
        with monkeypatch.context() as patch:
            patch.setattr("bnoise_cli.measurement.sweeping.sweep.time.monotonic", clock)
            code, _, err = bnoise("sweep", config, "--out", "part.json", "--quiet", "--budget", "4m")
        assert code in (0, 3), err
        ended = [doubt["code"] for doubt in json.loads(Path("part.json").read_text())["doubts"]]
        assert calls < 50
    assert calls > 2
    whole, part = (without_times(Path(f"{name}.json").read_text()) for name in ("whole", "part"))
    assert part.pop("config")["sweep"].pop("budget") == 240
    del whole["config"]
    assert part == whole


# --- the command --------------------------------------------------------------------------------------


def test_a_sweep_prints_stores_and_repeats(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    decide_stacks(Path(".bnoise/q.sweep.runs.jsonl"), load_spec(Path(config)), [2, 8, 32])
    code, out, err = bnoise("sweep", config, "--plot", "p.svg", "--page", "p.html")
    assert code in (0, 3), err
    assert out.startswith("Critical batch size  ")
    assert "The result is in .bnoise/q.sweep.json. The picture is in p.svg. The page is in p.html." in err
    stored = json.loads(Path(".bnoise/q.sweep.json").read_text())
    assert (stored["schema_version"], stored["kind"]) == (1, "sweep")
    assert stored["critical_batch_size"]["basis"] == "sweep"
    assert [batch["batch_size"] for batch in stored["batches"]] == [2, 8, 32]
    assert stored["goal"] == 0.4
    decide_stacks(Path("again.runs.jsonl"), load_spec(Path(config)), [2, 8, 32])
    code, out, err = bnoise("sweep", config, "--out", "again.json", "--json")
    assert code in (0, 3)
    assert without_times(out) == without_times(json.dumps(stored))
    assert "Traceback" not in err


def test_json_is_alone_on_stdout(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    code, out, err = bnoise("sweep", config, "--json")
    assert code in (0, 3)
    assert err == ""
    assert json.loads(out) == json.loads(Path(".bnoise/q.sweep.json").read_text())


def test_what_the_result_says_of_its_runs_agrees_with_them(write: Write) -> None:
    """Geometric means, the examples spent and the best rates follow from the list of runs."""
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"))
    run = swept(spec, Path("runs.jsonl"))
    result = sweep_result(run, spec)
    probed = sum(point["gradient_examples"] for point in run.trajectory)
    assert result.cost.gradient_examples == sum(r.examples for r in result.runs) + probed
    for batch in result.batches:
        assert batch.steps is not None
        assert batch.steps_limits is not None
        own = [
            r
            for r in result.runs
            if (r.batch_size, r.learning_rate) == (batch.batch_size, batch.learning_rate)
        ]
        steps = list({r.seed: r.steps for r in own if r.steps is not None}.values())
        assert len(steps) == 2
        assert batch.steps == pytest.approx(math.prod(steps) ** 0.5)
        assert batch.examples == pytest.approx(batch.batch_size * batch.steps)
        assert (batch.steps_limits.low, batch.steps_limits.high) == (min(steps), max(steps))
        tried = {r.learning_rate for r in result.runs if r.batch_size == batch.batch_size}
        assert batch.learning_rate is not None
        assert min(tried) < batch.learning_rate < max(tried), "the best rate lies inside"
    assert all(r.reached == (r.outcome == "reached") == (r.steps is not None) for r in result.runs)


def test_a_dry_run_measures_nothing(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    code, out, err = bnoise("sweep", config, "--dry-run")
    assert code == 0, err
    assert "2, 8, 32" in out.replace("\n", " ")
    assert not Path(".bnoise/q.sweep.json").exists()
    assert not list(Path(".bnoise").rglob("*.jsonl"))
    plan = json.loads(bnoise("sweep", config, "--dry-run", "--json")[1])
    assert plan["batch_sizes"] == [2, 8, 32]
    assert plan["goal"] == 0.4
    assert plan["evaluation_examples"] == 256
    assert plan["seconds"] > 0
    assert (
        json.loads(bnoise("sweep", config, "--dry-run", "--json", "--set", "sweep.goal=auto")[1])["goal"]
        is None
    )


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (["sweep.goal=1000"], 2, "the goal must lie below the loss at the start"),
        (["sweep.goal=.nan"], 2, "the goal must lie below the loss at the start"),
        (["sweep.goal=soon"], 2, "expected auto or a number"),
        (["sweep.batch_sizes=[8]"], 2, "three batch sizes or more"),
        (["sweep.batch_sizes=[8, 16]"], 2, "three batch sizes or more"),
        (["sweep.batch_sizes=[8, 8, 16]"], 2, "ascending, distinct numbers"),
        (["sweep.batch_sizes=[16, 8, 4]"], 2, "ascending, distinct numbers"),
        (["sweep.batch_sizes=[0, 8, 16]"], 2, "greater than 0"),
        (["sweep.batch_sizes=[2, 8, 1000]"], 2, "the dataset's 256 examples; `sweep.batch_sizes` asks for 1000"),
        (["training.batch_size=1000"], 2, "the dataset's 256 examples; `training.batch_size` asks for 1000"),
        (["sweep.seeds=0"], 2, "greater than 0"),
        (["sweep.max_steps=0"], 2, "greater than 0"),
        (["sweep.budget=0s"], 2, "a time of at least 1s"),
        (["sweep.batchsizes=[1, 2, 3]"], 2, "did you mean `batch_sizes`?"),
        (["optimizer.lr=0.0"], 2, "a positive `lr`"),
        (["sweep.goal=auto", "optimizer.lr=500"], 4, "the planned run diverges within"),
        (["sweep.goal=auto", "optimizer.lr=1e-12"], 2, "The planned run does not train in sweep.steps"),
        (["sweep.warmup_steps=50", "optimizer.lr=500"], 4, "warm-up training, step"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_message_with_its_exit_code(
    write: Write, bnoise: Call, settings: list[str], code: int, words: str
) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    found, out, err = bnoise("sweep", config, *(part for s in settings for part in ("--set", s)))
    assert found == code, err
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""
    assert not Path(".bnoise/q.sweep.json").exists()


def test_a_goal_that_no_run_reaches_says_what_was_reached(write: Write, bnoise: Call) -> None:
    """The loss over the whole dataset is ½θᵀHθ, never below zero."""
    config = str(write("q.yaml", TINY_SWEEP))
    code, out, err = bnoise("sweep", config, "--set", "sweep.goal=-1.0", "--set", "sweep.max_steps=40")
    assert code == 3, err
    assert "Traceback" not in err
    data = json.loads(Path(".bnoise/q.sweep.json").read_text())
    [missed] = [doubt for doubt in data["doubts"] if doubt["code"] == "goal_not_reached"]
    lowest = min(run["lowest_loss"] for run in data["runs"])
    assert 0 < lowest < 1
    told = re.search(r"at batch size 2, 8, 32; the lowest was (\S+)", missed["finding"])
    assert told is not None
    assert float(told[1]) == pytest.approx(lowest, rel=0.01)
    assert missed["finding"] in " ".join(out.split())
    assert [batch["steps"] for batch in data["batches"]] == [None] * 3
    assert data["critical_batch_size"]["value"] is None


def test_the_goal_of_the_planned_run_is_reached_in_about_its_steps(write: Write) -> None:
    """At the planned batch the planned rate takes `sweep.steps`, by definition, and the best one not longer.

    The crossing is read off the path of another evaluation grid, so 10% is allowed for what that moves.
    """
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(
        Path("q.yaml"), ["sweep.goal=auto", "sweep.steps=40", "training.batch_size=8", "optimizer.lr=0.2"]
    )
    run = swept(spec, Path("runs.jsonl"))
    assert 0 < run.goal < run.start_loss
    planned = [r for r in run.runs if (r.batch_size, r.learning_rate, r.seed) == (8, 0.2, 0)]
    for one in planned:  # it may have been beaten by a better rate before it arrived
        assert one.outcome == "beaten" or one.steps == pytest.approx(40, rel=0.1)
    assert planned
    [at_plan] = [batch for batch in sweep_result(run, spec).batches if batch.batch_size == 8]
    assert at_plan.steps is not None
    assert at_plan.steps < 44


def test_the_range_is_found_around_the_critical_batch_size(write: Write) -> None:
    """From a plan of 128, which is far above it, down to where two batch sizes or more lie on either side."""
    write("q.yaml", TINY_SWEEP.replace("[2, 8, 32]", "auto"))
    spec = load_spec(Path("q.yaml"))
    result = sweep_result(swept(spec, Path("runs.jsonl")), spec)
    critical = result.critical_batch_size.value
    assert critical is not None
    sizes = [batch.batch_size for batch in result.batches]
    assert all(math.log2(128 / size).is_integer() for size in sizes)
    assert sum(size < critical for size in sizes) >= 2
    assert sum(size > critical for size in sizes) >= 2
    assert "one_sided" not in [doubt.code for doubt in result.doubts]


def test_a_warm_up_is_where_every_run_begins(write: Write) -> None:
    """The start is that of the planned run after so many steps, also where the sweep goes on in a second process."""
    write("q.yaml", TINY_SWEEP)
    spec = load_spec(Path("q.yaml"), ["sweep.warmup_steps=2"])
    ledger = Ledger(Path("runs.jsonl"), ledger_hash(spec))
    session = SweepSession(spec, CPU, ledger)
    with pytest.raises(ZeroDivisionError):
        session.run(stop_at("training", ZeroDivisionError(), after=60))
    assert finished(Path("runs.jsonl"))
    run = swept(spec, Path("runs.jsonl"))
    cold = SweepSession(load_spec(Path("q.yaml")), CPU, Ledger(Path("cold.jsonl"), "")).plan()
    # Full batches almost: E[L] after two steps of ε = 0.5 is ½Σh(1 − εh)⁴, and noise adds a few percent of the start.
    curvature = NoisyQuadratic(dimension=32, decay=0.5).hessian.double()
    expected = float(0.5 * (curvature * (1 - 0.5 * curvature) ** 4).sum())
    assert run.start_loss == pytest.approx(expected, abs=0.1 * cold.start_loss)
    assert run.start_loss < 0.5 * cold.start_loss
    steps = [r.steps for r in swept(load_spec(Path("q.yaml")), Path("cold.jsonl")).runs if r.steps]
    assert min(r.steps for r in run.runs if r.steps) < min(steps)


def test_a_report_says_the_same_again_and_compares_with_a_probe(write: Write, bnoise: Call) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    _, first, _ = bnoise("sweep", config)
    stored = ".bnoise/q.sweep.json"
    before = Path(stored).read_bytes()
    assert bnoise("report", stored) == (0, first, "")
    assert json.loads(bnoise("report", stored, "--json")[1]) == json.loads(before)
    code, _, err = bnoise("report", stored, "--plot", "p.png", "--page", "p.md")
    assert code == 0, err
    assert Path("p.png").stat().st_size > 1000
    assert "![" in Path("p.md").read_text()
    probe = str(write("p.yaml", QUADRATIC_CONFIG))
    assert bnoise("probe", probe, "--quiet")[0] == 0
    code, out, err = bnoise(
        "report", ".bnoise/p.probe.json", stored, "--page", "both.html", "--plot", "both.svg"
    )
    assert code == 0, err
    assert re.search(r"^\s*p\s.*\bprobe\b", out, flags=re.MULTILINE)
    assert re.search(r"^\s*q\s.*\bsweep\b", out, flags=re.MULTILINE)
    assert Path("both.html").stat().st_size > 1000
    assert Path("both.svg").stat().st_size > 1000
    assert Path(stored).read_bytes() == before


@pytest.mark.parametrize("damage", [
    {"batches": [{}]}, {"runs": 3}, {"goal": "low"}, {"predicted": {"ratio": 1}}, {"min_steps": {"value": -1.0}},
    {"critical_batch_size": {"value": -3.0, "low": 1.0, "high": 2.0, "basis": "sweep"}},
])  # fmt: skip
def test_a_damaged_result_is_one_message(write: Write, bnoise: Call, damage: dict[str, Any]) -> None:
    config = str(write("q.yaml", TINY_SWEEP))
    bnoise("sweep", config, "--quiet")
    data = json.loads(Path(".bnoise/q.sweep.json").read_text())
    write("d.json", json.dumps({**data, **damage}))
    code, out, err = bnoise("report", "d.json")
    assert (code, out) == (2, "")
    assert "d.json is damaged" in err
    assert "Traceback" not in err


# --- doubts -------------------------------------------------------------------------------------------


@pytest.fixture
def spec(write: Write) -> Spec:
    return load_spec(write("q.yaml", TINY_SWEEP))


def codes(run: SweepRun, spec: Spec) -> list[str]:
    return [doubt.code for doubt in sweep_result(run, spec).doubts]


def test_a_good_sweep_leaves_no_doubt(spec: Spec) -> None:
    result = sweep_result(sweep_run(GOOD_STEPS), spec)
    assert result.doubts == ()
    assert result.critical_batch_size.value == pytest.approx(20, rel=0.01)
    assert result.predicted is not None
    assert result.predicted.critical_batch_size.value == pytest.approx(20)
    assert result.predicted.ratio == pytest.approx(1, rel=0.01)
    for batch in result.batches:
        assert batch.predicted == pytest.approx(batch.steps, rel=0.01)


def scattered(by: float) -> dict[int, float]:
    return {size: steps * math.exp(by * (-1) ** i) for i, (size, steps) in enumerate(GOOD_STEPS.items())}


@pytest.mark.parametrize(
    ("expected", "run"),
    [
        (["failed"], sweep_run(GOOD_STEPS, failure=RunError("the disk fell out."), complete=False)),
        (["interrupted"], sweep_run(GOOD_STEPS, interrupted=True, complete=False)),
        (["budget"], sweep_run(GOOD_STEPS, complete=False)),
        (["goal_not_reached"], sweep_run({**GOOD_STEPS, 160: None})),
        (["unresolved", "no_prediction"], sweep_run({5: 500.0, 10: 300.0}, trajectory=())),
        (["one_sided"], sweep_run({size: 100 * (1 + 20 / size) for size in (10, 40, 80, 160)})),
        (["one_sided"], sweep_run({size: 100 * (1 + 20 / size) for size in (1, 2, 5, 10, 40)})),
        (["no_prediction"], sweep_run(GOOD_STEPS, trajectory=along_a_run(None))),
        (["prediction"], sweep_run(GOOD_STEPS, trajectory=along_a_run(50.0))),
        (["prediction"], sweep_run(GOOD_STEPS, trajectory=along_a_run(8.0))),
    ],
)  # fmt: skip
def test_every_doubt_about_a_sweep_can_be_reached(expected: list[str], run: SweepRun, spec: Spec) -> None:
    doubts = sweep_result(run, spec).doubts
    assert [doubt.code for doubt in doubts] == expected
    assert all(doubt.finding and doubt.remedy.endswith(".") for doubt in doubts)


def test_doubts_that_come_with_others(spec: Spec) -> None:
    """Steps that jump off the law are imprecise as well, and a rise is a scatter."""
    assert "law" in codes(sweep_run(scattered(0.3)), spec)
    assert "imprecise" in codes(sweep_run(scattered(0.3)), spec)
    rising = sweep_run({**GOOD_STEPS, 80: 1.2 * GOOD_STEPS[40]})
    assert "not_monotone" in codes(rising, spec)
    finding = next(d.finding for d in sweep_result(rising, spec).doubts if d.code == "not_monotone")
    assert "from batch size 40 to 80" in finding


def test_one_seed_is_a_doubt(write: Write) -> None:
    spec = load_spec(write("q.yaml", TINY_SWEEP), ["sweep.seeds=1"])
    assert codes(sweep_run(GOOD_STEPS), spec) == ["one_seed"]


def test_the_batch_size_of_a_budget_is_counted_and_a_failure_named(spec: Spec) -> None:
    [budget] = sweep_result(sweep_run(GOOD_STEPS, complete=False), spec).doubts
    assert budget.finding == "the budget was spent after 5 batch sizes"
    failed = sweep_run(GOOD_STEPS, complete=False, failure=RunError("the disk fell out."))
    assert sweep_result(failed, spec).doubts[0].finding == "the sweep ended early: the disk fell out"


def test_a_sweep_that_ended_before_its_first_batch_size_is_a_result(spec: Spec) -> None:
    run = sweep_run({5: 500.0}, chosen={}, complete=False, interrupted=True, trajectory=())
    result = sweep_result(run, spec)
    assert [doubt.code for doubt in result.doubts] == ["interrupted", "unresolved"]
    assert result.batches == ()
    assert not result.resolved
    assert len(result.runs) == 3


def test_every_doubt_about_branches_can_be_reached() -> None:
    """The plan starts at initialisation with one seed; the last branch has diverged."""
    config = CONFIG.model_copy(update={"sweep": Sweep(seeds=1)})
    batches = [
        BranchOutcome(batch_size=size, learning_rate=0.1, steps=10.0, examples=10.0 * size, loss=loss, loss_limits=None)
        for size, loss in ((8, 1.0), (16, 1.0), (32, None))
    ]  # fmt: skip
    unknown = Estimate(value=None, low=16.0, high=None)
    doubts = branch_doubts(sweep_run({}, interrupted=True, complete=False), unknown, batches, config)
    assert [doubt.code for doubt in doubts] == [
        "interrupted", "branch_diverged", "unresolved", "one_seed", "at_initialisation"
    ]  # fmt: skip
    assert all(doubt.finding and doubt.remedy.endswith(".") for doubt in doubts)
    from_checkpoint = CONFIG.model_copy(update={"checkpoint": "w.pt"})
    known = Estimate(value=16.0, low=10.0, high=20.0)
    assert branch_doubts(sweep_run({}), known, batches[:2], from_checkpoint) == ()
