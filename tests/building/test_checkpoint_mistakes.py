"""Checkpoints that cannot be read, or hold code."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.measurement.building.checkpoint import read_checkpoint
from bnoise_cli.measurement.probing.session import Session
from bnoise_cli.spec.load import load_spec
from tests.building.checkpoints import Net, save_run
from tests.cases import CPU, Call


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


def test_a_checkpoint_of_another_model_is_found_out_before_the_first_probe(
    user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    save_run(*saved, {"a.pt": 1})
    torch.save({"model": nn.Linear(2, 2).state_dict(), "step": 2}, "b.pt")
    with pytest.raises(RunError, match=r"b\.pt does not match the model"):
        Session(load_spec(user, ["checkpoint=[a.pt, b.pt]"]), CPU)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("complex", lambda: torch.ones(2, dtype=torch.complex64)),
        ("meta", lambda: torch.ones(2, device="meta")),
        ("sparse", lambda: torch.ones(2).to_sparse()),
        ("quantized", lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)),
        ("nested", lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_is_not_plain_is_refused(tmp_path: Path, kind: str, make: Callable[[], Any]) -> None:
    torch.save(
        {"model": {"weight": torch.ones(2)}, "optimizer": {"state": {0: {"step": make()}}}}, tmp_path / "w.pt"
    )
    refused = f"`optimizer.state.0.step` is a {kind} tensor"
    refused += "|_rebuild_nested_tensor" if kind == "nested" else ""  # torch 2.15 does not load it
    with pytest.raises(RunError, match=refused):
        read_checkpoint(tmp_path / "w.pt")
