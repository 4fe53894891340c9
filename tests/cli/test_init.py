"""`bnoise init`: what it writes works as it stands, and the JSON Schema keeps in step with the form."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bnoise_cli.errors import ConfigError
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.schema import Config, Section, json_schema
from bnoise_cli.spec.template import example_names
from bnoise_cli.spec.user_files import user_module
from tests.cases import QUADRATIC_CONFIG, ROOT, Call, Write

USER = """\
import torch

class Net(torch.nn.Module):
    def __init__(self, width: int, *rest, depth: int = 2, norm=torch.nn.LayerNorm, rates=(0.1, 1e-5), name="on",
                 start=None, **more):
        super().__init__()
        assert (depth, rates, name) == (2, [0.1, 1e-05], "on")
        self.out = torch.nn.Linear(3, width)

    def forward(self, x):
        return self.out(x)

def data(n=300):
    g = torch.Generator().manual_seed(0)
    return torch.utils.data.TensorDataset(torch.randn(n, 3, generator=g), torch.randint(2, (n,), generator=g))

def objective(model, batch, power=1.0):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1]) * power
"""


@pytest.fixture
def user(write: Write) -> None:
    sys.modules.pop(user_module(Path("train.py")), None)
    write("train.py", USER)


def test_without_options_it_writes_a_config_that_works(bnoise: Call, write: Write) -> None:
    code, out, err = bnoise("init")
    assert (code, out) == (0, "")
    assert "bnoise.yaml is written." in err
    assert "`bnoise probe --dry-run`" in err
    assert bnoise("probe", "--dry-run", "--quiet")[0] == 0


@pytest.mark.parametrize("name", example_names())
def test_every_example_is_written_as_it_is(bnoise: Call, write: Write, name: str) -> None:
    assert bnoise("init", "--example", name, "--out", "new/c.yaml")[0] == 0
    assert Path("new/c.yaml").read_text() == (ROOT / f"configs/{name}.yaml").read_text()


def test_an_example_brings_its_script(bnoise: Call, write: Write) -> None:
    code, _, said = bnoise("init", "--example", "own_script", "--out", "new/c.yaml")
    assert code == 0
    assert "new/c.yaml and new/own_script.py are written" in said
    assert bnoise("probe", "new/c.yaml", "--dry-run", "--quiet")[0] == 0
    code, _, said = bnoise("init", "--example", "own_script", "--out", "new/d.yaml")
    assert code == 2
    assert "new/own_script.py is there already" in " ".join(said.split())
    assert not Path("new/d.yaml").exists()


def test_targets_come_with_their_arguments(bnoise: Call, user: None) -> None:
    code, _, err = bnoise("init", "--model", "train.py:Net", "--dataset", "train.py:data",
                          "--objective", "train.py:objective")  # fmt: skip
    assert code == 0
    assert "missing a required argument: 'width'" in err
    assert "Fill that in. Set `optimizer` and `training.batch_size`" in err
    text = Path("bnoise.yaml").read_text()
    data = yaml.safe_load(text)
    assert data["model"] == {"_target_": "train.py:Net", "depth": 2, "rates": [0.1, 1e-05], "name": "on"}
    assert data["dataset"] == {"_target_": "train.py:data", "n": 300}
    assert data["objective"] == {"_target_": "train.py:objective", "power": 1.0}
    assert data["optimizer"]["lr"] == 0.001
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "# width: # needed: int" in lines
    assert "# norm: # LayerNorm unless given" in lines
    assert "# start: # None unless given" in lines
    for name in ("rest", "more", "params", "batch"):
        assert f"# {name}:" not in text
    Path("bnoise.yaml").write_text(text.replace("  # width:", "  width: 2 #"))
    code, _, err = bnoise(
        "probe", "--quiet", "--set", "probe.max_examples=1000", "--set", "probe.warmup_steps=2"
    )
    assert code in (0, 3), err


def test_transformers_style_needs_no_loss(bnoise: Call, user: None) -> None:
    code, _, _ = bnoise("init", "--model", "train.py:Net", "--dataset", "train.py:data",
                        "--optimizer", "torch.optim.AdamW", "--out", "c.yaml")  # fmt: skip
    assert code == 0
    assert "the loss is model(**batch).loss" in Path("c.yaml").read_text()
    assert yaml.safe_load(Path("c.yaml").read_text())["optimizer"]["betas"] == [0.9, 0.999]


@pytest.mark.parametrize(("arguments", "words"), [
    (["--example", "digts"], ["did you mean `digits`?"]),
    (["--example", "digits", "--model", "train.py:Net"], ["--example is a whole config", "--model"]),
    (["--model", "train.py:Net"], ["--dataset is missing"]),
    (["--loss", "torch.nn.MSELoss"], ["--model and --dataset is missing"]),
    (["--model", "train.py:Nett", "--dataset", "trian.py:data"],
     ["--model: found `train.py:Nett`", "did you mean `Net`?", "`trian.py:data`; expected a Python file"]),
    (["--model", "train.py:Net", "--dataset", "train.py:data", "--loss", "a.b", "--objective", "c.d"],
     ["exclude each other"]),
    (["--out", "train.py"], ["train.py is there already"]),
    (["--out", "train.py/c.yaml"], ["train.py/c.yaml cannot be written"]),
])  # fmt: skip
def test_each_mistake_is_one_message(
    bnoise: Call, user: None, arguments: list[str], words: list[str]
) -> None:
    code, out, err = bnoise("init", *arguments)
    assert (code, out) == (2, "")
    for word in words:
        assert word in err
    assert "Traceback" not in err
    assert Path("train.py").read_text() == USER


# --- the schema ---------------------------------------------------------------------------------------


def is_valid(data: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(json_schema()).is_valid(data))


def test_the_schema_is_printed_alone(bnoise: Call) -> None:
    code, out, err = bnoise("init", "--schema")
    assert (code, err) == (0, "")
    jsonschema.Draft202012Validator.check_schema(json.loads(out))
    assert json.loads(out) == json_schema()


@pytest.mark.parametrize("name", example_names())
def test_the_schema_takes_every_example(name: str) -> None:
    text = (ROOT / f"configs/{name}.yaml").read_text()
    assert is_valid(yaml.safe_load(re.sub("([0-9])e-", r"\1.0e-", text)))


@pytest.mark.parametrize("override", [
    "unit=tokens", "unit=words", "training.tokens_per_example=8", "training.tokens_per_example=0",
    "training={batch_size: 0.5M tokens, tokens_per_example: 8}",
    "training={batch_size: 5x tokens, tokens_per_example: 8}",
    "training={examples: 1.5B tokens, tokens_per_example: 8}", "training.batch_size=[8 tokens]",
    "probe.budget=2m", "probe.budget=5", "probe.batch_sizes=[1, 2, 4]", "probe.at_steps=[0, 5]", "sweep.goal=0.5",
    "sweep.goal=auto", "sweep.branch={examples: 5}", "checkpoint=null",
    "check.min_time_efficiency=0.5", "model={class_path: bnoise_cli.examples.models.MLP, init_args: {widths: [1, 2]}}",
    "batch=3", "training.batchsize=3", "training.batch_size=0", "training.batch_size=big", "probe.precision=2",
    "probe.budget=[1]", "model=3", "model={a: 3}", "version=2", "sweep.branch={}", "sweep.goal=near",
    "check.min_time_efficiency=1.5", "probe.at_steps=[]", "optimizer=null",
])  # fmt: skip
def test_the_schema_and_the_form_agree(write: Write, override: str) -> None:
    path = write("c.yaml", QUADRATIC_CONFIG)
    data = load_spec(path).source.data
    key, _, value = override.partition("=")
    *outer, last = key.split(".")
    inner = data
    for part in outer:
        inner = inner.setdefault(part, {})
    inner[last] = yaml.safe_load(value)
    try:
        load_spec(path, [override], at_hand=False)
        good = True
    except ConfigError:
        good = False
    assert is_valid(data) == good


def test_every_key_is_described() -> None:
    def sections(section: type[Section]) -> None:
        for name, field in section.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, Section):
                assert inner.__doc__
                sections(inner)
            elif name != "version":
                assert field.description, f"{section.__name__}.{name}"

    sections(Config)
