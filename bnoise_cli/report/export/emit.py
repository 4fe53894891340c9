"""`--emit`: a recommendation as the lines to paste into a training framework's own configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import yaml

from bnoise_cli.errors import BnoiseError, ExitCode
from bnoise_cli.records import Recommendation
from bnoise_cli.report.export.export import Printed, Results
from bnoise_cli.results.result import Result


class Framework(StrEnum):
    """Frameworks whose configuration is known."""

    HF = "hf"
    LIGHTNING = "lightning"
    DEEPSPEED = "deepspeed"
    TORCHTITAN = "torchtitan"
    NANOGPT = "nanogpt"


#: The keys of each framework and which of `_quantities` each key holds, as of transformers 5.23, lightning 2.6,
#: deepspeed 0.19 (whose file has no length of a run), torchtitan 0.3 and nanoGPT's train.py. All count steps of the
#: optimizer.
_KEYS = {
    Framework.HF: {
        "per_device_train_batch_size": "micro_batch", "gradient_accumulation_steps": "accumulation",
        "learning_rate": "learning_rate", "max_steps": "steps",
    },
    Framework.LIGHTNING: {
        "trainer.devices": "world", "trainer.accumulate_grad_batches": "accumulation",
        "trainer.max_steps": "steps", "data.batch_size": "micro_batch", "optimizer.lr": "learning_rate",
    },
    Framework.DEEPSPEED: {
        "train_batch_size": "batch", "train_micro_batch_size_per_gpu": "micro_batch",
        "gradient_accumulation_steps": "accumulation",
        "optimizer.type": "optimizer", "optimizer.params.lr": "learning_rate",  # the rate is not read without a type
    },
    Framework.TORCHTITAN: {
        "config.training.local_batch_size": "micro_batch", "config.training.global_batch_size": "batch",
        "config.training.steps": "steps",
        "config.optimizer.param_groups[-1].optimizer_kwargs['lr']": "learning_rate",
    },
    # train.py divides the accumulation by the world size; the decay ends at 600,000 unless it is told otherwise.
    Framework.NANOGPT: {
        "batch_size": "micro_batch", "gradient_accumulation_steps": "accumulation_of_all",
        "learning_rate": "learning_rate", "max_iters": "steps", "lr_decay_iters": "steps",
    },
}  # fmt: skip
#: The comment that says where the lines belong, for formats with comments.
_PLACES = {
    Framework.HF: "for transformers.TrainingArguments; data-parallel degree {world}",
    Framework.LIGHTNING: "for LightningCLI: devices of one node; the batch size of the DataLoader on each device;\n"
    "where there is a class_path, batch_size and lr belong under its init_args",
    Framework.TORCHTITAN: "for the function that returns the Trainer.Config of torchtitan 0.3; batches in sequences;\n"
    "data-parallel degree {world}; the last parameter group is the one for everything else",
    Framework.NANOGPT: "for a config file of nanoGPT; gradient_accumulation_steps counts those of all ranks together",
}


class NoAdviceError(BnoiseError):
    """The result recommends nothing that could be written down."""

    exit_code = ExitCode.CANNOT_TELL


def emit(result: Result, framework: Framework) -> str:
    """The recommended training in the words, units and file format of a framework.

    Unknown values (a learning rate, the length of the run) are left out.

    Raises:
        NoAdviceError: the result has no recommendation.
    """
    advice = result.recommendation
    if advice is None:
        why = "the critical batch size is not resolved"
        if result.resolved:
            why = "no batch size meets the limits of `advice:`"
            if result.lacks_horizon:
                why = "no horizon was measured"
            elif result.throughput is None:
                why = "no step was timed"
        raise NoAdviceError(
            f"--emit needs a recommended batch size; this result has none: {why}. "
            "See the reasons for doubt in its report."
        )
    known = _quantities(result, advice)
    settings = {key: known[held] for key, held in _KEYS[framework].items() if held in known}
    if framework is Framework.DEEPSPEED:
        return json.dumps(_nested(settings), indent=2) + "\n"
    comment = _comment(result, advice, _PLACES[framework])
    if framework in (Framework.HF, Framework.LIGHTNING):
        # PyYAML writes 1.0e-05 where repr writes 1e-05, which YAML reads as a string.
        return comment + yaml.safe_dump(_nested(settings), sort_keys=False)
    return comment + "".join(f"{key} = {value!r}\n" for key, value in settings.items())


def _quantities(result: Result, advice: Recommendation) -> dict[str, int | float | str]:
    """The values that a configuration may ask for, in examples, steps and processes; unknown ones are left out."""
    known: dict[str, int | float | str] = {
        "batch": advice.batch_size,
        "micro_batch": advice.micro_batch_size,
        "accumulation": advice.accumulation_steps,
        "accumulation_of_all": advice.accumulation_steps * advice.world_size,
        "world": advice.world_size,
    }
    if advice.row.run_steps is not None:
        known["steps"] = math.ceil(advice.row.run_steps)
    if advice.learning_rate is not None:
        known["learning_rate"] = advice.learning_rate
        known["optimizer"] = result.plan.optimizer.rpartition(".")[2]
    return known


def _comment(result: Result, advice: Recommendation, place: str) -> str:
    made = result.provenance
    rate = f"for {result.plan.optimizer}, not for another optimizer; a starting point, re-tune"
    if advice.learning_rate is None:
        rate = advice.learning_rate_rule
    text = (
        f"bnoise {made.bnoise}, measured on {made.device} at {made.time}, config {result.config_hash[:8]}\n"
        f"batch of {advice.batch_size} = micro-batch of {advice.micro_batch_size} x "
        f"accumulation of {advice.accumulation_steps} x world size of {advice.world_size}\n"
        f"learning rate: {rate}\n{place.format(world=advice.world_size)}"
    )
    return "".join(f"# {line}\n" for line in text.splitlines())


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` becomes `{"a": {"b": 1}}`."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, last = key.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return tree


def _content(results: Results, framework: Framework) -> str:
    [(_, result)] = results
    return emit(result, framework)


EMIT = Printed(
    option="--emit",
    type=Framework,
    help="Print, instead of the report, the settings to paste for a framework.",
    single=True,
    content=_content,
)
