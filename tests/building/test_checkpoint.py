"""Checkpoints in the layouts that training scripts leave, read back against the model that was saved."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnoise_cli.errors import CallError, ConfigError, RunError
from bnoise_cli.measurement.building.checkpoint import Checkpoint, read_checkpoint
from bnoise_cli.measurement.building.optimizer_state import load_optimizer_state
from bnoise_cli.measurement.building.places import Place, places_to_probe, training_steps
from bnoise_cli.measurement.building.weights import fitting_weights, load_weights
from bnoise_cli.measurement.probing.session import Session
from bnoise_cli.measurement.task.preconditioner import preconditioner
from bnoise_cli.results.probe import PROBE
from bnoise_cli.spec.identity import weights_hash
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.schema import Probe
from bnoise_cli.storage import sampled_hash
from tests.cases import CPU, Call, Write

USER = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.norm = nn.LayerNorm(5)
        self.last = nn.Linear(5, 3)
        if tied:
            self.back = nn.Linear(5, 3, bias=False)
            self.last.weight = self.back.weight

    def forward(self, x):
        return self.last(self.norm(self.first(x)))

def data(n=256):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=g)
    return torch.utils.data.TensorDataset(x, x @ torch.ones(3, 3) + torch.randn(n, 3, generator=g))
"""
CONFIG = """\
version: 1
model: {_target_: user.py:Net}
dataset: {_target_: user.py:data}
loss: {_target_: torch.nn.MSELoss}
optimizer: {_target_: torch.optim.AdamW, lr: 1e-3}
training: {batch_size: 16}
probe: {warmup_steps: 0, max_examples: 1024}
"""


