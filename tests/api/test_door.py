"""`bnoise_cli.probe` and `sweep`: the figures of the commands, and everything that was given left as it was."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import bnoise_cli
from bnoise_cli.errors import CallError, ConfigError, RunError
from bnoise_cli.examples.models import MLP
from bnoise_cli.spec.schema import Config
from tests.cases import Call, Write
from tests.documents import DOCS, blocks

#: The parts of a result that say where, when and from which names it was made, and not what was measured.
UNLIKE = ("config", "config_hash", "provenance", "cost", "throughput")
CONFIG = """\
version: 1
model:
  _target_: bnoise_cli.examples.models.MLP
  widths: [5, 8, 3]
dataset:
  _target_: own.py:data
loss:
  _target_: torch.nn.CrossEntropyLoss
optimizer:
  _target_: torch.optim.{name}
  lr: {rate}
training:
  batch_size: 32
probe:
  warmup_steps: {warmup}
  precision: 0.5
  max_examples: 3000
  batch_sizes: [8, 32, 128]
  horizon: "off"
sweep:
  goal: 1.0
  seeds: 1
  batch_sizes: [16, 32, 64]
  steps: 20
  max_steps: 200
"""
SETTINGS: dict[str, Any] = {
    "batch_size": 32, "precision": 0.5, "max_examples": 3000, "batch_sizes": [8, 32, 128], "horizon": "off",
    "quiet": True,
}  # fmt: skip


def data() -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(500, 5, generator=generator)
    return torch.utils.data.TensorDataset(x, (x[:, :3] + torch.randn(500, 3, generator=generator)).argmax(1))


OWN = "import torch\n" + inspect.getsource(data).replace(" -> torch.utils.data.TensorDataset", "")


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    loader = DataLoader(data(), batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(2))
    for _, (x, y) in zip(range(steps), loader, strict=False):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def net(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP([5, 8, 3])


def without_times(value: Any) -> Any:
    """The measured figures of a result: no seconds, and nothing that is advised by them."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if "second" not in key}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def figures(data: dict[str, Any]) -> dict[str, Any]:
    advised = ("tradeoff", "recommendation", "alternatives", "doubts")
    return without_times({key: item for key, item in data.items() if key not in (*UNLIKE, *advised)})


@pytest.fixture
def command(bnoise: Call, write: Write) -> Callable[..., dict[str, Any]]:
    """The JSON of a command on CONFIG."""

    def run(name: str, optimizer: str, rate: float, *arguments: str, warmup: int = 0) -> dict[str, Any]:
        write("own.py", OWN)
        write("c.yaml", CONFIG.format(name=optimizer, rate=rate, warmup=warmup))
        code, out, err = bnoise(name, "c.yaml", "--json", "--quiet", *arguments)
        assert code in (0, 3), err
        return dict(json.loads(out))

    return run


@pytest.mark.full
def test_a_probe_is_the_commands_to_the_bit(command: Callable[..., dict[str, Any]]) -> None:
    """With a horizon, whose runs have optimizers of their own."""
    longer = {"max_examples": 40_000, "horizon": 2, "precision": 0.9}
    options = [word for key, value in longer.items() for word in ("--set", f"probe.{key}={value}")]
    wanted = command("probe", "SGD", 0.2, *options, warmup=2)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    found = bnoise_cli.probe(
        model, data(), nn.CrossEntropyLoss(), optimizer=optimizer, warmup_steps=2, **SETTINGS | longer
    )
    assert found.horizon is not None
    assert figures(found.to_json()) == figures(wanted)
    assert found.config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert found.plan.learning_rate == 0.2


