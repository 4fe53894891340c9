"""Mutations of what strangers can write: configs, stored results, ledgers, checkpoints and environment variables.

Whatever they hold, the program ends with a verdict or one message: no traceback, and neither 0 nor 1 by accident.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnoise_cli.advice.advise import advise
from bnoise_cli.check.check_config import check_config, validate_config
from bnoise_cli.check.verdict import Verdict
from bnoise_cli.errors import BnoiseError, CallError, ConfigError
from bnoise_cli.ledger import Ledger
from bnoise_cli.measurement.building.checkpoint import read_checkpoint
from bnoise_cli.measurement.sweeping.known_runs import KnownRuns
from bnoise_cli.report.sections import report_sections
from bnoise_cli.result_file import ResultFile
from bnoise_cli.results.branch import branch_result
from bnoise_cli.results.horizon import horizon_record
from bnoise_cli.results.stored import checked_result, read_result
from bnoise_cli.results.sweep import sweep_result
from bnoise_cli.spec.load import load_spec
from tests.cases import QUADRATIC_CONFIG, TINY_SWEEP, Call, Write
from tests.samples import BRANCHES, GOOD_STEPS, HORIZON, sweep_run, timed
from tests.samples import result as probed

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SPECIAL = [
    "*a",
    "&a ",
    "[",
    "{",
    "]",
    "}",
    "!!int ",
    "<<: ",
    "? ",
    "|\n",
    "'",
    "\t",
    "\x85",
    ".nan",
    "9" * 200,
]
#: With every part that a probe can have.
ADVISED = advise(probed(doubts=(), horizon=horizon_record(HORIZON), throughput=timed()))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@cache
def whole_results() -> tuple[dict[str, Any], ...]:
    """A result of each kind."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_text(TINY_SWEEP)
        spec, branches = (
            load_spec(path, more) for more in ([], ["sweep.branch={examples: 2000, tolerance: 0.01}"])
        )
    branched = branch_result(sweep_run({}, chosen={}, trajectory=(), branches=BRANCHES), branches)
    return ADVISED.to_json(), advise(sweep_result(sweep_run(GOOD_STEPS), spec)).to_json(), branched.to_json()


def mutated(data: Any, choose: Callable[[Any], Any]) -> Any:
    """The data with one value, somewhere inside, replaced or left out."""
    if isinstance(data, dict | list) and data and choose(st.integers(0, 5)):
        changed: Any = data.copy()
        keys = sorted(data) if isinstance(data, dict) else list(range(len(data)))
        key = choose(st.sampled_from(keys))
        if choose(st.integers(0, 9)):
            changed[key] = mutated(data[key], choose)
        else:
            del changed[key]
        return changed
    return choose(plain)


@MANY
@given(data=st.data())
def test_any_text_is_a_config_or_a_list_of_mistakes(data: st.DataObject, write: Write) -> None:
    """Pieces of the text are cut out, doubled or replaced by what YAML takes for something."""
    text = QUADRATIC_CONFIG
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        special = st.sampled_from(SPECIAL)
        text = text[:start] + data.draw(special | st.text(max_size=5)) + text[end:]
    path = write("c.yaml", text.encode(errors="replace").decode())
    checked = validate_config(path, ())
    assert checked.verdict in (Verdict.PASS, Verdict.INVALID), checked.finding


@MANY
@given(data=st.data())
def test_any_stored_result_is_judged_or_damaged(data: st.DataObject, write: Write) -> None:
    whole = data.draw(st.sampled_from(whole_results()))
    write("r.json", json.dumps(mutated(whole, data.draw)))
    path = Path("r.json")
    with suppress(BnoiseError):
        found = read_result(path)
        report_sections([("r", found)], beside=[("other", found)])
        advise(found)
    file = ResultFile(Path("kept.json"))
    file.store(whole)
    before = Path("kept.json").read_bytes()
    changed = mutated(whole, data.draw)
    Path("kept.json").write_text(json.dumps(changed))
    ResultFile(Path("kept.json")).store(whole)  # never raises for what lies there
    assert before


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("horizon", "curve"), []),
        (("recommendation", "roles"), []),
        (("recommendation", "batch_size"), 0),
        (("throughput", "step_times", 0, "spread"), -1.0),
        (("tradeoff", 0, "examples_ratio"), 0.0),
        (("tradeoff", 0, "relative_time"), 0.0),
    ],
)
def test_what_arithmetic_would_stumble_over_is_damage(place: tuple[Any, ...], value: Any) -> None:
    whole = ADVISED.to_json()
    part: Any = whole
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(CallError, match=r"is damaged: `" + re.escape(".".join(map(str, place)))):
        checked_result(Path("r.json"), whole)


@pytest.mark.parametrize("probe", [None, [], "x", {}])
def test_a_stored_config_without_a_probe_asks_for_no_horizon(probe: Any) -> None:
    whole = advise(probed(throughput=timed())).to_json()
    whole["config"]["probe"] = probe
    found = checked_result(Path("r.json"), whole)
    assert not found.lacks_horizon
    assert advise(found).recommendation is not None