class Net(nn.Module):
    """As in USER."""

    def __init__(self, *, tied: bool = False, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(3, 5)
        self.norm = nn.LayerNorm(5)
        self.last = nn.Linear(5, 3)
        if tied:
            self.back = nn.Linear(5, 3, bias=False)
            self.last.weight = self.back.weight


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> torch.optim.Optimizer:
    """An optimizer after some steps with gradients that differ everywhere."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return optimizer


def decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """As nanoGPT and transformers group parameters."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Net, torch.optim.Optimizer]:
    """A trained model and its AdamW, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    model = Net()
    return model, trained(model, torch.optim.AdamW(model.parameters(), lr=1e-3))


@pytest.fixture
def user(saved: object, write: Write) -> Path:
    """A config whose model is Net, and the code it names."""
    write("user.py", USER)
    return write("c.yaml", CONFIG)


def of(weights: dict[str, Any]) -> Checkpoint:
    return Checkpoint(path=Path("w.pt"), weights=weights, optimizer_state=None, step=None)


def holds(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in own)


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


# --- formats ------------------------------------------------------------------------------------------


def plain(model: Net, state: Any) -> str:
    torch.save(model.state_dict(), "w.pt")
    return "w.pt"


def legacy(model: Net, state: Any) -> str:
    torch.save(model.state_dict(), "w.pth", _use_new_zipfile_serialization=False)
    return "w.pth"


def script(model: Net, state: Any) -> str:
    content = {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": state,
        "step": torch.tensor(40),
    }
    torch.save({**content, "epoch": 3}, "ckpt.tar")
    return "ckpt.tar"


def nanogpt(model: Net, state: Any) -> str:
    weights = prefixed("_orig_mod.", model.state_dict())
    content = {"model": weights, "optimizer": state, "iter_num": 40, "best_val_loss": torch.tensor(2.0)}
    torch.save(
        {**content, "model_args": {"n_layer": 2, "bias": False}, "config": {"device": "cpu"}}, "ckpt.pt"
    )
    return "ckpt.pt"


def lightning(model: Net, state: Any) -> str:
    weights = prefixed("net.", model.state_dict())
    content = {"epoch": 1, "global_step": 40, "pytorch-lightning_version": "2.5.0", "state_dict": weights}
    torch.save(
        {**content, "optimizer_states": [state], "lr_schedulers": [], "loops": {}}, "epoch=1-step=40.ckpt"
    )
    return "epoch=1-step=40.ckpt"


def trainer_state(folder: str, state: Any) -> str:
    torch.save(state, f"{folder}/optimizer.pt")
    Path(f"{folder}/trainer_state.json").write_text(json.dumps({"epoch": 0.5, "global_step": 40}))
    return folder


def trainer_bin(model: Net, state: Any) -> str:
    Path("checkpoint-40").mkdir()
    torch.save(model.state_dict(), "checkpoint-40/pytorch_model.bin")
    return trainer_state("checkpoint-40", state)


def trainer_shards(model: Net, state: Any) -> str:
    Path("checkpoint-40").mkdir()
    places = {}
    for i, name in enumerate(model.state_dict()):
        places[name] = f"pytorch_model-0000{i % 2 + 1}-of-00002.bin"
    for part in set(places.values()):
        torch.save(
            {n: v for n, v in model.state_dict().items() if places[n] == part}, f"checkpoint-40/{part}"
        )
    index = {"metadata": {}, "weight_map": places}
    Path("checkpoint-40/pytorch_model.bin.index.json").write_text(json.dumps(index))
    return trainer_state("checkpoint-40", state)


def safe_file(model: Net, state: Any) -> str:
    pytest.importorskip("safetensors.torch").save_file(model.state_dict(), "w.safetensors")
    return "w.safetensors"


def safe_folder(model: Net, state: Any) -> str:
    safetensors = pytest.importorskip("safetensors.torch")
    Path("checkpoint-40").mkdir()
    safetensors.save_file(model.state_dict(), "checkpoint-40/model.safetensors")
    torch.save({"a": 1}, "checkpoint-40/pytorch_model.bin")  # an older one, which is not looked at
    return trainer_state("checkpoint-40", state)


def safe_shards(model: Net, state: Any) -> str:
    safetensors = pytest.importorskip("safetensors.torch")
    Path("checkpoint-40").mkdir()
    places = {name: f"{name}.safetensors" for name in model.state_dict()}
    for name, value in model.state_dict().items():
        safetensors.save_file({name: value}, f"checkpoint-40/{places[name]}")
    Path("checkpoint-40/model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return trainer_state("checkpoint-40", state)


WEIGHTS_ALONE = [plain, legacy, safe_file]
WITH_STATE = [script, nanogpt, lightning, trainer_bin, trainer_shards, safe_folder, safe_shards]


@pytest.mark.parametrize("save", [*WEIGHTS_ALONE, *WITH_STATE])
def test_every_format_holds_the_same(save: Any, saved: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = saved
    path = Path(save(model, optimizer.state_dict()))
    found, other = read_checkpoint(path), Net(seed=9)
    load_weights(other, found)
    assert holds(other, model.state_dict())
    fresh = torch.optim.AdamW(other.parameters(), lr=0.5)
    if save in WEIGHTS_ALONE:
        assert (found.step, found.optimizer_state) == (None, None)
        return
    assert found.step == 40
    assert load_optimizer_state(fresh, list(other.parameters()), found.optimizer_state) is None
    before, after = (preconditioner(o, o.param_groups[0]["params"]) for o in (optimizer, fresh))
    assert before is not None
    assert after is not None
    assert all(torch.equal(one, same) for one, same in zip(before, after, strict=True))
    assert fresh.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("content", "step"), [
    ({"step": 7}, 7), ({"step": 7.0}, 7), ({"iter_num": 7, "step": None}, 7), ({"global_step": torch.tensor([7])}, 7),
    ({"global_step": 8, "step": 7}, 8), ({"epoch": 7}, None), ({"step": True}, None), ({"step": -1}, None),
    ({"step": float("nan")}, None), ({"step": "7"}, None), ({"step": torch.zeros(2)}, None), ({"step": 1 << 80}, None),
    ({"optimizer": "adamw", "step": 0}, 0),
])  # fmt: skip
def test_a_counter_is_a_number_of_steps(tmp_path: Path, content: Any, step: int | None) -> None:
    torch.save({"model": Net().state_dict(), **content}, tmp_path / "c.pt")
    found = read_checkpoint(tmp_path / "c.pt")
    assert (found.step, found.optimizer_state) == (step, None)


# --- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "a.net._orig_mod."],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_prefix_that_all_names_share_is_no_part_of_them(prefix: str, compiled: bool) -> None:
    model, other = Net(), Net(seed=9)
    target = torch.compile(other) if compiled else other
    assert isinstance(target, nn.Module)
    load_weights(target, of(prefixed(prefix, model.state_dict())))
    assert holds(other, model.state_dict())


def test_a_compiled_part_has_the_names_of_a_plain_one() -> None:
    model, other = Net(), Net(seed=9)
    other.first = torch.compile(other.first)  # type: ignore[assignment]
    load_weights(other, of(model.state_dict()))
    assert torch.equal(other.last.weight, model.last.weight)
    assert holds(other.first._orig_mod, model.first.state_dict())  # type: ignore[arg-type]


def test_a_prefix_of_the_models_own_stays() -> None:
    """All of its names share one too."""
    model, other = (nn.Sequential(nn.Sequential(Net(seed=seed))) for seed in (1, 2))
    load_weights(other, of(model.state_dict()))
    assert holds(other, model.state_dict())
    with pytest.raises(RunError, match=r"missing from it: 0\.0\.first"):
        load_weights(other, of(model[0].state_dict()))


def test_what_is_tied_may_be_left_out(tmp_path: Path) -> None:
    model, other = Net(tied=True), Net(tied=True, seed=9)
    whole = model.state_dict()
    for left_out in ("back.weight", "last.weight"):
        load_weights(other, of({name: value for name, value in whole.items() if name != left_out}))
        assert holds(other, whole)
        assert other.back.weight is other.last.weight
    with pytest.raises(RunError, match=r"missing from it: last\.bias\)"):
        fitting_weights(other, of({n: v for n, v in whole.items() if n not in ("back.weight", "last.bias")}))
    untied = {name: value for name, value in Net().state_dict().items() if name != "last.weight"}
    with pytest.raises(RunError, match=r"missing from it: last\.weight\)"):
        fitting_weights(Net(), of(untied))


def test_the_misfit_of_the_nearest_names_is_told() -> None:
    weights = prefixed("net.", Net().state_dict())
    weights.pop("net.last.bias")
    with pytest.raises(
        RunError, match=r"w\.pt does not match the model \(missing from it: last\.bias\)\. Give"
    ):
        load_weights(Net(), of(weights))


def test_what_transformers_saves(transformers: Any, tmp_path: Path) -> None:
    """GPT-2, whose last layer is tied to the first and left out of the file, whole and in parts."""
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    for options in ({}, {"max_shard_size": "4KB"}):
        folder = tmp_path / str(len(options))
        model.save_pretrained(folder, **options)
        found, other = read_checkpoint(folder), transformers.GPT2LMHeadModel(config)
        assert "lm_head.weight" not in found.weights
        load_weights(other, found)
        assert holds(other, model.state_dict())
    assert len(list((tmp_path / "1").glob("*.safetensors"))) > 1


# --- the optimizer's state ----------------------------------------------------------------------------

KINDS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {"amsgrad": True}),
    (torch.optim.RMSprop, {"momentum": 0.9}),
    (torch.optim.Adagrad, {}),
    (torch.optim.SGD, {"momentum": 0.9}),
]


@pytest.mark.parametrize("groups", [lambda model: list(model.parameters()), decay_groups])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_state_goes_on_as_where_it_was_saved(kind: Any, options: dict[str, Any], groups: Any) -> None:
    """Same P, and the same next step, bit for bit."""
    model, other = Net(), Net()
    saved = trained(model, kind(groups(model), lr=0.01, **options))
    for group in saved.param_groups:
        group["weight_decay"] = 0.0
    other.load_state_dict(model.state_dict())
    fresh = kind(other.parameters(), lr=0.01, **{**options, "weight_decay": 0.0})
    state = torch.load(_saved(saved.state_dict()), weights_only=True)
    assert load_optimizer_state(fresh, list(other.parameters()), state) is None
    for one, same in zip(
        preconditioner(saved, list(model.parameters())) or [],
        preconditioner(fresh, list(other.parameters())) or [],
        strict=True,
    ):
        assert torch.equal(one, same)
    for optimizer, of_it in ((saved, model), (fresh, other)):
        trained(of_it, optimizer, steps=1)
    assert holds(other, model.state_dict())


def _saved(content: Any) -> Any:
    import io

    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


def test_a_state_in_half_precision_becomes_float32(saved: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = saved
    state = optimizer.state_dict()
    entries = {
        number: {key: value if key == "step" else value.bfloat16() for key, value in entry.items()}
        for number, entry in state["state"].items()
    }
    entries[0]["step"] = 4  # as before torch 1.12
    fresh = torch.optim.AdamW(model.parameters(), lr=1e-3)
    assert load_optimizer_state(fresh, list(model.parameters()), {**state, "state": entries}) is None
    kept = fresh.state[model.first.weight]
    assert kept["exp_avg_sq"].dtype == torch.float32
    assert torch.equal(
        kept["exp_avg_sq"], optimizer.state[model.first.weight]["exp_avg_sq"].bfloat16().float()
    )
    assert float(kept["step"]) == 4
    trained(model, fresh, steps=1)


@pytest.mark.parametrize(("change", "why"), [
    (lambda s: "adamw", "it is not the state_dict of one torch optimizer"),
    (lambda s: {**s, "param_groups": 3}, "it is not the state_dict of one torch optimizer"),
    (lambda s: {**s, "state": {0: 3}}, "it is not the state_dict of one torch optimizer"),
    (lambda s: {**s, "param_groups": [{"params": [0, 1]}]}, "it is of 2 parameters and the model trains 6"),
    (lambda s: {**s, "state": {0: {"momentum_buffer": torch.zeros(5, 3)}}},
     "AdamW keeps exp_avg, exp_avg_sq, step of each parameter, and it has momentum_buffer"),
    (lambda s: {**s, "state": {0: {**s["state"][0], "mu_product": torch.ones(1)}}},
     "AdamW keeps exp_avg, exp_avg_sq, step of each parameter, and it has exp_avg, exp_avg_sq, mu_product, step"),
    (lambda s: {**s, "state": dict(enumerate(reversed(s["state"].values())))}, "neither in the model's order nor with"),
    (lambda s: {**s, "state": {0: {**s["state"][0], "step": torch.ones(2)}}}, "neither in the model's order nor with"),
])  # fmt: skip
def test_a_state_that_does_not_fit_changes_nothing(
    saved: tuple[Net, torch.optim.Optimizer], change: Any, why: str
) -> None:
    model, optimizer = saved
    fresh = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = load_optimizer_state(fresh, list(model.parameters()), change(optimizer.state_dict()))
    assert found is not None
    assert why in found
    assert not fresh.state


def test_amsgrad_needs_its_own_maximum(saved: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = saved
    fresh = torch.optim.AdamW(model.parameters(), lr=1e-3, amsgrad=True)
    why = load_optimizer_state(fresh, list(model.parameters()), optimizer.state_dict())
    assert why is not None
    assert why.startswith("AdamW keeps exp_avg, exp_avg_sq, max_exp_avg_sq, step")


# --- through the program ------------------------------------------------------------------------------


def codes(result: str = ".bnoise/c.probe.json") -> set[str]:
    return {doubt["code"] for doubt in json.loads(Path(result).read_text())["doubts"]}


def test_adamw_is_probed_where_a_checkpoint_ends(
    bnoise: Call, user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    """Without a step of training; without the optimizer's state that is impossible."""
    nanogpt(saved[0], saved[1].state_dict())
    code, out, err = bnoise("probe", "c.yaml", "--set", "checkpoint=ckpt.pt")
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
    assert expected is not None
    assert session.task.preconditioner is not None
    assert all(torch.equal(p, q) for p, q in zip(session.task.preconditioner, expected, strict=True))


def test_a_state_that_cannot_be_used_is_a_doubt(
    bnoise: Call, user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    model = saved[0]
    script(model, trained(model, torch.optim.RMSprop(model.parameters(), lr=1e-4)).state_dict())
    call = ["probe", "c.yaml", "--set", "checkpoint=ckpt.tar"]
    code, out, err = bnoise(*call, "--set", "probe.warmup_steps=2")
    assert code in (0, 3), err
    words = " ".join(out.split())
    assert "that of ckpt.tar was not used: AdamW keeps exp_avg, exp_avg_sq, step of each parameter" in words
    assert "At step 42 of training" in words
    assert "optimizer_state" in codes()
    code, _, err = bnoise(*call)
    assert code == 2
    assert "there is none yet" in err
    assert "The checkpoint's optimizer state: that of ckpt.tar was not used" in err


def save_run(model: Net, optimizer: torch.optim.Optimizer, names: dict[str, int | None]) -> None:
    """Checkpoints of one run, some with a counter."""
    for name, step in names.items():
        trained(model, optimizer, steps=1)
        counted = {} if step is None else {"step": step}
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **counted}, name)


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
    settings = ["probe.warmup_steps=2", "probe.horizon=off"]  # a horizon leaves no P behind

    def ends(checkpoint: str) -> tuple[dict[str, Tensor], list[Tensor]]:
        session = Session(load_spec(user, [f"checkpoint={checkpoint}", *settings]), CPU)
        session.run(lambda _: None)
        assert session.task.preconditioner is not None
        return session.task.model.state_dict(), session.task.preconditioner

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


