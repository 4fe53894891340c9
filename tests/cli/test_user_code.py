"""Datasets, loaders and checkpoints of the user's, through the program."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from bnoise_cli.spec.user_files import user_module
from tests.cases import QUADRATIC_CONFIG, Call, Write


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


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("GeneratorExit()", "GeneratorExit"),
        ("BaseExceptionGroup('g', [KeyboardInterrupt()])", "BaseExceptionGroup"),
        (
            "type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()",
            "cannot be shown (ZeroDivisionError)",
        ),
        (
            "type('Odd', (BaseException,), {'__str__': lambda self: exit(0)})()",
            "cannot be shown (SystemExit)",
        ),
        ("ValueError('x' * 10**7)", "xxx"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_whatever_user_code_raises_is_one_message(
    bnoise: Call, write: Write, raised: str, said: str, late: bool
) -> None:
    """When it is imported or when it is called; the message itself may fail to be made, or be long."""
    raising = f"raise {raised}\n"
    write("odd.py", f"def loss(model, batch):\n    {raising}" if late else f"{raising}def loss(): pass\n")
    sys.modules.pop(user_module(Path("odd.py")), None)
    code, _, err = bnoise(
        "probe",
        str(
            write(
                "c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "odd.py:loss")
            )
        ),
    )
    assert code == (4 if late else 2), err
    assert said in err
    assert "Traceback" not in err
    assert len(err) < 20_000
