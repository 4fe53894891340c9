"""The program as its users call it: exit codes, streams, files, and everything that can be wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bnoise_cli.spec.targets import user_module
from tests.cases import MARKING, QUADRATIC_CONFIG, ROOT, Call, Write, need_for
from tests.processes import wait_for
from tests.samples import plan

CONFIGS = [
    "digits", "digits_cnn", "gpt2", "nanogpt", "noisy_quadratic", "own_script", "resnet18", "stdlib_gpt",
    "stdlib_gpt_adamw",
]  # fmt: skip
# The first is swept at every merge, the others with the statistics.
SWEEPS = [
    "digits_cnn",
    pytest.param("digits", marks=pytest.mark.statistics),
    pytest.param("stdlib_gpt_adamw", marks=pytest.mark.statistics),
]


USER = """\
import torch
from torch import nn
from torch.utils.data import TensorDataset

class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

def data(n=200, flat=True):
    g = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, 3, generator=g), torch.randint(2, (n,), generator=g))

class Ragged:
    def __len__(self): return 9
    def __getitem__(self, i): return torch.zeros(i + 1), 0

class Neither:
    pass

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        for x, y in data(6000):
            yield x, y

def loader():
    return torch.utils.data.DataLoader(data(), batch_size=7, shuffle=True, collate_fn=my_collate)

def my_collate(examples):
    return [torch.stack([x for x, _ in examples]) + 100, torch.stack([y for _, y in examples])]

def plus_one(model, batch):
    assert batch[0].mean() > 50
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)

calls = 0
def late_nan(model, batch):
    global calls
    calls += 1
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    return loss * float('nan') if calls > 30 else loss

def vector(model, batch):
    return model(batch[0])

def raising(model, batch):
    raise KeyError('my mistake')

def no_model():
    return 3

def leaving():
    raise SystemExit(0)

def chatty(model, batch):
    print('hello')
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

def negated(model, batch):
    return -chatty(model, batch)