def test_places_and_the_steps_between_them() -> None:
    one = places_to_probe(Probe(at_steps=[0, 5, 9]), [(Path("a.pt"), 100)])
    assert one[0] == Place(checkpoint=Path("a.pt"), warmup_steps=0, step=100)
    assert one[2] == Place(checkpoint=None, warmup_steps=9, step=109)
    assert training_steps(one) == 9
    assert [place.step for place in places_to_probe(Probe(warmup_steps=7), [])] == [7]
    assert [place.step for place in places_to_probe(Probe(warmup_steps=7), [(Path("v2.pt"), None)])] == [7]
    several = places_to_probe(Probe(warmup_steps=7), [(Path("checkpoint-500"), None), (Path("b1.pt"), 20)])
    assert [place.step for place in several] == [27, 507]
    assert training_steps(several) == 14


def test_a_sweep_starts_from_one(bnoise: Call, user: Path, saved: tuple[Net, torch.optim.Optimizer]) -> None:
    save_run(*saved, {"a.pt": 1, "b.pt": 2})
    code, _, err = bnoise("sweep", "c.yaml", "--set", "checkpoint=[a.pt, b.pt]")
    assert code == 2
    assert "a sweep needs one checkpoint to start from; found 2" in err
    assert "--set checkpoint=b.pt" in err
    code, _, err = bnoise("sweep", "c.yaml", "--dry-run", "--set", "checkpoint=b.pt")
    assert code == 0, err