@pytest.mark.parametrize("live", [True, False])
def test_state_is_taken_as_from_a_checkpoint(command: Callable[..., dict[str, Any]], live: bool) -> None:
    """An optimizer in the middle of training, and a function that makes a new one."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    train(model, optimizer, 12)
    saved = {
        "model": model.state_dict(),
        "step": 12,
        **({"optimizer": optimizer.state_dict()} if live else {}),
    }
    torch.save(saved, "c.pt")
    wanted = command("probe", "AdamW", 0.01, "--set", "checkpoint=c.pt", warmup=5)
    made = optimizer if live else functools.partial(torch.optim.AdamW, lr=0.01)
    found = bnoise_cli.probe(
        model, data(), nn.CrossEntropyLoss(), optimizer=made, warmup_steps=5, step=12, **SETTINGS
    )
    assert found.step == 17
    assert figures(found.to_json()) == figures(wanted)


def test_a_sweep_is_the_commands_to_the_bit(command: Callable[..., dict[str, Any]]) -> None:
    wanted = command("sweep", "SGD", 0.2)
    model = net()
    found = bnoise_cli.sweep(
        model,
        data,
        nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.2),
        goal=1.0,
        seeds=1,
        steps=20,
        max_steps=200,
        batch_size=32,
        batch_sizes=[16, 32, 64],
        max_examples=3000,
        precision=0.5,
        horizon="off",
        quiet=True,
        probe={"batch_sizes": [8, 32, 128], "warmup_steps": 0},
    )
    assert figures(found.to_json())["runs"] == figures(wanted)["runs"]
    assert found.critical_batch_size.value == wanted["critical_batch_size"]["value"]


class Augmented(Dataset[Any]):
    """Has generators of its own, as augmentation does."""

    def __init__(self) -> None:
        self.torch, self.numpy = torch.Generator().manual_seed(3), np.random.default_rng(4)
        self.other = {"python": [random.Random(5)], "old": np.random.RandomState(6)}

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> Any:
        noise = torch.randn(5, generator=self.torch) + self.numpy.random() + torch.rand(())
        noise += self.other["python"][0].random() + self.other["old"].rand() + random.random()  # type: ignore
        return noise, index % 3

    def next_draws(self) -> list[float]:
        return [
            float(torch.rand((), generator=self.torch)),
            self.numpy.random(),
            self.other["python"][0].random(),  # type: ignore[index]
            self.other["old"].rand(),  # type: ignore[attr-defined]
        ]


def test_all_that_was_given_is_as_it_was() -> None:
    model = nn.Sequential(net(), nn.BatchNorm1d(3), nn.Dropout(0.1)).eval()
    optimizer = torch.optim.AdamW(
        [
            {"params": model[0].parameters(), "weight_decay": 0.1},
            {"params": model[1].parameters(), "lr": 0.02},
        ],
        lr=0.01,
    )
    model(torch.randn(4, 5)).sum().backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()]))
    dataset, criterion = Augmented(), nn.CrossEntropyLoss(weight=torch.ones(3))
    twin = copy.deepcopy(dataset)
    torch.manual_seed(8), np.random.seed(8), random.seed(8)
    draws = [torch.rand(()).item(), np.random.rand(), random.random()]
    torch.manual_seed(8), np.random.seed(8), random.seed(8)
    found = bnoise_cli.probe(
        model,
        dataset,
        criterion,
        optimizer=optimizer,
        warmup_steps=3,
        max_examples=600,
        quiet=True,
        horizon="off",
    )
    assert found.cost.gradient_examples > 0
    after = (model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()])
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert [torch.rand(()).item(), np.random.rand(), random.random()] == draws
    assert dataset.next_draws() == twin.next_draws()


def test_groups_keep_their_settings() -> None:
    """Frozen parameters and parameters of another module are left out."""
    from bnoise_cli.measurement.building.live import another, continue_from

    model, other = net(), nn.Linear(2, 2)
    frozen, *rest = model.parameters()
    frozen.requires_grad_(False)
    groups: list[dict[str, Any]] = [
        {"params": [*rest[1:], frozen], "lr": 0.5}, {"params": other.parameters()}, {"params": rest[:1]},
    ]  # fmt: skip
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.randn(4, 5)).sum().backward()
    optimizer.step()
    copies = [p.detach().clone().requires_grad_() for p in rest]
    made = another(optimizer, model, copies)
    continue_from(optimizer, model, made)
    assert [len(group["params"]) for group in made.param_groups] == [len(rest) - 1, 1]
    assert [group["lr"] for group in made.param_groups] == [0.5, 0.1]
    for source, copied in zip(rest, copies, strict=True):
        kept = optimizer.state[source]["momentum_buffer"]
        torch.testing.assert_close(made.state[copied]["momentum_buffer"], kept, rtol=0, atol=0)
        assert made.state[copied]["momentum_buffer"] is not kept


def test_a_loss_of_the_model_is_an_objective() -> None:
    model = net()

    def own(model: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    options: dict[str, Any] = {"warmup_steps": 0, "step": 3, **SETTINGS}
    made = functools.partial(torch.optim.SGD, lr=0.1)
    one = bnoise_cli.probe(model, data(), own, optimizer=made, **options)
    two = bnoise_cli.probe(model, DataLoader(data(), 7), nn.CrossEntropyLoss(), optimizer=made, **options)
    assert one.noise_scale == two.noise_scale
    assert one.plan.learning_rate == 0.1
    assert not [doubt for doubt in one.doubts if doubt.code == "at_initialisation"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"warmupsteps": 3}, "unknown argument `warmupsteps`.*did you mean `warmup_steps`"),
        ({"budget": "soon", "precision": 2}, r"precision=: found(.|\n)*budget=: .*a time of at least 1s"),
        ({"checkpoint": "c.pt"}, "unknown argument `checkpoint`"),
        ({"sweep": {"seeds": 0}}, "sweep"),
    ],
)
def test_mistakes_are_told_by_argument(settings: dict[str, Any], said: str) -> None:
    model = net()
    with pytest.raises(ConfigError, match=said):
        bnoise_cli.probe(model, data(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), **settings)


@pytest.mark.parametrize("step", [-1, "x", math.nan, 10**30, 1.5, None])
def test_a_step_is_a_number_of_steps(step: Any) -> None:
    model = net()
    with pytest.raises(CallError, match="step must be a whole number"):
        bnoise_cli.probe(model, data(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), step=step)


@pytest.mark.parametrize("rate", [-0.1, -1e-30, math.nan, math.inf, "x", torch.tensor(-0.1)])
def test_a_learning_rate_is_a_number_of_at_least_0(rate: Any) -> None:
    """A program may set it after the optimizer was made, which checks it."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = rate
    with pytest.raises(CallError, match="finite learning rates of at least 0"):
        bnoise_cli.probe(model, data(), optimizer=optimizer, quiet=True)