@MANY
@given(data=st.data())
def test_any_ledger_is_gone_on_with_or_put_aside(data: st.DataObject, tmp_path: Path) -> None:
    run = {"batch_size": 8, "point": 0, "seed": 0, "stage": 1, "steps": 3.5, "outcome": "reached", "taken": 4,
           "evaluations": 2, "seconds": 0.1, "lowest_loss": 0.3}  # fmt: skip
    branch = {"kind": "branch", "batch_size": 8, "learning_rate": 0.1, "seed": 0, "loss": 0.2, "taken": 3,
              "evaluations": 2, "seconds": 0.1}  # fmt: skip
    probed = {"step": 3, "loss": 0.4, "noise_scale": None, "simple_noise_scale": None, "gradient_examples": 9,
              "evaluation_examples": 9, "batch_size": 8, "learning_rate": 0.1}  # fmt: skip
    entries = [
        {"kind": "runs", "runs": [run, {**run, "seed": 1}]},
        branch,
        {"kind": "stacks", "batch_size": 8, "value": True},
        {"kind": "goal", "which": {}, "value": 0.5},
        {"kind": "probed", "which": {}, "value": probed},
    ]
    head = {"ledger": 1, "belongs_to": "x"}
    lines = [json.dumps(mutated(entry, data.draw)) for entry in entries]
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join([json.dumps(head), *lines, ""]))
    known = KnownRuns(Ledger(path, "x"), lambda point: 0.1 * 2.0 ** (point / 8))
    for kind in ("goal", "probed"):
        known.fact(kind)
    for each in known.all():
        assert each.steps is None or each.steps > 0
    assert len(known) <= 3
    Ledger(path, "x").append(branch)
    assert Ledger(path, "x").entries[-1] == branch


@MANY
@given(data=st.data())
def test_any_bytes_are_a_checkpoint_or_one_message(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"model": torch.nn.Linear(3, 2).state_dict(), "step": 7}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    with suppress(BnoiseError):
        found = read_checkpoint(path)
        assert all(isinstance(value, torch.Tensor) for value in found.weights.values())


@settings(MANY, max_examples=60)
@given(
    name=st.sampled_from(
        [
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "COLUMNS",
            "TERM",
            "NO_COLOR",
            "GITHUB_WORKSPACE",
            "LANG",
            "HOME",
        ]
    ),
    value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
    | st.integers().map(str),
    form=st.sampled_from(["text", "json", "github", "junit", "markdown"]),
)
def test_any_environment_leaves_a_check_as_it_is(
    name: str, value: str, form: str, bnoise: Call, write: Write
) -> None:
    """A config without a measurement cannot be told, whatever the variables of another program say."""
    path = write("c.yaml", QUADRATIC_CONFIG)
    with patch.dict(os.environ, {name: value}):
        code, out, err = bnoise("check", str(path), "--format", form)
    assert code == 3, err
    assert out
    assert "Traceback" not in err


def test_one_config_that_fails_leaves_the_others_their_verdict(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever class of exception one config ends with, it is an error of that config."""
    path = write("c.yaml", QUADRATIC_CONFIG)
    unforeseen = [RecursionError("deep"), MemoryError(), OSError(5, "gone"), OverflowError("\x1b::error::")]
    for error in unforeseen:

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr("bnoise_cli.check.check_config.load_spec", fail)
            checked = check_config(path, wish=None, target=path)  # type: ignore[arg-type]
        assert checked.verdict is Verdict.ERROR
        assert "This is a mistake in bnoise" in checked.remedy


@pytest.mark.parametrize(
    "text",
    [
        QUADRATIC_CONFIG.replace("lr: 0.01", "lr: 0x" + "f" * 3600),
        QUADRATIC_CONFIG + "  budget: " + "1" * 30_000 + "s\n",
        QUADRATIC_CONFIG.replace("lr: 0.01", "lr: " + "[" * 300 + "]" * 300),
        QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: 1M tokens\n  tokens_per_example: 5e-324"),
        QUADRATIC_CONFIG.replace(
            "batch_size: 32", f"batch_size: {'1' * 20_000}x tokens\n  tokens_per_example: 3"
        ),
        QUADRATIC_CONFIG + "".join(f"k{i}: 1\n" for i in range(5000)),
        QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", ".".join(["a"] * 3000)),
        QUADRATIC_CONFIG + "x: [" + "1," * 100_000 + "1]\n",
        QUADRATIC_CONFIG + "# " + "x" * 70_000 + "\n",
        QUADRATIC_CONFIG.replace("lr: 0.01", "lr: .nan"),
    ],
)
def test_a_config_that_no_one_needs_is_refused_with_a_short_list(write: Write, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_spec(write("c.yaml", text))
    assert len(caught.value.problems) <= 101
    assert len(str(caught.value)) < 101 * 2_000
