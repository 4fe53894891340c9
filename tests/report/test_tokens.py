"""Batch sizes in tokens: read from a config, shown in reports; measured and stored are examples alone."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bnoise_cli.advice.advise import advise
from bnoise_cli.amounts import Amounts
from bnoise_cli.errors import CallError, ConfigError
from bnoise_cli.numbers import tokens
from bnoise_cli.report.plots.draw import draw
from bnoise_cli.report.sections import report_sections
from bnoise_cli.report.terminal import layout, render
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.probe import ProbeResult, probe_result
from bnoise_cli.results.result import Result
from bnoise_cli.results.stored import checked_result
from bnoise_cli.results.sweep import sweep_result
from bnoise_cli.spec.identity import ledger_hash
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.units import parse_tokens
from bnoise_cli.storage import write_json
from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.samples import GOOD_STEPS, OPEN, RUN, plan, sweep_run


def in_tokens(result: ProbeResult, factor: float | None = 1024.0) -> ProbeResult:
    """The same result of a config that asks for tokens, advised anew."""
    training = {**result.config["training"], "tokens_per_example": factor}
    return advise(
        dataclasses.replace(result, config={**result.config, "unit": "tokens", "training": training})
    )


def shown(*results: Result, width: int = 160) -> str:
    sections = report_sections([(f"r{i}", one) for i, one in enumerate(results)])
    return render(layout(sections, width), width=width, color=False, encoding="utf-8")


# --- what a config says -------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "number"), [
    ("524288 tokens", 524_288), ("524_288 tokens", 524_288), ("524,288 tokens", 524_288), ("0.5M tokens", 5e5),
    ("1.5B tokens", 1.5e9), ("2k tokens", 2000), ("1 token", 1), (" 3T  tokens ", 3e12), ("1e6 tokens", 1e6),
    (".5M tokens", 5e5), ("tokens", None), ("5", None), ("-5 tokens", None), ("0 tokens", None), ("5x tokens", None),
    ("1e999 tokens", None), ("5 tokens 6", None),
])  # fmt: skip
def test_numbers_of_tokens(text: str, number: float | None) -> None:
    assert parse_tokens(text) == number


def test_tokens_become_examples_wherever_there_are_amounts(write: Write) -> None:
    path = write("q.yaml", QUADRATIC_CONFIG)
    spec = load_spec(path, [
        "training.batch_size=524288 tokens", "training.tokens_per_example=1024", "training.examples=1.5B tokens",
        "probe.batch_sizes=[16K tokens, 64, 128_000 tokens]", "probe.max_examples=2M tokens",
        "sweep.batch_sizes=[1 tokens, 2048 tokens, 3]", "sweep.branch={examples: 10240 tokens}",
    ])  # fmt: skip
    found = spec.config
    assert (found.training.batch_size, found.training.examples) == (512, 1_464_844)
    assert found.probe.batch_sizes == [16, 64, 125]
    assert found.probe.max_examples == 1953
    assert found.sweep.batch_sizes == [1, 2, 3]
    assert found.sweep.branch is not None
    assert found.sweep.branch.examples == 10
    assert spec.resolved()["training"]["batch_size"] == 512
    whole = load_spec(path, ["training.batch_size=0.5M tokens", "training.tokens_per_example=312.5"])
    assert whole.config.training.batch_size == 1600


@pytest.mark.parametrize(("text", "found", "expected"), [
    ("batch_size: 5000 tokens", "q.yaml:16:15: found tokens (`training.batch_size: 5000 tokens`)",
     "`training.tokens_per_example` too"),
    ("batch_size: 5x tokens\n  tokens_per_example: 8", "found `training.batch_size: 5x tokens`",
     "such as 524288 tokens"),
    ("batch_size: 5 tokens\n  tokens_per_example: -8", "found `training.tokens_per_example: -8`", "greater than 0"),
    ("batch_size: 5 tokens\n  tokens_per_example: .inf", "found `training.tokens_per_example", "finite"),
    ("batch_size: many", 'found `training.batch_size: "many"`', "a whole number"),
])  # fmt: skip
def test_a_mistake_is_named_once_at_its_line(write: Write, text: str, found: str, expected: str) -> None:
    path = write("q.yaml", QUADRATIC_CONFIG.replace("batch_size: 32", text))
    with pytest.raises(ConfigError) as caught:
        load_spec(path)
    [problem] = caught.value.problems
    assert found in str(problem)
    assert expected in str(problem)


def test_an_unknown_key_of_a_section_that_may_be_left_out(write: Write) -> None:
    path = write("q.yaml", QUADRATIC_CONFIG)
    with pytest.raises(ConfigError, match=r"unknown key `example`; .*did you mean `examples`"):
        load_spec(path, ["sweep.branch={examples: 5, example: 5}"])


def test_the_unit_is_no_part_of_what_is_measured(write: Write) -> None:
    path = write("q.yaml", QUADRATIC_CONFIG)
    plain = load_spec(path)
    other = load_spec(
        path, ["unit=tokens", "training.tokens_per_example=8", "training.batch_size=256 tokens"]
    )
    assert [kind.hash(plain) for kind in KINDS.values()] == [kind.hash(other) for kind in KINDS.values()]
    assert ledger_hash(plain) == ledger_hash(other)


# --- where the factor comes from ----------------------------------------------------------------------


def test_the_config_goes_before_what_was_found(write: Write) -> None:
    path = write("q.yaml", QUADRATIC_CONFIG)
    found = dataclasses.replace(RUN, findings=dataclasses.replace(RUN.findings, tokens_per_example=300.5))
    measured = probe_result(found, load_spec(path, ["unit=tokens"]))
    assert measured.provenance.tokens_per_example == 300.5
    assert measured.amounts.tokens_per_example == 300.5
    assert probe_result(found, load_spec(path)).amounts.tokens_per_example is None
    stated = probe_result(found, load_spec(path, ["unit=tokens", "training.tokens_per_example=512"]))
    assert stated.provenance.tokens_per_example == stated.amounts.tokens_per_example == 512
    data = json.loads(json.dumps(stated.to_json()))
    assert checked_result(Path("r.json"), data).provenance.tokens_per_example == 512
    data["provenance"]["tokens_per_example"] = 0
    with pytest.raises(CallError, match=r"`provenance.tokens_per_example`: input should be greater than 0"):
        checked_result(Path("r.json"), data)
    del data["provenance"]["tokens_per_example"], data["config"]["unit"]
    assert checked_result(Path("r.json"), data).provenance.tokens_per_example is None


def test_tokens_that_nobody_knows_are_a_doubt() -> None:
    unknown = in_tokens(plan(), None)
    assert [doubt.remedy for doubt in unknown.doubts if doubt.code == "tokens"] == [
        "Set training.tokens_per_example."
    ]
    [doubt] = [doubt for doubt in advise(unknown).doubts if doubt.code == "tokens"]
    without = dataclasses.replace(unknown, doubts=tuple(d for d in unknown.doubts if d is not doubt))
    assert "tokens" not in [d.code for d in in_tokens(unknown).doubts]
    plain = plan()
    assert re.sub(r"\s+", " ", shown(dataclasses.replace(without, doubts=plain.doubts))) == re.sub(
        r"\s+", " ", shown(plain)
    )


# --- what reports show --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (116_736, "116,736"),
        (9_999_999, "9,999,999"),
        (1.5e9, "1.50B"),
        (20_480_000, "20.5M"),
        (3e12, "3.00T"),
    ],
)
def test_tokens_in_words(number: float, words: str) -> None:
    assert tokens(number) == words


def test_no_line_in_tokens_is_wider_than_the_terminal() -> None:
    text = shown(in_tokens(plan(batch_size=64, world_size=2, steps=1000)), width=80)
    assert max(map(len, text.splitlines())) <= 80


def test_the_pictures_of_a_sweep_have_an_axis_in_tokens(write: Write) -> None:
    spec = load_spec(
        write("q.yaml", QUADRATIC_CONFIG),
        ["unit=tokens", "training.tokens_per_example=100", "training.batch_size=20"],
    )
    found = advise(sweep_result(sweep_run(GOOD_STEPS), spec))
    figure = draw([("r", found)])
    tops = [[above.get_xlabel() for above in axes.child_axes] for axes in figure.axes]
    assert tops[:2] == [["tokens"], ["tokens"]]


def test_pictures_have_an_axis_in_tokens_where_all_results_share_it() -> None:
    def tops(*results: ProbeResult) -> int:
        figure = draw([(f"r{i}", one) for i, one in enumerate(results)])
        return sum(len(axes.child_axes) for axes in figure.axes)

    assert tops(in_tokens(plan())) == tops(in_tokens(plan()), in_tokens(plan())) == 1
    assert (
        tops(plan())
        == tops(in_tokens(plan()), plan())
        == tops(in_tokens(plan()), in_tokens(plan(), 8.0))
        == 0
    )


def checked(bnoise: Call, path: str, *options: str) -> tuple[int, str]:
    code, out, err = bnoise("check", path, "--result", "r.json", *options)
    assert "Traceback" not in err
    return code, re.sub(r"\s+", " ", out + err)


def test_a_check_in_tokens(bnoise: Call, write: Write) -> None:
    text = QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: 64000 tokens\n  tokens_per_example: 1000")
    path = str(write("q.yaml", text.replace("version: 1", "version: 1\nunit: tokens")))
    spec = load_spec(Path(path))
    write_json(Path("r.json"), dataclasses.replace(
        plan(), config=spec.resolved(), config_hash=KINDS["probe"].hash(spec)).to_json())  # fmt: skip
    code, said = checked(bnoise, path)
    assert code == 0
    assert "a batch of 64 examples (64,000 tokens) takes 1.64" in said
    assert "B_crit is 100 (90.0 to 112), 100,000 tokens, by training runs of a probe" in said
    code, said = checked(bnoise, path, "--batch-size", "0.5M tokens")
    assert code == 1
    assert "a batch of 500 examples (500,000 tokens)" in said
    assert "Set training.batch_size to 96 (96,000 tokens) or less." in said
    for form, words in (
        ("github", "64 examples (64,000 tokens)"),
        ("junit", "64 examples (64,000 tokens)"),
        ("markdown", "| 64 (64,000 tokens) | 100 (90.0 to 112), 100,000 tokens |"),
    ):
        assert words in checked(bnoise, path, "--format", form)[1]
    data: dict[str, Any] = json.loads(bnoise("check", path, "--result", "r.json", "--format", "json")[1])
    [one] = data["checked"]
    assert (one["batch_size"], one["tokens_per_example"]) == (64, 1000)
    assert "tokens" not in checked(bnoise, path, "--set", "unit=examples")[1]
    for wrong in ("0", "-3", "many", "3x tokens", "[3]"):
        assert checked(bnoise, path, "--batch-size", wrong)[0] == 2
    code, said = checked(
        bnoise, path, "--batch-size", "0.5M tokens", "--set", "training.tokens_per_example=null"
    )
    assert code == 2
    assert "expected `training.tokens_per_example` too" in said


def test_an_open_noise_scale_has_no_tokens() -> None:
    amounts = Amounts(1000.0)
    assert amounts.tokens(None) == ""
    assert amounts.interval(OPEN) == "cannot tell (at least 40.0 examples, 40,000 tokens, no upper bound)"
    assert amounts.count(7) == "7 (7,000 tokens)"