"""

USER_CONFIG = """\
version: 1
model: {_target_: user.py:Net}
dataset: {_target_: user.py:data}
loss: {_target_: torch.nn.CrossEntropyLoss}
optimizer: {_target_: torch.optim.SGD, lr: 0.1}
probe: {warmup_steps: 5, max_examples: 2000}
"""


@pytest.fixture
def user(write: Write) -> Write:
    sys.modules.pop(user_module(Path("user.py")), None)
    write("user.py", USER)
    write("c.yaml", USER_CONFIG)
    return write


def test_a_probe_prints_stores_and_draws(bnoise: Call, write: Write, tmp_path: Path) -> None:
    config = write("quad.yaml", QUADRATIC_CONFIG)
    code, out, err = bnoise("probe", str(config), "--plot", "p.svg")
    assert code == 0, err
    assert out.startswith("Verdict  ")
    assert "\nCritical batch size  " in out
    assert "Exact noise scale of this task: " in out
    assert "The result is in .bnoise/quad.probe.json. The picture is in p.svg." in err
    stored = json.loads((tmp_path / ".bnoise/quad.probe.json").read_text())
    exact = stored["noise_scale"]["exact"]
    assert stored["noise_scale"]["low"] * 0.8 < exact < stored["noise_scale"]["high"] * 1.25
    assert stored["critical_batch_size"]["basis"] == "probe"
    assert stored["config"]["probe"]["precision"] == 0.15
    assert (tmp_path / "p.svg").stat().st_size > 1000


def without_times(text: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text)
    del data["cost"]["seconds"], data["cost"]["warmup_seconds"], data["provenance"]["time"]
    for measured_in_time in ("throughput", "tradeoff", "recommendation"):
        assert data.pop(measured_in_time)
    del data["alternatives"]  # only if the step times are known well enough
    data["doubts"] = [doubt for doubt in data["doubts"] if doubt["about"] != "advice"]
    return data


def test_json_is_alone_on_stdout_and_repeats(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    code, first, err = bnoise("probe", config, "--json")
    assert (code, err) == (0, "")
    assert without_times(first) == without_times(bnoise("probe", config, "--json")[1])
    other = without_times(bnoise("probe", config, "--json", "--seed", "1")[1])
    assert other["noise_scale"] != without_times(first)["noise_scale"]
    assert other["provenance"]["seed"] == 1


def test_quiet_says_nothing_on_stderr(bnoise: Call, write: Write) -> None:
    code, out, err = bnoise(
        "probe", str(write("q.yaml", QUADRATIC_CONFIG)), "--quiet", "--out", "deep/r.json"
    )
    assert (code, err) == (0, "")
    assert Path("deep/r.json").exists()
    assert out


def test_the_default_config_is_bnoise_yaml(bnoise: Call, write: Write) -> None:
    code, _, err = bnoise("probe")
    assert code == 2
    assert "bnoise.yaml: found no such file; expected a config file at" in err
    write("bnoise.yaml", QUADRATIC_CONFIG)
    assert bnoise("probe", "--quiet")[0] == 0
    assert Path(".bnoise/bnoise.probe.json").exists()


def test_dry_run_measures_nothing(bnoise: Call, write: Write) -> None:
    code, out, _ = bnoise("probe", str(write("q.yaml", QUADRATIC_CONFIG)), "--dry-run")
    assert code == 0
    assert "everything builds, one batch ran" in out
    assert not Path(".bnoise/q.probe.json").exists()


def test_dry_run_counts_the_copy_of_an_adaptive_optimizer(bnoise: Call, write: Write) -> None:
    config = str(write("q.yaml", QUADRATIC_CONFIG))
    own = json.loads(bnoise("probe", config, "--dry-run", "--json")[1])
    adam = ["--set", "optimizer._target_=torch.optim.Adam", "--set", "probe.warmup_steps=2"]
    adaptive = json.loads(bnoise("probe", config, "--dry-run", "--json", *adam)[1])
    assert own["extra_bytes"] == 3 * 4 * own["parameters"]
    assert adaptive["extra_bytes"] == 4 * 4 * own["parameters"]


def test_several_points_make_a_trajectory(bnoise: Call, write: Write) -> None:
    config = str(write("q.yaml", QUADRATIC_CONFIG))
    code, out, _ = bnoise("probe", config, "--json", "--set", "probe.at_steps=[0, 30, 60]",
                          "--set", "probe.max_examples=9000")  # fmt: skip
    assert code == 0
    data = json.loads(out)
    assert [point["step"] for point in data["trajectory"]] == [0, 30, 60]
    assert data["critical_batch_size"]["basis"] == "trajectory"
    scales = [point["noise_scale"]["value"] for point in data["trajectory"]]
    assert min(scales) <= data["critical_batch_size"]["value"] <= max(scales)
    assert data["cost"]["gradient_examples"] <= 9000
    assert data["schedule"]["exchange_rate"] == pytest.approx(data["critical_batch_size"]["value"])
    for point in data["trajectory"]:
        geometric = math.sqrt(point["noise_scale"]["value"] * data["critical_batch_size"]["value"])
        assert point["batch_size"] == pytest.approx(geometric)
    code, out, _ = bnoise("report", ".bnoise/q.probe.json")
    assert code == 0
    assert "A schedule of these batch sizes would take" in out


def test_version_and_help(bnoise: Call) -> None:
    assert bnoise("--version")[:2] == (0, "bnoise 0.1.0\n")
    code, out, _ = bnoise("probe", "--help")
    assert code == 0
    for option in (
        "--set",
        "--device",
        "--budget",
        "--seed",
        "--out",
        "--plot",
        "--json",
        "--dry-run",
        "--quiet",
    ):
        assert option in out


# --- the advice and its outputs -----------------------------------------------------------------------


def test_a_probe_recommends_emits_and_writes_a_page(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    code, out, err = bnoise("probe", config, "--page", "p.html")
    assert code == 0, err
    assert "\nRecommended batch  " in out
    assert "The page is in p.html." in err
    stored = json.loads(Path(".bnoise/quad.probe.json").read_text())
    best = stored["recommendation"]
    product = best["micro_batch_size"] * best["accumulation_steps"] * best["world_size"]
    assert product == best["batch_size"]
    assert stored["throughput"]["seconds"] <= 0.2 * stored["cost"]["seconds"] + 0.05
    code, out, _ = bnoise("probe", config, "--emit", "deepspeed")
    assert code == 0
    lines = json.loads(out)
    assert (
        lines["train_batch_size"]
        == lines["train_micro_batch_size_per_gpu"] * lines["gradient_accumulation_steps"]
    )


def test_a_report_says_the_same_again(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    _, first, _ = bnoise("probe", config)
    stored = ".bnoise/quad.probe.json"
    before = Path(stored).read_bytes()
    code, again, err = bnoise("report", stored)
    assert (code, again, err) == (0, first, "")
    assert json.loads(bnoise("report", stored, "--json")[1]) == json.loads(before)
    assert bnoise("report", stored, "--plot", "p.png", "--page", "p.md")[0] == 0
    assert "![" in Path("p.md").read_text()
    assert bnoise("report", stored, stored)[0] == 0
    assert Path(stored).read_bytes() == before


def test_a_report_advises_for_another_plan_of_the_same_measurement(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    bnoise("probe", config, "--quiet")
    stored = ".bnoise/quad.probe.json"
    code, out, err = bnoise("report", stored, "--config", config, "--set", "training.world_size=2",
                            "--set", "training.batch_size=64", "--set", "training.steps=1000")  # fmt: skip
    assert code == 0, err
    assert "2 devices" in out
    assert "run" in out
    code, _, err = bnoise("report", stored, "--config", config, "--set", "training.steps=100000000",
                          "--set", "advice.deadline=1s")  # fmt: skip
    assert code == 2
    assert "bnoise: advice.deadline: no batch on 1 device ends within 1.0 s" in err
    code, out, err = bnoise("report", stored, "--config", config, "--set", "model.noise_scale=30")
    assert (code, out) == (3, "")
    assert "was measured for another config than quad.yaml" in err


def test_a_limit_that_cannot_be_met_is_found_after_measuring_and_loses_nothing(
    bnoise: Call, write: Write
) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    code, out, err = bnoise(
        "probe", config, "--set", "training.steps=1000000000", "--set", "advice.deadline=1s"
    )
    assert code == 2
    assert "Recommended batch" in out
    assert "Allow at least" in err
    assert Path(".bnoise/quad.probe.json").exists()


def test_an_output_that_cannot_be_made_is_said_and_is_a_failure(bnoise: Call, write: Write) -> None:
    empty = dataclasses.replace(plan(), points=())
    write("r.json", json.dumps(empty.to_json()))
    code, out, err = bnoise("report", "r.json", "--quiet", "--plot", "p.png", "--page", "p.md")
    assert code == 4
    assert "No picture: there is nothing to draw" in err
    assert "Critical batch size" in out
    assert "![" not in Path("p.md").read_text()


def test_texts_of_a_stored_result_cannot_steer_the_terminal(bnoise: Call, write: Write) -> None:
    evil = plan()
    evil = dataclasses.replace(
        evil, provenance=dataclasses.replace(evil.provenance, device="\x1b[31mred\x07")
    )
    write("r.json", json.dumps(evil.to_json()))
    code, out, _ = bnoise("report", "r.json")
    assert code == 0
    assert "\x1b" not in out
    assert "[31mred" in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_stderr_never_ends_as_a_failed_check(write: Write) -> None:
    write("r.json", json.dumps(plan().to_json()))
    for arguments, expected in ((["report", "r.json"], 0), (["report", "none.json"], 2)):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "bnoise_cli", *arguments],
                stdout=subprocess.DEVNULL,
                stderr=full,
                check=False,
            )
        assert done.returncode == expected


def test_advice_that_fails_keeps_what_was_measured(
    bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in what is made of a measurement must not cost it, nor the step times that come after it."""
    from bnoise_cli.advice import advise as module

    config, real = str(write("quad.yaml", QUADRATIC_CONFIG)), module.advise
    for timed in (False, True):

        def broken(result: Any, timed: bool = timed) -> Any:
            if timed == (result.throughput is not None):
                raise AssertionError("a mistake")
            return real(result)

        monkeypatch.setattr(module, "advise", broken)
        code, _, err = bnoise("probe", config)
        assert code == 4
        assert "this is a mistake in bnoise" in err
        data = json.loads(Path(".bnoise/quad.probe.json").read_text())
        assert data["critical_batch_size"]["value"] > 0
        assert (data["throughput"] is not None) == timed


