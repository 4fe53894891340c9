"""Each mistake of a call or a config is one message with its exit code."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from bnoise_cli.spec.user_files import user_module
from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.cli.calls import USER


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["training.price_per_device_hour=2"], "a price without a length of the run"),
        (["advice.deadline=2h"], "a deadline without a length of the run"),
        (["training.steps=10", "training.examples=10"], "both `training.steps` and `training.examples`"),
        (["training.world_size=3"], "a `training.batch_size` that divides among them, such as 30 or 33"),
        (["training.world_size=64"], "such as 64"),
        (["advice.deadline=soon"], "a time of at least 1s"),
        (["advice.deadlin=2h"], "did you mean `deadline`?"),
        (["advice.max_compute_overhead=0"], "a number greater than 0"),
        (["training.steps=0"], "a number greater than 0"),
    ],
)
def test_a_plan_that_contradicts_itself_is_found_before_measuring(
    bnoise: Call, write: Write, settings: list[str], words: str
) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    code, out, err = bnoise("probe", config, *(part for s in settings for part in ("--set", s)))
    assert (code, out) == (2, "")
    assert words in err
    assert "--set " in err, "the place of the mistake"


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("probe quad.yaml --emit kerras", 2, "nanogpt"),
        ("probe quad.yaml --emit hf --json", 2, "choose one"),
        ("probe quad.yaml --log-to tensorbord", 2, "tensorboard"),
        ("probe quad.yaml --page p.doc", 2, "ending in .md, .html"),
        ("probe quad.yaml --page p.md --plot p.md", 2, "ending in .png"),
        ("report", 2, "RESULT"),
        ("report none.json", 2, "there is no file none.json"),
        ("report quad.yaml", 2, "a stored result of quad.yaml is needed"),
        ("report old.json", 2, "schema_version 0; this bnoise reads 1"),
        ("report old.json --set a.b=1", 2, "Add --config FILE"),
        ("report .", 2, "cannot be read"),
        ("probe quad.yaml --out quad.yaml", 2, "would replace quad.yaml"),
        ("report old.json --page loop.md", 2, "cannot"),
        ("report page.md --page page.md", 2, "would replace page.md"),
    ],
)
def test_each_wrong_output_or_result_is_one_message(
    bnoise: Call, write: Write, call: str, code: int, words: str
) -> None:
    write("quad.yaml", QUADRATIC_CONFIG)
    write("old.json", '{"schema_version": 0, "kind": "probe"}')
    write("page.md", "# mine")
    Path("loop.md").symlink_to("loop.md")
    found, out, err = bnoise(*shlex.split(call))
    assert (found, out) == (code, "")
    assert words in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("frobnicate", 2, "frobnicate"),
        ("probe c.yaml --seed x", 2, "--seed"),
        ("probe c.yaml --set probe.budgt=3", 2, "did you mean `budget`?"),
        ("probe c.yaml --budget soon", 2, "a time of at least 1s"),
        ("probe c.yaml --plot p.jpg", 2, "ending in .png"),
        ("probe c.yaml --out user.py/r.json", 2, "cannot"),
        ("probe c.yaml --device abacus", 2, "'abacus' is none"),
        (
            "probe c.yaml --set optimizer._target_=torch.optim.Adamax --set probe.horizon=off",
            2,
            "SGD, Adam, AdamW",
        ),
        ("probe c.yaml --set optimizer.lr=-1", 2, "Invalid learning rate"),
        ("probe c.yaml --set checkpoint=none.pt", 2, "expected a file of weights"),
        ("probe c.yaml --set model._target_=user.py:no_model", 4, "must build a torch.nn.Module"),
        ("probe c.yaml --set model._target_=user.py:Frozen", 4, "none with requires_grad"),
        ("probe c.yaml --set dataset.n=0", 4, "it found 0"),
        ("probe c.yaml --set dataset.n=1", 4, "it found 1"),
        ("probe c.yaml --set dataset.m=1", 2, "user.py:data(n=200, flat=True)"),
        ("probe c.yaml --set dataset._target_=user.py:Ragged", 4, "into one batch failed"),
        ("probe c.yaml --set dataset._target_=user.py:Neither", 4, "a length and items"),
        ("probe c.yaml --set loss= --set objective._target_=user.py:vector", 4, "one number"),
        ("probe c.yaml --set loss= --set objective._target_=user.py:raising", 4, "my mistake"),
        ("probe c.yaml --set probe.seed=18446744073709551616", 2, "a number less than"),
        ("probe c.yaml --set probe.max_examples=300 --set probe.batch_sizes=[4,8,99]", 2, "at least 594"),
        (
            "probe c.yaml --set probe.max_examples= --set probe.batch_sizes=[4,8,9999999] --budget 2s",
            4,
            "smaller probe.batch_sizes",
        ),
        ("probe c.yaml --out /dev/null", 2, "a folder or a device"),
        ("probe c.yaml --out p.png --plot p.png", 2, "a file of its own"),
        ("probe c.yaml --device meta", 2, "'meta' is none"),
        ("probe c.yaml --set model._target_=user.py:leaving", 4, "SystemExit"),
        (
            "probe c.yaml --set 'model={class_path: torch.nn.Linear, init_args: [1, 2]}'",
            2,
            "a mapping of arg",
        ),
        ("probe c.yaml --set 'model={_target_: torch.nn.LazyLinear, out_features: 2}'", 4, "lazy"),
        ("probe c.yaml --set 'optimizer={_target_: torch.nn.Flatten}'", 2, "Optimizer"),
        ("probe c.yaml --set loss=", 4, "add `loss:` for examples (x, y)"),
        ("probe c.yaml --set loss= --set objective._target_=user.py:late_nan", 4, "is nan"),
    ],
)
def test_each_mistake_is_one_message_with_its_exit_code(
    bnoise: Call, user: Write, call: str, code: int, words: str
) -> None:
    found, out, err = bnoise(*shlex.split(call))
    assert found == code
    assert words.lower() in err.lower()
    assert "Traceback" not in err
    assert out == ""


def test_no_mean_gradient_is_exit_code_3(bnoise: Call, user: Write) -> None:
    """Labels that the inputs do not explain, trained to the optimum: nothing but noise is left."""
    code, out, _ = bnoise(
        "probe", "c.yaml", "--set", "dataset.n=5000", "--set", "probe.warmup_steps=0",
        "--set", "model._target_=user.py:Fitted", "--json",
    )  # fmt: skip
    assert code == 2  # no such name yet
    user("user.py", USER + FITTED)
    sys.modules.pop(user_module(Path("user.py")), None)
    code, out, _ = bnoise(
        "probe", "c.yaml", "--set", "dataset.n=5000", "--set", "probe.warmup_steps=0",
        "--set", "model._target_=user.py:Fitted", "--json",
    )  # fmt: skip
    data = json.loads(out)
    assert code == 3
    assert (data["noise_scale"]["value"], data["noise_scale"]["high"]) == (None, None)
    assert "unresolved" in [doubt["code"] for doubt in data["doubts"]]


FITTED = """
class Fitted(Net):
    def __init__(self):
        super().__init__()
        x, y = data(5000).tensors
        o = torch.optim.LBFGS(self.parameters(), max_iter=100, tolerance_grad=1e-9, line_search_fn='strong_wolfe')
        def closure():
            o.zero_grad()
            loss = nn.functional.cross_entropy(self(x), y)
            loss.backward()
            return loss
        o.step(closure)
        self.weight.grad = self.bias.grad = None