# --- identity -----------------------------------------------------------------------------------------


def test_the_hash_of_weights_is_of_every_file_of_them(
    user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    model, state = saved[0], saved[1].state_dict()
    plain(model, state)
    folder = trainer_shards(model, state)

    def found(checkpoint: str) -> str | None:
        return weights_hash(load_spec(user, [f"checkpoint={checkpoint}"], at_hand=False))

    assert found("w.pt") == sampled_hash(Path("w.pt"))
    assert found("absent.pt") is None
    assert found("[w.pt, absent.pt]") is None
    assert found("") is None
    for file in ("pytorch_model-00002-of-00002.bin", "optimizer.pt", "pytorch_model.bin.index.json"):
        before = [found(name) for name in (folder, f"[w.pt, {folder}]")]
        assert len({*before, None}) == 3
        whole = Path(folder, file).read_bytes()
        Path(folder, file).write_bytes(
            whole.replace(b"}", b" }", 1) if file.endswith("json") else whole + b"0"
        )
        assert not {*before} & {found(name) for name in (folder, f"[w.pt, {folder}]")}
    Path(folder, "pytorch_model-00001-of-00002.bin").unlink()
    assert found(folder) is None
    shutil.rmtree(folder)
    assert found(folder) is None


def test_one_checkpoint_has_the_hash_it_had(user: Path) -> None:
    """Stored results of earlier versions stay theirs."""
    spec = load_spec(user, ["checkpoint=w.pt", "model={_target_: torch.nn.Identity}",
                            "dataset={_target_: torch.nn.Identity}"], at_hand=False)  # fmt: skip
    assert PROBE.hash(spec) == "daf6578be81208c68f08dbe4789c871d1ef40b1e4f05450350f66f8d7dbf1d90"


# --- mistakes -----------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self) -> Any:
        return exec, ("open('ran', 'w')",)


@pytest.mark.parametrize("place", ["w.pt", "folder/pytorch_model.bin", "whole/optimizer.pt"])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    bnoise: Call, user: Path, saved: tuple[Net, torch.optim.Optimizer], place: str
) -> None:
    for folder in ("folder", "whole"):
        Path(folder).mkdir()
    torch.save(saved[0].state_dict(), "whole/pytorch_model.bin")
    for save in (lambda c: torch.save(c, place), lambda c: Path(place).write_bytes(pickle.dumps(c))):
        save({"model": saved[0].state_dict(), "extra": Malicious()})
        name = place if place == "w.pt" else Path(place).parent
        code, _, err = bnoise("probe", "c.yaml", "--set", f"checkpoint={name}")
        assert code == 4
        assert f"{place} holds more than weights and plain values, and bnoise runs no code" in err
        assert not Path("ran").exists()
    torch.save({"extra": Malicious()}, place)
    with pytest.raises(RunError, match=r"It asks for exec\."):
        read_checkpoint(Path(name))