def test_timing_that_fails_or_is_interrupted_keeps_the_noise_scale(
    bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnoise_cli.errors import RunError
    from bnoise_cli.measurement.timing.training_steps import TrainingSteps

    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    for error, code in ((RunError("the optimizer broke."), 4), (KeyboardInterrupt(), 130)):

        def broken(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(TrainingSteps, "step", broken)
        assert bnoise("probe", config)[0] == code
        data = json.loads(Path(".bnoise/quad.probe.json").read_text())
        assert data["critical_batch_size"]["value"] > 0
        assert data["throughput"] is None
        assert data["tradeoff"][0]["step_seconds"] is None
        assert "untimed" in [doubt["code"] for doubt in data["doubts"]]
    code, out, err = bnoise("report", ".bnoise/quad.probe.json", "--emit", "hf")
    assert (code, out) == (3, "")
    assert "no step was timed" in err


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
    ("arguments", "code", "words"),
    [
        (["probe", "quad.yaml", "--emit", "kerras"], 2, "nanogpt"),
        (["probe", "quad.yaml", "--emit", "hf", "--json"], 2, "choose one"),
        (["probe", "quad.yaml", "--log-to", "tensorbord"], 2, "tensorboard"),
        (["probe", "quad.yaml", "--page", "p.doc"], 2, "ending in .md, .html"),
        (["probe", "quad.yaml", "--page", "p.md", "--plot", "p.md"], 2, "ending in .png"),
        (["report"], 2, "RESULT"),
        (["report", "none.json"], 2, "there is no file none.json"),
        (["report", "quad.yaml"], 2, "a stored result of quad.yaml is needed"),
        (["report", "old.json"], 2, "schema_version 0; this bnoise reads 1"),
        (["report", "old.json", "--set", "a.b=1"], 2, "Add --config FILE"),
        (["report", "."], 2, "cannot be read"),
        (["probe", "quad.yaml", "--out", "quad.yaml"], 2, "would replace quad.yaml"),
        (["report", "old.json", "--page", "loop.md"], 2, "cannot"),
        (["report", "page.md", "--page", "page.md"], 2, "would replace page.md"),
    ],
)
def test_each_wrong_output_or_result_is_one_message(
    bnoise: Call, write: Write, arguments: list[str], code: int, words: str
) -> None:
    write("quad.yaml", QUADRATIC_CONFIG)
    write("old.json", '{"schema_version": 0, "kind": "probe"}')
    write("page.md", "# mine")
    Path("loop.md").symlink_to("loop.md")
    found, out, err = bnoise(*arguments)
    assert (found, out) == (code, "")
    assert words in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["frobnicate"], 2, "frobnicate"),
        (["probe", "c.yaml", "--seed", "x"], 2, "--seed"),
        (["probe", "c.yaml", "--set", "probe.budgt=3"], 2, "did you mean `budget`?"),
        (["probe", "c.yaml", "--budget", "soon"], 2, "a time of at least 1s"),
        (["probe", "c.yaml", "--plot", "p.jpg"], 2, "ending in .png"),
        (["probe", "c.yaml", "--out", "user.py/r.json"], 2, "cannot"),
        (["probe", "c.yaml", "--device", "abacus"], 2, "'abacus' is none"),
        (
            [
                "probe",
                "c.yaml",
                "--set",
                "optimizer._target_=torch.optim.Adamax",
                "--set",
                "probe.horizon=off",
            ],
            2,
            "SGD, Adam, AdamW",
        ),
        (["probe", "c.yaml", "--set", "optimizer.lr=-1"], 2, "Invalid learning rate"),
        (["probe", "c.yaml", "--set", "checkpoint=none.pt"], 2, "expected a file of weights at"),
        (["probe", "c.yaml", "--set", "model._target_=user.py:no_model"], 4, "must build a torch.nn.Module"),
        (["probe", "c.yaml", "--set", "model._target_=user.py:Frozen"], 4, "none with requires_grad"),
        (["probe", "c.yaml", "--set", "dataset.n=0"], 4, "it found 0"),
        (["probe", "c.yaml", "--set", "dataset.n=1"], 4, "it found 1"),
        (["probe", "c.yaml", "--set", "dataset.m=1"], 2, "user.py:data(n=200, flat=True)"),
        (["probe", "c.yaml", "--set", "dataset._target_=user.py:Ragged"], 4, "into one batch failed"),
        (["probe", "c.yaml", "--set", "dataset._target_=user.py:Neither"], 4, "a length and items"),
        (
            ["probe", "c.yaml", "--set", "loss=", "--set", "objective._target_=user.py:vector"],
            4,
            "one number",
        ),
        (
            ["probe", "c.yaml", "--set", "loss=", "--set", "objective._target_=user.py:raising"],
            4,
            "my mistake",
        ),
        (["probe", "c.yaml", "--set", "probe.seed=18446744073709551616"], 2, "a number less than"),
        (
            ["probe", "c.yaml", "--set", "probe.max_examples=300", "--set", "probe.batch_sizes=[4,8,99]"],
            2,
            "at least 594",
        ),
        (
            [
                "probe",
                "c.yaml",
                "--set",
                "probe.max_examples=",
                "--set",
                "probe.batch_sizes=[4,8,9999999]",
                "--budget",
                "2s",
            ],
            4,
            "smaller probe.batch_sizes",
        ),
        (["probe", "c.yaml", "--out", "/dev/null"], 2, "a folder or a device"),
        (["probe", "c.yaml", "--out", "p.png", "--plot", "p.png"], 2, "a file of its own"),
        (["probe", "c.yaml", "--device", "meta"], 2, "'meta' is none"),
        (["probe", "c.yaml", "--set", "model._target_=user.py:leaving"], 4, "SystemExit"),
        (
            ["probe", "c.yaml", "--set", "model={class_path: torch.nn.Linear, init_args: [1, 2]}"],
            2,
            "a mapping of arg",
        ),
        (["probe", "c.yaml", "--set", "model={_target_: torch.nn.LazyLinear, out_features: 2}"], 4, "lazy"),
        (["probe", "c.yaml", "--set", "optimizer={_target_: torch.nn.Flatten}"], 2, "Optimizer"),
        (["probe", "c.yaml", "--set", "loss="], 4, "add `loss:` for examples (x, y)"),
        (["probe", "c.yaml", "--set", "loss=", "--set", "objective._target_=user.py:late_nan"], 4, "is nan"),
    ],
)
def test_each_mistake_is_one_message_with_its_exit_code(
    bnoise: Call, user: Write, arguments: list[str], code: int, words: str
) -> None:
    found, out, err = bnoise(*arguments)
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