class Demanding(torch.optim.SGD):
    def __init__(self, parameters: Any, lr: float, *, needed: int) -> None:
        super().__init__(parameters, lr=lr)


def test_what_cannot_be_measured_is_told() -> None:
    with pytest.raises(CallError, match=r"`model` must be a torch.nn.Module; found"):
        bnoise_cli.probe(len, data(), optimizer=torch.optim.SGD)
    model = net()
    with pytest.raises(CallError, match="Give a function instead"):
        bnoise_cli.probe(model, data(), optimizer=Demanding(model.parameters(), 0.1, needed=1), quiet=True)
    model.own = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(RunError, match=r"copy.deepcopy\(model\) failed"):
        bnoise_cli.probe(model, data(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), quiet=True)


def test_the_arguments_are_those_of_the_schema() -> None:
    parameters = inspect.signature(bnoise_cli.probe).parameters
    probe, training = Config.model_fields["probe"].default, Config.model_fields["training"].default
    assert parameters["warmup_steps"].default == probe.warmup_steps
    assert parameters["batch_size"].default == training.batch_size
    assert inspect.signature(bnoise_cli.sweep).parameters["seeds"].default == 3


def test_a_result_is_seen_kept_and_loaded(bnoise: Call, write: Write) -> None:
    write("empty", "")
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    found = bnoise_cli.probe(
        model, data(), nn.CrossEntropyLoss(), optimizer=optimizer, warmup_steps=5, **SETTINGS
    )
    said = found.save()
    assert said == "The result is in .bnoise/python.probe.json."
    again = bnoise_cli.load(".bnoise/python.probe.json")
    assert again.to_json() == found.to_json()
    assert again.name == found.name == "python"
    _, out, _ = bnoise("report", ".bnoise/python.probe.json")
    assert str(found) == found.report() == out
    assert repr(found).startswith("<bnoise probe: critical batch size ")
    page = found._repr_html_()
    assert page.startswith("<iframe srcdoc=")
    assert "&lt;svg" in page
    assert found.plot("p.svg") == Path("p.svg")
    assert "<svg" in Path("p.svg").read_text()
    assert len(found.plot().axes) >= 2  # type: ignore[union-attr]
    with pytest.raises(CallError, match="png"):
        found.plot("p.xyz")
    from rich.console import Console

    console = Console(width=100, record=True, file=open("null", "w"))  # noqa: SIM115
    console.print(found)
    assert console.export_text().split() == out.split()
    assert copy.deepcopy(found) == found
    assert {"noise_scale", "report"} <= set(dir(found))


@pytest.mark.full
def test_the_page_runs() -> None:
    pytest.importorskip("sklearn")
    names: dict[str, Any] = {}
    quick = "goal=1.5, batch_sizes=[8, 32, 128]"
    for block in blocks(DOCS / "python.md", "python"):
        exec(block.replace('budget="2m"', 'budget="2s"').replace("goal=0.5", quick), names)
    assert names["found"].kind == "probe"
    assert names["swept"].kind == "sweep"