def bad_index(content: str) -> Iterator[str]:
    Path("f").mkdir()
    Path("f/model.safetensors.index.json").write_text(content)
    yield "f"


def bad_trainer(content: str) -> Iterator[str]:
    Path("f").mkdir()
    torch.save(Net().state_dict(), "f/pytorch_model.bin")
    Path("f/trainer_state.json").write_text(content)
    yield "f"


def bad_file(name: str, content: Any) -> Iterator[str]:
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    else:
        torch.save(content, name)
    yield name


@pytest.mark.parametrize(("made", "words"), [
    (lambda: bad_file("w.pt", {"epoch": 3}), "must hold a state dict, alone or under one of model, state_dict"),
    (lambda: bad_file("w.pt", [torch.ones(1)]), "must hold a state dict"),
    (lambda: bad_file("w.pt", {"model": {"a": 3}}), "must hold a state dict"),
    (lambda: bad_file("w.pt", b""), "cannot be read"),
    (lambda: bad_file("w.pt", b"PK\3\4 torn"), "cannot be read"),
    (lambda: bad_index("{"), "must be an index of weights as save_pretrained writes it (Expecting"),
    (lambda: bad_index("[]"), "(it has no weight_map). Save the model again"),
    (lambda: bad_index('{"weight_map": {"a": "../b"}}'), "(it names ../b, which is not in its folder)"),
    (lambda: bad_index('{"weight_map": {"a": "b", "c": "d"}}'), "over 2 files; not there: b, d. Copy the whole folder"),
    (lambda: bad_trainer("{"), "f/trainer_state.json must be JSON with global_step"),
    (lambda: iter(["gone"]), "gone must be a file of weights, or a folder with one of model.safetensors, "),
])  # fmt: skip
def test_what_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    [name] = made()
    with pytest.raises(RunError) as found:
        read_checkpoint(Path(name))
    assert words in str(found.value)
    assert str(found.value).startswith("the checkpoint")


