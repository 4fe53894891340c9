"""Configs of OmegaConf and Hydra: `${...}` and `defaults:`, as those packages read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bnoise_cli.errors import ConfigError
from bnoise_cli.spec.load import load_spec
from tests.cases import QUADRATIC_CONFIG, Write

INTERPOLATED = """\
version: 1
model: {_target_: bnoise_cli.examples.models.MLP, widths: [64, "${training.batch_size}", 10]}
dataset: {_target_: a.b, size: "${.inner.most}", inner: {most: 7, up: "${..size}"}, name: "set-${dataset.size}-${unit}"}
loss: {_target_: torch.nn.CrossEntropyLoss}
optimizer: {_target_: torch.optim.SGD, lr: "${optimizer.weight_decay}", weight_decay: 0.25, parts: "${model.widths}"}
unit: examples
training: {batch_size: 32, world_size: "${training.batch_size}", steps: "${dataset.inner.most}"}
"""


def test_interpolations_are_what_omegaconf_makes_of_them(write: Write) -> None:
    spec = load_spec(write("c.yaml", INTERPOLATED), at_hand=False)
    assert spec.config.training.world_size == 32
    assert spec.config.optimizer == {
        "_target_": "torch.optim.SGD", "lr": 0.25, "weight_decay": 0.25, "parts": [64, 32, 10],
    }  # fmt: skip
    assert spec.config.dataset["name"] == "set-7-examples"
    omegaconf = pytest.importorskip("omegaconf")
    wanted = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.create(INTERPOLATED), resolve=True)
    assert spec.source.data == wanted


def test_an_override_changes_what_interpolations_stand_for(write: Write) -> None:
    spec = load_spec(write("c.yaml", INTERPOLATED), ["training.batch_size=8"], at_hand=False)
    assert spec.config.model["widths"] == [64, 8, 10]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${lr}", r"`\$\{lr\}`; expected a key that this config has"),
        ("${oc.env:HOME}", r"`\$\{oc.env:HOME\}`; expected one of a key of this config, or the value itself"),
        ("${optimizer.lr}", "which stands for itself"),
        ("${optimizer}", "which stands for itself"),
        ("a ${b", "expected one of a key"),
        ("${a.${b}}", "expected one of a key|a key that this config has"),
    ],
)
def test_an_interpolation_of_nothing_is_a_mistake_with_its_place(write: Write, value: str, said: str) -> None:
    data = yaml.safe_load(QUADRATIC_CONFIG)
    data["optimizer"]["lr"] = value
    with pytest.raises(ConfigError, match=said) as caught:
        load_spec(write("c.yaml", yaml.safe_dump(data, sort_keys=False)))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].place.startswith("c.yaml:")


def test_interpolations_that_grow_without_end_are_refused(write: Write) -> None:
    layers = [f"l{i}: {{a: '${{optimizer.l{i + 1}}}', b: '${{optimizer.l{i + 1}}}'}}" for i in range(60)]
    texts = [f"t{i}: '${{optimizer.t{i + 1}}}${{optimizer.t{i + 1}}}'" for i in range(60)]
    chain = [f"t{i}: '${{optimizer.t{i + 1}}}'" for i in range(60)]
    for lines, last in ((layers, "l60: 1"), (texts, "t60: abcdefgh"), (chain, "t60: 1")):
        text = QUADRATIC_CONFIG.replace(
            "  lr: 0.01\n", "  lr: 0.01\n" + "".join(f"  {x}\n" for x in [*lines, last])
        )
        with pytest.raises(ConfigError, match=r"more than 20,000 values|more than 50 deep"):
            load_spec(write("c.yaml", text))


def test_files_that_are_put_together_are_no_larger_than_one_config(write: Write) -> None:
    """However often a file is named, and whatever it holds."""
    deep = {"/".join("g" * i) + "/m.yaml": "defaults: [{g: m}]\n" for i in range(1, 70)}
    large = {f"g{i}/m.yaml": "x: " + "1" * 5000 + "\n" for i in range(30)}
    for entries, files, said in (
        (["m"] * 50, {"m.yaml": "k: " + "x" * 5000 + "\n"}, "more than 65,536 bytes in all files"),
        ([f"g{i}: m" for i in range(30)], large, "more than 65,536 bytes in all files"),
        (["m"] * 5000, {}, "5,000 entries; expected at most 100"),
        (["g: m"], deep, "more than 50 deep"),
        (["g/" * 60 + "g: m"], {"g/" * 61 + "m.yaml": "x: 1\n"}, "more than 50 deep"),
    ):
        for name, text in files.items():
            Path(name).parent.mkdir(exist_ok=True, parents=True)
            write(name, text)
        write("c.yaml", "defaults:\n" + "".join(f"  - {entry}\n" for entry in entries) + QUADRATIC_CONFIG)
        with pytest.raises(ConfigError, match=said):
            load_spec(Path("c.yaml"))


FILES = {
    "c.yaml": "defaults:\n  - base\n  - model: small\n  - optimizer: sgd\n  - nothing: null\n  - _self_\n"
    "training: {batch_size: 16}\noptimizer: {lr: 0.5}\n",
    "base.yaml": "version: 1\ntraining: {batch_size: 4, world_size: 2}\nprobe: {seed: 3}\n"
    "dataset: {_target_: a.b}\nloss: {_target_: torch.nn.MSELoss}\n",
    "model/small.yaml": "defaults: [common, _self_]\nwidths: [1, 2]\ntop: ${training.batch_size}\n",
    "model/common.yaml": "_target_: a.Net\nwidths: [9]\ndepth: 3\n",
    "optimizer/sgd.yaml": "_target_: torch.optim.SGD\nlr: 0.1\nmomentum: 0.9\n",
}


def written(write: Write, **changed: str) -> Path:
    for name, text in {**FILES, **changed}.items():
        Path(name).parent.mkdir(exist_ok=True)
        write(name, text)
    return Path("c.yaml")


def test_defaults_are_composed_as_hydra_does(write: Write) -> None:
    write("empty", "")
    for folder in ("model", "optimizer"):
        Path(folder).mkdir()
    spec = load_spec(written(write), at_hand=False)
    assert spec.config.model == {"_target_": "a.Net", "widths": [1, 2], "depth": 3, "top": 16}
    assert spec.config.optimizer == {"_target_": "torch.optim.SGD", "lr": 0.5, "momentum": 0.9}
    assert (spec.config.training.batch_size, spec.config.training.world_size) == (16, 2)
    assert load_spec(Path("c.yaml"), ["optimizer.lr=2"], at_hand=False).config.optimizer["lr"] == 2
    hydra = pytest.importorskip("hydra")
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(Path.cwd()), version_base="1.3"):
        wanted: Any = OmegaConf.to_container(hydra.compose("c"), resolve=True)
    assert spec.source.data == wanted


def test_without_self_the_config_comes_last(write: Write) -> None:
    write("empty", "")
    Path("model").mkdir()
    Path("optimizer").mkdir()
    path = written(write, **{"c.yaml": FILES["c.yaml"].replace("  - _self_\n", "")})
    assert load_spec(path, at_hand=False).config.optimizer["lr"] == 0.5
    path = written(
        write,
        **{
            "c.yaml": FILES["c.yaml"]
            .replace("  - _self_\n", "")
            .replace("  - base\n", "  - _self_\n  - base\n")
        },
    )
    assert load_spec(path, at_hand=False).config.optimizer["lr"] == 0.1


@pytest.mark.parametrize(
    ("name", "text", "place", "said"),
    [
        ("c.yaml", "defaults: [other]\n", "c.yaml:1:12", r"found `other`; expected a file at .*other\.yaml"),
        ("c.yaml", "defaults: [../base]\n", "c.yaml:1:12", "expected `- name` for name.yaml"),
        ("c.yaml", "defaults: [{override model: small}]\n", "c.yaml:1:12", "expected `- name` for name.yaml"),
        ("optimizer/sgd.yaml", "lr: 1\nlr: 2\n", "optimizer/sgd.yaml:2:1", "`lr` a second time"),
        ("base.yaml", "trainin: {}\n", "base.yaml:1:10", "unknown key `trainin`"),
        ("model/common.yaml", "defaults: [common]\n", "model/common.yaml:1:12", "more than 100 files"),
    ],
)
def test_mistakes_in_files_are_told_where_they_are(
    write: Write, name: str, text: str, place: str, said: str
) -> None:
    write("empty", "")
    Path("model").mkdir()
    Path("optimizer").mkdir()
    with pytest.raises(ConfigError, match=said) as caught:
        load_spec(written(write, **{name: text}), at_hand=False)
    assert any(place in problem.place for problem in caught.value.problems)
