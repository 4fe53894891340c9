"""Checkpoints probed through the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.probing.session import Session
from bnoise_cli.measurement.task.preconditioner import preconditioner
from bnoise_cli.spec.load import load_spec
from tests.building.checkpoints import (
    Net,
    decay_groups,
    holds,
    nanogpt,
    plain,
    save_run,
    script,
    trained,
    trainer_bin,
)
from tests.cases import CPU, Call


def codes(result: str = ".bnoise/c.probe.json") -> set[str]:
    return {doubt["code"] for doubt in json.loads(Path(result).read_text())["doubts"]}


def test_adamw_is_probed_where_a_checkpoint_ends(
    bnoise: Call, user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    """Without a step of training; without the optimizer's state that is impossible."""
    nanogpt(saved[0], saved[1].state_dict())
    code, out, err = bnoise("probe", "c.yaml", "--verbose", "--set", "checkpoint=ckpt.pt")
    assert code in (0, 3), err
    assert "At step 40 of training" in " ".join(out.split())
    assert not {"optimizer_state", "at_initialisation"} & codes()
    assert json.loads(Path(".bnoise/c.probe.json").read_text())["step"] == 40
    code, out, err = bnoise("check", "c.yaml", "--set", "checkpoint=ckpt.pt")
    assert "no stored measurement" not in out
    assert "another config" not in out
    plain(*saved)
    code, _, err = bnoise("probe", "c.yaml", "--quiet", "--set", "checkpoint=w.pt")
    assert code == 2
    assert "there is none yet" in err


def test_the_preconditioner_is_that_of_the_optimizer_that_saved_it(
    user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    model = saved[0]
    optimizer = trained(model, torch.optim.AdamW(decay_groups(model), lr=1e-3))
    path = trainer_bin(model, optimizer.state_dict())
    session = Session(load_spec(user, [f"checkpoint={path}", "probe.horizon=off"]), CPU)
    session.run(lambda _: None)
    assert holds(session.task.model, model.state_dict())
    expected = preconditioner(optimizer, list(model.parameters()))
    found = preconditioner(session.optimizer, session.task.trainable)
    assert expected is not None
    assert found is not None
    assert all(torch.equal(p, q) for p, q in zip(found, expected, strict=True))


def test_a_state_that_cannot_be_used_is_a_doubt(
    bnoise: Call, user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    model = saved[0]
    script(model, trained(model, torch.optim.RMSprop(model.parameters(), lr=1e-4)).state_dict())
    call = ["probe", "c.yaml", "--set", "checkpoint=ckpt.tar"]
    code, out, err = bnoise(*call, "--verbose", "--set", "probe.warmup_steps=2")
    assert code in (0, 3), err
    words = " ".join(out.split())
    assert "that of ckpt.tar was not used: AdamW keeps exp_avg, exp_avg_sq, step of each parameter" in words
    assert "At step 42 of training" in words
    assert "optimizer_state" in codes()
    code, _, err = bnoise(*call)
    assert code == 2
    assert "there is none yet" in err
    assert "The checkpoint's optimizer state: that of ckpt.tar was not used" in err


@pytest.mark.full
def test_several_checkpoints_are_a_trajectory(
    bnoise: Call, user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    save_run(*saved, {"late.pt": 900, "step_100.pt": None, "run2-500.pt": None})
    named = ["--set", "checkpoint=[late.pt, step_100.pt, run2-500.pt]", "--set", "probe.warmup_steps=3"]
    code, out, err = bnoise("probe", "c.yaml", "--json", *named)
    assert code in (0, 3), err
    along = json.loads(out)["trajectory"]
    assert [point["step"] for point in along] == [103, 503, 903]
    assert json.loads(out)["critical_batch_size"]["basis"] == "trajectory"
    for name, point in zip(["step_100.pt", "run2-500.pt", "late.pt"], along, strict=True):
        spec = load_spec(user, [f"checkpoint={name}", "probe.warmup_steps=3"])
        assert Session(spec, CPU).run(lambda _: None).points[-1].loss == pytest.approx(point["loss"], rel=0.2)
    assert bnoise("check", "c.yaml", *named)[1].strip()
    code, out, err = bnoise("probe", "c.yaml", "--dry-run", *named)
    assert code == 0, err
    words = " ".join(out.split())
    assert "step_100.pt, run2-500.pt, late.pt" in words
    assert "103, 503, 903" in words


def test_each_of_several_begins_at_its_own_checkpoint(
    user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    """Whatever was probed before, weights, optimizer and P are those of a probe of that checkpoint alone."""
    save_run(*saved, {"step_1.pt": 1, "step_2.pt": 2})
    settings = ["probe.warmup_steps=2", "probe.horizon=off"]

    def ends(checkpoint: str) -> tuple[dict[str, Tensor], list[Tensor]]:
        session = Session(load_spec(user, [f"checkpoint={checkpoint}", *settings]), CPU)
        session.run(lambda _: None)
        found = preconditioner(session.optimizer, session.task.trainable)
        assert found is not None
        return session.task.model.state_dict(), found

    (weights, p), (alone, q) = ends("[step_1.pt, step_2.pt]"), ends("step_2.pt")
    assert all(torch.equal(weights[name], alone[name]) for name in alone)
    assert all(torch.equal(one, same) for one, same in zip(p, q, strict=True))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunError("gone wrong")])
def test_what_was_measured_of_several_is_kept(
    user: Path, saved: tuple[Net, torch.optim.Optimizer], error: BaseException
) -> None:
    save_run(*saved, {"step_1.pt": 1, "step_2.pt": 2})
    session = Session(load_spec(user, ["checkpoint=[step_1.pt, step_2.pt]", "probe.warmup_steps=1"]), CPU)

    def watch(progress: Any) -> None:
        if getattr(progress, "start", None) == "step_2.pt":
            raise error

    run = session.run(watch)
    assert [point.step for point in run.points] == [2]
    assert run.interrupted == isinstance(error, KeyboardInterrupt)
    assert (run.failure is None) == run.interrupted


def test_a_later_state_that_cannot_be_used_ends_with_what_there_is(
    user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    save_run(*saved, {"step_1.pt": 1})
    torch.save({"model": saved[0].state_dict(), "optimizer": {"state1": {}}, "step": 2}, "step_2.pt")
    run = Session(load_spec(user, ["checkpoint=[step_1.pt, step_2.pt]"]), CPU).run(lambda _: None)
    assert [point.step for point in run.points] == [1]
    assert "it is not the state_dict of one torch optimizer" in str(run.failure)
    assert run.unused_states == (
        "that of step_2.pt was not used: it is not the state_dict of one torch optimizer",
    )


def test_one_checkpoint_is_probed_at_several_points(
    user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    nanogpt(saved[0], saved[1].state_dict())
    run = Session(load_spec(user, ["checkpoint=ckpt.pt", "probe.at_steps=[0, 2]"]), CPU).run(lambda _: None)
    assert [point.step for point in run.points] == [40, 42]


def test_a_sweep_starts_from_one(bnoise: Call, user: Path, saved: tuple[Net, torch.optim.Optimizer]) -> None:
    save_run(*saved, {"a.pt": 1, "b.pt": 2})
    code, _, err = bnoise("sweep", "c.yaml", "--set", "checkpoint=[a.pt, b.pt]")
    assert code == 2
    assert "a sweep needs one checkpoint to start from; found 2" in err
    assert "--set checkpoint=b.pt" in err
    code, _, err = bnoise("sweep", "c.yaml", "--dry-run", "--set", "checkpoint=b.pt")
    assert code == 0, err
