"""The check of one config: its stored result found and judged."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bnoise_cli.advice.shelf import Shelf
from bnoise_cli.advice.verdict import Judgement, Verdict, judge
from bnoise_cli.errors import BnoiseError, CallError, ConfigError, ExitCode, NothingMeasuredError
from bnoise_cli.records import Doubt, Result
from bnoise_cli.spec.load import Spec, load_spec

_CODES = {
    Verdict.PASS: ExitCode.DONE,
    Verdict.WARN: ExitCode.DONE,
    Verdict.FAIL: ExitCode.CHECK_FAILED,
    Verdict.CANNOT_TELL: ExitCode.CANNOT_TELL,
    Verdict.INVALID: ExitCode.WRONG_CALL,
    Verdict.ERROR: ExitCode.RUN_FAILED,
}
#: Of several configs the gravest counts: what is sure before what is not known, mistakes before both.
_GRAVEST = (
    ExitCode.RUN_FAILED,
    ExitCode.WRONG_CALL,
    ExitCode.CHECK_FAILED,
    ExitCode.CANNOT_TELL,
    ExitCode.DONE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in a file, and what there is to say about it."""

    line: int | None
    column: int | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the check found of one config."""

    config: Path
    verdict: Verdict
    finding: str
    remedy: str
    marks: tuple[Mark, ...]
    judgement: Judgement | None = None
    result: Path | None = None  # the file it rests on
    doubts: tuple[Doubt, ...] = ()  # about the measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How strictly verdicts become exit codes."""

    strict: bool = False  # a warning fails too
    exit_zero: bool = False  # neither a failed check nor an open one is an error

    def code(self, verdict: Verdict) -> ExitCode:
        """The exit code for one config."""
        code = _CODES[verdict]
        if self.strict and verdict is Verdict.WARN:
            code = ExitCode.CHECK_FAILED
        verdicts = (ExitCode.CHECK_FAILED, ExitCode.CANNOT_TELL)
        return ExitCode.DONE if self.exit_zero and code in verdicts else code

    def gravest(self, checked: list[Checked]) -> ExitCode:
        """The exit code for all of them."""
        codes = {self.code(each.verdict) for each in checked}
        return next(code for code in _GRAVEST if code in codes)


def check_config(
    path: Path,
    overrides: list[str],
    batch_size: int | None,
    shelf: Shelf,
    measure: Callable[[Spec], tuple[Path, Result]] | None,
) -> Checked:
    """Find the stored result of a config and judge its planned batch size.

    Args:
        batch_size: to judge instead of the config's.
        measure: makes a result where there is none; None: that cannot be told.
    """
    try:
        spec = load_spec(path, overrides, at_hand=False)
    except ConfigError as error:
        return _invalid(path, error)
    mark = _mark(spec.source.place(("training", "batch_size")), path)
    plan = spec.config.training
    if batch_size is None:
        if "batch_size" not in plan.model_fields_set:
            remedy = "Set it to the global batch size of the run, or use --batch-size."
            return _open(path, "training.batch_size is not set", remedy, mark)
        batch_size = plan.batch_size
    try:
        found = shelf.find(spec)
        if found is None and measure is not None:
            found = measure(spec)
    except ConfigError as error:
        return _invalid(path, error)
    except CallError as error:
        return _open(path, str(error), "", mark)
    except NothingMeasuredError:
        raise
    except BnoiseError as error:
        return Checked(
            config=path, verdict=Verdict.ERROR, finding=str(error), remedy="", marks=(mark(str(error)),)
        )
    if found is None:
        remedy = f"Measure with `bnoise probe {path}` and keep its result, or check with --probe."
        return _open(path, shelf.why_not(spec), remedy, mark)
    file, result = found
    judgement = judge(result, batch_size, plan.world_size, spec.config.check)
    return Checked(
        config=path,
        verdict=judgement.verdict,
        finding=judgement.finding,
        remedy=judgement.remedy,
        marks=(mark(f"{judgement.finding}. {judgement.remedy}".rstrip()),),
        judgement=judgement,
        result=file,
        doubts=tuple(doubt for doubt in result.doubts if doubt.about == "measurement"),
    )


def validate_config(path: Path, overrides: list[str]) -> Checked:
    """Whether a config is well formed, and nothing else."""
    try:
        load_spec(path, overrides, at_hand=False)
    except ConfigError as error:
        return _invalid(path, error)
    return Checked(
        config=path, verdict=Verdict.PASS, finding="the config is well formed", remedy="", marks=()
    )


def _open(path: Path, finding: str, remedy: str, mark: Callable[[str], Mark]) -> Checked:
    text = f"{finding.removesuffix('.')}. {remedy}".rstrip()
    return Checked(
        config=path, verdict=Verdict.CANNOT_TELL, finding=finding, remedy=remedy, marks=(mark(text),)
    )


def _invalid(path: Path, error: ConfigError) -> Checked:
    marks = []
    for problem in error.problems:
        place = _mark(problem.place, path)("")
        text = str(problem) if place.line is None else str(problem).removeprefix(f"{problem.place}: ")
        marks.append(Mark(line=place.line, column=place.column, text=text))
    return Checked(config=path, verdict=Verdict.INVALID, finding=str(error), remedy="", marks=tuple(marks))


def _mark(place: str, path: Path) -> Callable[[str], Mark]:
    """A maker of marks at a `file:line:column`; at no line where the place is not in the file."""
    found = re.fullmatch(re.escape(str(path)) + r":(\d+):(\d+)", place)
    line, column = (int(found[1]), int(found[2])) if found is not None else (None, None)
    return lambda text: Mark(line=line, column=column, text=text)
