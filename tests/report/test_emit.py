"""What is pasted into a framework's configuration parses there and multiplies back to the batch size."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bnoise_cli.errors import ExitCode
from bnoise_cli.records import CriticalBatchSize
from bnoise_cli.report.export.emit import Framework, NoAdviceError, emit
from tests.samples import ADVICE, ADVISED


def parsed(text: str, framework: str) -> dict[str, Any]:
    """The settings as the framework itself would read them, flat where they are nested."""
    if framework == "deepspeed":
        found = json.loads(text)
    elif framework == "torchtitan":
        group = SimpleNamespace(optimizer_kwargs={})
        config = SimpleNamespace(
            training=SimpleNamespace(), optimizer=SimpleNamespace(param_groups=[None, group])
        )
        exec(compile(text, "my_run.py", "exec"), {"config": config})
        found = vars(config.training) | group.optimizer_kwargs
    elif framework == "nanogpt":
        found = {}
        exec(compile(text, "train_mine.py", "exec"), {}, found)
    else:
        found = yaml.safe_load(text)
    return flat(found)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


# Written out by hand: batch 96 = 8 × 4 × 3, 1000.2 steps rounded up.
EXPECTED: dict[str, dict[str, object]] = {
    "hf": {
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "learning_rate": 3e-05, "max_steps": 1001,
    },
    "lightning": {
        "trainer.devices": 3, "trainer.accumulate_grad_batches": 4, "trainer.max_steps": 1001,
        "data.batch_size": 8, "optimizer.lr": 3e-05,
    },
    "deepspeed": {
        "train_batch_size": 96, "train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 4,
        "optimizer.type": "AdamW", "optimizer.params.lr": 3e-05,
    },
    "torchtitan": {"local_batch_size": 8, "global_batch_size": 96, "steps": 1001, "lr": 3e-05},
    "nanogpt": {
        "batch_size": 8, "gradient_accumulation_steps": 12, "learning_rate": 3e-05, "max_iters": 1001,
        "lr_decay_iters": 1001,
    },
}  # fmt: skip


@pytest.mark.parametrize("framework", Framework)
def test_the_lines_parse_and_say_the_recommendation(framework: Framework) -> None:
    assert parsed(emit(ADVISED, framework), framework) == EXPECTED[framework]


@pytest.mark.parametrize("framework", Framework)
def test_what_is_unknown_is_left_out(framework: Framework) -> None:
    unknown = dataclasses.replace(
        ADVICE,
        learning_rate=None,
        learning_rate_rule="no rule is known for Lion: re-tune it",
        row=dataclasses.replace(ADVICE.row, run_steps=None),
    )
    text = emit(dataclasses.replace(ADVISED, recommendation=unknown), framework)
    left = {key: value for key, value in EXPECTED[framework].items() if value not in (1001, 3e-05, "AdamW")}
    assert parsed(text, framework) == left
    if framework != "deepspeed":
        assert "# learning rate: no rule is known for Lion: re-tune it\n" in text


@pytest.mark.parametrize("framework", [each for each in Framework if each is not Framework.DEEPSPEED])
def test_a_comment_comes_first_and_says_where_the_numbers_are_from(framework: Framework) -> None:
    lines = emit(ADVISED, framework).splitlines()
    assert lines[:3] == [
        "# bnoise 0.1.0, measured on cpu at 2026-01-01T00:00:00+00:00, config 01234567",
        "# batch of 96 = micro-batch of 8 x accumulation of 4 x world size of 3",
        "# learning rate: for torch.optim.AdamW, not for another optimizer; a starting point, re-tune",
    ]
    assert lines[3].startswith("# for ")


def test_no_recommendation_is_no_configuration() -> None:
    untimed = dataclasses.replace(ADVISED, recommendation=None, throughput=None)
    with pytest.raises(NoAdviceError, match="no step was timed") as caught:
        emit(untimed, Framework.HF)
    assert caught.value.exit_code == ExitCode.CANNOT_TELL
    unknown = CriticalBatchSize(value=None, low=40.0, high=None, basis="probe")
    with pytest.raises(NoAdviceError, match="not resolved"):
        emit(dataclasses.replace(untimed, critical_batch_size=unknown), Framework.HF)