"""


def test_a_loss_without_a_bottom_cannot_tell(bnoise: Call, user: Write) -> None:
    code, out, err = bnoise(
        "probe", "c.yaml", "--json", "--set", "loss=", "--set", "objective._target_=user.py:negated"
    )
    assert code == 3, err
    assert json.loads(out)["noise_scale"]["value"] is None


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("probe nowhere.yaml", "nowhere.yaml"),
        ("check nowhere.yaml", "nowhere.yaml"),
        ("probe folder.yaml", "folder.yaml"),
        ("report nothing.json", "nothing.json"),
        ("report torn.json", "torn.json"),
        ("probe c.yaml --set model._target_=absent.py:Net", "absent.py"),
        ("probe c.yaml --set model._target_=user.py:Nett", "user.py"),
        ("probe c.yaml --set model._target_=broken.py:Net", "broken.py"),
        ("probe c.yaml --set checkpoint=none.pt", "none.pt"),
        ("probe c.yaml --set checkpoint=torn.safetensors", "torn.safetensors"),
        ("probe c.yaml --out folder.yaml", "folder.yaml"),
    ],
)
def test_a_message_names_a_file_once(bnoise: Call, user: None, call: str, name: str) -> None:
    Path("folder.yaml").mkdir()
    Path("torn.json").write_text("{")
    Path("torn.safetensors").write_bytes(b"torn")
    Path("broken.py").write_text("def Net(: pass")
    code, out, err = bnoise(*shlex.split(call))
    assert code in (2, 4)
    message = (err + out).removeprefix(f"bnoise: --set {shlex.split(call)[-1]}: ")  # the place of the mistake
    assert message.count(name) == 1