def test_safetensors_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"torn")
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, "safetensors.torch", None)
        with pytest.raises(CallError, match="pip install safetensors"):
            read_checkpoint(path)
    pytest.importorskip("safetensors.torch")
    with pytest.raises(RunError, match="not a readable safetensors file"):
        read_checkpoint(path)


@pytest.mark.parametrize(("starts", "words"), [
    ([("a.pt", 1), ("b.pt", None)], "several checkpoints need the step of each; b.pt has no global_step, step, "
     "iter_num or iteration in it, and no number in its name. Name it by its step, as in step_1000.pt"),
    ([("a.pt", 1), ("b-1.pt", None)], "several checkpoints need steps that differ; a.pt and b-1.pt are both at step 1"),
])  # fmt: skip
def test_a_trajectory_needs_steps(starts: Any, words: str) -> None:
    with pytest.raises(RunError) as found:
        places_to_probe(Probe(warmup_steps=10), [(Path(name), step) for name, step in starts])
    assert words in str(found.value)


@pytest.mark.parametrize(("lines", "place", "words"), [
    ("checkpoint: none.pt", "8:13", "found `checkpoint: none.pt`; expected a file of weights at {here}/none.pt, or a"),
    ("checkpoint: empty", "8:13", "found `checkpoint: empty`, a folder without weights; expected one of model"
     ".safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json in {here}/empty"),
    ("checkpoint:\n- w.pt\n- none.pt", "10:3", "found `checkpoint: none.pt`; expected a file of weights at"),
    ("checkpoint: [w.pt]", "8:13", "expected text or two or more distinct checkpoints of one run"),
    ("checkpoint: [w.pt, w.pt]", "8:13", "two or more distinct checkpoints"),
    ("checkpoint: 3", "8:13", "found `checkpoint: 3`; expected text or a list"),
    ("checkpoint: [w.pt, 3]", "8:20", "found `checkpoint.1: 3`; expected text"),
])  # fmt: skip
def test_a_config_names_checkpoints_that_are_there(
    user: Path, saved: tuple[Net, torch.optim.Optimizer], lines: str, place: str, words: str
) -> None:
    plain(*saved)
    Path("empty").mkdir()
    user.write_text(CONFIG + lines + "\n")
    with pytest.raises(ConfigError) as found:
        load_spec(user)
    [problem] = found.value.problems
    assert problem.place == f"c.yaml:{place}"
    assert words.format(here=Path.cwd()) in str(problem)


def test_several_checkpoints_are_the_points(user: Path, saved: tuple[Net, torch.optim.Optimizer]) -> None:
    plain(*saved)
    legacy(*saved)
    user.write_text(CONFIG.replace("max_examples: 1024", "max_examples: 500") + "checkpoint: [w.pt, w.pth]\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:7:40: found `probe\.max_examples: 500` for 2 checkpoints; "
                       r"expected max_examples of at least 512"):  # fmt: skip
        load_spec(user)
    user.write_text(
        CONFIG.replace("max_examples", "at_steps: [3], max_examples") + "checkpoint: [w.pt, w.pth]\n"
    )
    with pytest.raises(ConfigError, match=r"c\.yaml:7:36: found both `probe\.at_steps` and 2 checkpoints; "
                       r"expected one of them"):  # fmt: skip
        load_spec(user)


def test_a_checkpoint_of_another_model_is_found_out_before_the_first_probe(
    user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    save_run(*saved, {"a.pt": 1})
    torch.save({"model": nn.Linear(2, 2).state_dict(), "step": 2}, "b.pt")
    with pytest.raises(RunError, match=r"b\.pt does not match the model"):
        Session(load_spec(user, ["checkpoint=[a.pt, b.pt]"]), CPU)