def test_a_checkpoint_is_loaded_or_says_why_not(bnoise: Call, user: Write) -> None:
    good = torch.nn.Linear(3, 2).state_dict()
    torch.save({"model": good}, "good.pt")
    torch.save({"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}, "wrong.pt")
    torch.save({"f": print}, "code.pt")
    Path("torn.pt").write_bytes(Path("good.pt").read_bytes()[:300])
    call = ["probe", "c.yaml", "--set", "probe.warmup_steps=0", "--quiet"]
    code, _, err = bnoise(*call, "--set", "checkpoint=good.pt", "--set", "probe.max_examples=1000")
    assert code in (0, 3), err
    assert "at_initialisation" not in Path(".bnoise/c.probe.json").read_text()
    for name, words in {
        "wrong.pt": "missing from it: bias; unknown to the model: extra; of another shape: weight is (2, 4) there",
        "code.pt": "more than weights",
        "torn.pt": "cannot be read",
    }.items():
        code, _, err = bnoise(*call, "--set", f"checkpoint={name}")
        assert code == 4
        assert words in err
        assert "Traceback" not in err


def test_a_failure_after_some_replicates_keeps_them(bnoise: Call, user: Write) -> None:
    late = USER.replace("calls > 30", "calls > 1500")
    user("user.py", late)
    code, out, err = bnoise(
        "probe", "c.yaml", "--set", "loss=", "--set", "objective._target_=user.py:late_nan",
        "--set", "probe.max_examples=100000", "--set", "probe.precision=0.001", "--json",
    )  # fmt: skip
    assert code == 4
    assert "not finite" in err or "is nan" in err
    data = json.loads(out)
    assert data["provenance"]["replicates"] >= 2
    assert "failed" in [doubt["code"] for doubt in data["doubts"]]
    assert json.loads(Path(".bnoise/c.probe.json").read_text()) == data


def test_a_stream_is_read_to_a_buffer_and_doubted(bnoise: Call, user: Write) -> None:
    code, out, err = bnoise("probe", "c.yaml", "--json", "--set", "dataset._target_=user.py:Stream")
    assert code in (0, 3), err
    data = json.loads(out)
    assert data["provenance"]["dataset_length"] == 4096
    [found] = [doubt for doubt in data["doubts"] if doubt["code"] == "stream"]
    assert "first 4,096 examples" in found["finding"]


def test_a_loader_stands_for_its_dataset_and_its_collate_function(bnoise: Call, user: Write) -> None:
    """Its batch size and order do not matter: the probe draws for itself."""
    calls = ["--set", "loss=null", "--set", "objective._target_=user.py:plus_one"]
    code, out, err = bnoise("probe", "c.yaml", "--json", "--set", "dataset._target_=user.py:loader", *calls)
    assert code in (0, 3), err
    data = json.loads(out)
    assert data["provenance"]["dataset_length"] == 200
    assert "stream" not in {doubt["code"] for doubt in data["doubts"]}


def test_what_the_users_code_prints_stays_out_of_the_result(bnoise: Call, user: Write) -> None:
    code, out, err = bnoise(
        "probe", "c.yaml", "--json", "--set", "loss=", "--set", "objective._target_=user.py:chatty"
    )
    assert code in (0, 3)
    assert json.loads(out)["kind"] == "probe"
    assert "hello" in err


def test_a_loss_without_a_bottom_cannot_tell(bnoise: Call, user: Write) -> None:
    code, out, err = bnoise(
        "probe", "c.yaml", "--json", "--set", "loss=", "--set", "objective._target_=user.py:negated"
    )
    assert code == 3, err
    assert json.loads(out)["noise_scale"]["value"] is None


@pytest.mark.full
def test_a_reader_who_has_gone_loses_nothing(write: Write, tmp_path: Path) -> None:
    write("q.yaml", QUADRATIC_CONFIG)
    command = f"{shlex.quote(sys.executable)} -m bnoise_cli probe q.yaml | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / ".bnoise/q.probe.json").exists()


def test_a_full_disk_loses_nothing(bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    config = str(write("q.yaml", QUADRATIC_CONFIG))
    monkeypatch.setattr("os.fsync", full)
    code, out, err = bnoise("probe", config)
    assert code == 4
    assert "No space left on device" in err
    assert json.loads(out)["kind"] == "probe"


def test_what_nobody_foresaw_is_never_1(bnoise: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bnoise_cli.cli.probe.load_spec", broken)
    code, _, err = bnoise("probe")
    assert code == 4
    assert "Traceback" in err
    assert "please report" in err


@pytest.mark.full
def test_ctrl_c_keeps_what_was_measured(write: Write, tmp_path: Path) -> None:
    config = QUADRATIC_CONFIG.replace("max_examples: 3000", "precision: 0.0001\n  budget: 120s")
    write("q.yaml", config.replace("bnoise_cli.examples.quadratic.mean_loss", "user.py:marking"))
    write("user.py", MARKING)
    running = subprocess.Popen(
        [sys.executable, "-m", "bnoise_cli", "probe", "q.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "well under way")
    for _ in range(2):  # an impatient user
        running.send_signal(signal.SIGINT)
        time.sleep(0.05)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "interrupted after" in out
    assert "Traceback" not in err
    assert json.loads((tmp_path / ".bnoise/q.probe.json").read_text())["provenance"]["replicates"] > 1


@pytest.mark.full
def test_ctrl_c_before_anything_was_measured_says_so(write: Write, tmp_path: Path) -> None:
    config = QUADRATIC_CONFIG.replace("warmup_steps: 3", "warmup_steps: 10000000")
    write("q.yaml", config.replace("bnoise_cli.examples.quadratic.mean_loss", "user.py:marking"))
    write("user.py", MARKING)
    running = subprocess.Popen(
        [sys.executable, "-m", "bnoise_cli", "probe", "q.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "well under way")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert err.strip() == "bnoise: interrupted before anything was measured."


@pytest.mark.full
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_runs(bnoise: Call, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    need_for(name)
    Path("train.bin").write_bytes(b"".join(bytes([value, 0]) for value in b"abc abd acd " * 500))
    few = (
        []
        if name.startswith(("digits", "noisy"))
        else ["--set", "probe.warmup_steps=10", "--set", "probe.max_examples=1000"]
    )
    code, out, err = bnoise(
        "probe", str(ROOT / "configs" / f"{name}.yaml"), "--json", "--budget", "20s", *few
    )
    assert code in ((0, 3) if few else (0,)), err
    data = json.loads(out)
    assert few or data["noise_scale"]["low"] > 0
    if name not in ("noisy_quadratic", "own_script"):
        assert re.fullmatch("[0-9a-f]{64}", data["provenance"]["dataset_hash"])


def test_every_config_has_a_test() -> None:
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} == set(CONFIGS)


@pytest.mark.full
@pytest.mark.parametrize("name", SWEEPS)
def test_the_sweeps_of_the_configs_train(
    name: str, bnoise: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a near goal at three batch sizes, one seed; the figures of the README take minutes."""
    monkeypatch.chdir(tmp_path)
    near = {"digits": "1.5", "digits_cnn": "1.5", "stdlib_gpt_adamw": "4.0"}
    code, out, err = bnoise("sweep", str(ROOT / f"configs/{name}.yaml"), "--set", f"sweep.goal={near[name]}",
                            "--set", "sweep.seeds=1", "--set", "sweep.batch_sizes=[8, 32, 128]")  # fmt: skip
    assert code in (0, 3), err
    assert "Measured by training" in out
    data = json.loads(Path(f".bnoise/{name}.sweep.json").read_text())
    assert all(batch["steps"] for batch in data["batches"])
    assert [batch["batch_size"] for batch in data["batches"]] == [8, 32, 128]
