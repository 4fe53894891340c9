"""Probes inside a plain training loop: the run goes on to the same bits, and the figures are the command's."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import bnoise_cli
from bnoise_cli.callbacks import TrainingProbe, training_probe
from bnoise_cli.errors import CallError, ConfigError
from bnoise_cli.examples.models import MLP
from tests.api.test_door import OWN, SETTINGS, data, figures
from tests.cases import Call, Write
from tests.documents import DOCS, blocks

CONFIG = """\
version: 1
model:
  _target_: bnoise_cli.examples.models.MLP
  widths: [5, 8, 3]
checkpoint: [step_8.pt, step_16.pt]
dataset:
  _target_: own.py:data
loss:
  _target_: torch.nn.CrossEntropyLoss
optimizer:
  _target_: torch.optim.AdamW
  lr: 0.01
training:
  batch_size: 32
probe:
  warmup_steps: 0
  precision: 0.5
  max_examples: 6000
  batch_sizes: [8, 32, 128]
  horizon: "off"
"""
POINTS = SETTINGS | {"max_examples": 6000}
del POINTS["quiet"]


def run(
    model: nn.Module,
    make_probe: Callable[[nn.Module, torch.optim.Optimizer], TrainingProbe] | None = None,
    keep: Callable[[int, nn.Module, torch.optim.Optimizer], None] = lambda *_: None,
    steps: int = 20,
) -> dict[str, torch.Tensor]:
    """The weights after training, whose order and masks come from the global random stream."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    probe = make_probe(model, optimizer) if make_probe is not None else None
    step = 0
    while step < steps:
        for x, y in DataLoader(data(), batch_size=32, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            step += 1
            keep(step, model, optimizer)
            if probe is not None:
                probe.after_step(step)
            if step == steps:
                break
    return model.state_dict()


def net(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(MLP([5, 8, 3]), *layers) if layers else MLP([5, 8, 3])


def probing(**settings: Any) -> Callable[[nn.Module, torch.optim.Optimizer], TrainingProbe]:
    def make(model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingProbe:
        options = {"share": None, **POINTS, **settings}
        return TrainingProbe(model, data(), nn.CrossEntropyLoss(), optimizer=optimizer, **options)

    return make


def test_the_run_goes_on_to_the_same_bits(write: Write) -> None:
    """With dropout and running statistics, between two steps of one pass over the data."""
    write("empty", "")
    layers = nn.BatchNorm1d(3), nn.Dropout(0.3)
    wanted = run(net(*copy.deepcopy(layers)))
    found = run(
        net(*copy.deepcopy(layers)), probing(at_steps=[3, 9], batch_sizes=[32, 64, 128], max_examples=1600)
    )
    assert bnoise_cli.load(".bnoise/training.probe.json").trajectory[1].step == 9
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_the_trajectory_is_the_commands_over_the_checkpoints(bnoise: Call, write: Write) -> None:
    """To the bit; and `check` and `report` read it as the config's result."""
    write("own.py", OWN)
    write("c.yaml", CONFIG)
    told: list[tuple[int, dict[str, float]]] = []

    def keep(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        if step in (8, 16):
            torch.save(saved, f"step_{step}.pt")

    settings = {
        "config": "c.yaml",
        "at_steps": [8, 16],
        "log": lambda now, step: told.append((step, dict(now))),
    }
    run(net(), probing(**settings), keep)
    stored = json.loads(Path(".bnoise/c.probe.json").read_text())
    code, out, err = bnoise("probe", "c.yaml", "--json", "--quiet", "--out", "command.json")
    assert code in (0, 3), err
    wanted = json.loads(out)
    assert figures(stored) == figures(wanted)
    assert [point["noise_scale"]["value"] for point in wanted["trajectory"]] == [
        now["bnoise/noise_scale"] for _, now in told
    ]
    assert [step for step, _ in told] == [8, 16]
    assert told[1][1]["bnoise/critical_batch_size"] > 0
    _, out, _ = bnoise("report", ".bnoise/c.probe.json")
    assert "\n   16 " in out
    code, out, _ = bnoise("check", "c.yaml", "--set", "probe.at_steps=[8, 16]", "--set", "checkpoint=null")
    assert "was measured for another config: `checkpoint` was" in out


def test_check_reads_the_result_of_a_run_by_its_config(bnoise: Call, write: Write) -> None:
    write("own.py", OWN)
    text = CONFIG.replace("checkpoint: [step_8.pt, step_16.pt]\n", "")
    write("c.yaml", text.replace("warmup_steps: 0", "at_steps: [4, 12]"))
    run(net(), probing(config="c.yaml"))
    code, out, _ = bnoise("check", "c.yaml")
    assert code in (0, 1, 3)
    assert "see `bnoise report .bnoise/c.probe.json`" in out


def test_without_steps_it_probes_at_checkpoints(write: Write) -> None:
    write("empty", "")
    model = net()
    probe = probing(out="mine.json", max_examples=1000)(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for step in (1, 2, 3):
        probe.after_step(step)
    assert not Path("mine.json").exists()
    probe.at_checkpoint(3)
    probe.at_checkpoint(3)
    found = bnoise_cli.load("mine.json")
    assert (found.step, found.trajectory) == (3, ())


class Clock:
    """The time as a test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_probe_waits_until_its_share_of_the_time_is_there(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("empty", "")
    clock, taken = Clock(), []
    monkeypatch.setattr(training_probe, "clock", clock)
    model = net()
    options = {"at_steps": [10, 20, 400], "share": 0.1, "batch_size": 1000}
    probe = probing(**options)(model, torch.optim.SGD(model.parameters(), lr=0.1))

    def measure(step: int, asked: list[int], saved: float) -> None:
        taken.append((step, asked, saved))
        clock.now += 3.0

    monkeypatch.setattr(probe, "_probe", measure)
    for step in range(1, 501):
        clock.now += 0.5
        probe.after_step(step)
    # Ten steps of 1,000 examples take 5 s, which 10% of 100 steps are; the first step was not timed.
    assert taken == [(101, [10, 20], pytest.approx(5.05)), (400, [400], pytest.approx(0.1 * 203 - 3))]


def test_a_late_probe_says_so(write: Write) -> None:
    write("empty", "")
    model = net()
    probe = probing(at_steps=[10, 20])(model, torch.optim.SGD(model.parameters(), lr=0.1))
    probe.after_step(1)
    probe.after_step(35)
    [doubt] = [
        doubt for doubt in bnoise_cli.load(".bnoise/training.probe.json").doubts if doubt.code == "late"
    ]
    assert "at step 35 instead of 10, 35 instead of 20" in doubt.finding


def test_a_run_that_is_resumed_has_its_earlier_steps_behind_it(write: Write) -> None:
    write("empty", "")
    model = net()
    probe = probing(at_steps=[10, 20])(model, torch.optim.SGD(model.parameters(), lr=0.1))
    probe.after_step(15)
    assert not Path(".bnoise/training.probe.json").exists()
    probe.after_step(20)
    found = bnoise_cli.load(".bnoise/training.probe.json")
    assert found.step == 20
    assert not [doubt for doubt in found.doubts if doubt.code == "late"]


def test_a_failure_is_a_warning_and_training_goes_on(write: Write) -> None:
    write("empty", "")
    wanted = run(net())

    def fails(model: nn.Module, batch: Any) -> torch.Tensor:
        raise RuntimeError("not today")

    def make(model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingProbe:
        return TrainingProbe(model, data(), fails, optimizer=optimizer, share=None, at_steps=[2])

    with pytest.warns(RuntimeWarning, match=r"bnoise: no probe at step 2: .*not today"):
        found = run(net(), make)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_mistakes_are_told_before_training(write: Write) -> None:
    write("notes.json", "{}")
    with pytest.raises(ConfigError, match="at_steps="):
        run(net(), probing(at_steps=[20, 10]))
    with pytest.raises(CallError, match="not a result of bnoise"):
        run(net(), probing(out="notes.json"))


def test_the_loop_of_the_page_runs(write: Write) -> None:
    write("empty", "")
    model, dataset = net(), data()
    optimizer, loader = torch.optim.SGD(model.parameters(), lr=0.1), DataLoader(dataset, 32)
    names = {"torch": torch, "model": model, "dataset": dataset, "optimizer": optimizer, "loader": loader}
    [text] = [block for block in blocks(DOCS / "callbacks.md", "python") if "after_step" in block]
    options = "at_steps=[2, 5], share=None, max_examples=600"
    exec(text.replace("at_steps=[100, 1000]", options), names)
    assert [point.step for point in bnoise_cli.load(".bnoise/training.probe.json").trajectory] == [2, 5]
