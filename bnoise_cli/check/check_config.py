"""The check of one config: its stored result found and judged."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bnoise_cli.check.branch_verdict import judge_branches
from bnoise_cli.check.verdict import Judgement, Verdict, judge
from bnoise_cli.errors import BnoiseError, CallError, ConfigError, ExitCode, NothingMeasuredError, printable
from bnoise_cli.records import Doubt
from bnoise_cli.result_file import default_path
from bnoise_cli.results.branch import BranchResult
from bnoise_cli.results.result import Plan, Result
from bnoise_cli.results.shelf import Shelf
from bnoise_cli.spec.load import Spec, load_spec

_CODES = {
    Verdict.PASS: ExitCode.DONE,
    Verdict.WARN: ExitCode.DONE,
    Verdict.FAIL: ExitCode.CHECK_FAILED,
    Verdict.CANNOT_TELL: ExitCode.CANNOT_TELL,
    Verdict.INVALID: ExitCode.WRONG_CALL,
    Verdict.ERROR: ExitCode.RUN_FAILED,
}
#: Line and column.
Position = tuple[int, int] | tuple[None, None]
#: The worst exit code of several configs counts, in this order.
_GRAVEST = (
    ExitCode.RUN_FAILED,
    ExitCode.WRONG_CALL,
    ExitCode.CHECK_FAILED,
    ExitCode.CANNOT_TELL,
    ExitCode.DONE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A remark on one place in a file."""

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
    #: The file of the result that was judged, and the doubts about its measurement.
    result: Path | None = None
    doubts: tuple[Doubt, ...] = ()

    @property
    def named_finding(self) -> str:
        """The finding after the name of the config; a mistake in the config begins with it already."""
        named = self.finding.startswith(f"{self.config}:")
        return self.finding if named else f"{self.config}: {self.finding}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How strictly verdicts become exit codes."""

    #: A warning fails too.
    strict: bool = False
    #: No verdict fails; mistakes and failures still do.
    exit_zero: bool = False

    def code(self, verdict: Verdict) -> ExitCode:
        """The exit code for one config."""
        code = _CODES[verdict]
        if self.strict and verdict is Verdict.WARN:
            code = ExitCode.CHECK_FAILED
        verdicts = (ExitCode.CHECK_FAILED, ExitCode.CANNOT_TELL)
        return ExitCode.DONE if self.exit_zero and code in verdicts else code

    def gravest(self, checked: Sequence[Checked]) -> Checked:
        """The config whose exit code is the exit code of the whole check."""
        verdicts = list(Verdict)
        return min(
            checked, key=lambda each: (_GRAVEST.index(self.code(each.verdict)), -verdicts.index(each.verdict))
        )

    def exit_code(self, checked: Sequence[Checked]) -> ExitCode:
        """The exit code of the whole check."""
        return self.code(self.gravest(checked).verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked of every config."""

    overrides: tuple[str, ...] = ()
    #: Examples, or tokens, to judge instead of the batch size of the config.
    batch_size: str | None = None
    shelf: Shelf
    #: Measures if there is no result; None: do not measure.
    measure: Callable[[Spec], tuple[Path, Result]] | None = None


def check_config(path: Path, wish: Wish, target: Path) -> Checked:
    """Find the stored result of a config and judge its planned batch size.

    Whatever goes wrong with this config is an error of this config alone, so that the others are judged too.

    Args:
        target: where a probe of this config is to keep its result.
    """
    return _guarded(path, lambda: _check_config(path, wish, target))


def _guarded(path: Path, check: Callable[[], Checked]) -> Checked:
    nowhere: Position = (None, None)
    try:
        return check()
    except NothingMeasuredError:
        raise
    except ConfigError as error:
        return _invalid(path, error)
    except BnoiseError as error:
        return _checked(path, nowhere, Verdict.ERROR, str(error), "")
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        print("\n".join(map(printable, traceback.format_exc().splitlines())), file=sys.stderr)
        remedy = "This is a mistake in bnoise; please report it with the lines on standard error."
        return _checked(path, nowhere, Verdict.ERROR, f"the check ended with {what}", remedy)


def _check_config(path: Path, wish: Wish, target: Path) -> Checked:
    judged = () if wish.batch_size is None else (f"training.batch_size={wish.batch_size}",)
    spec = load_spec(path, [*wish.overrides, *judged], at_hand=False)
    place = _position(spec.source.written_place(("training", "batch_size")), path)
    open_ = partial(_checked, path, place, Verdict.CANNOT_TELL)
    plan = spec.config.training
    if "batch_size" not in plan.model_fields_set:
        remedy = "Set it to the global batch size of the run, or use --batch-size."
        return open_("training.batch_size is not set", remedy)
    try:
        found = wish.shelf.find(spec)
    except CallError as error:
        return open_(str(error), "")
    if found is None and wish.measure is not None:
        try:
            found = wish.measure(spec)
        except CallError as error:
            return _checked(path, place, Verdict.INVALID, str(error), "")
    if found is None:
        why, another = wish.shelf.why_not(spec, target)
        call = _command(path, wish.overrides, target)
        again = " again" if another else ""
        return open_(why, f"Measure{again} with `{call}` and keep its result, or check with --probe.")
    file, result = found
    amounts = Plan.of(spec.resolved()).amounts(result.provenance)
    if isinstance(result, BranchResult):
        judgement = judge_branches(result, plan.batch_size, plan.world_size, amounts)
    else:
        judgement = judge(result, plan.batch_size, plan.world_size, spec.config.check, amounts)
    return replace(
        _checked(path, place, judgement.verdict, judgement.finding, judgement.remedy),
        judgement=judgement,
        result=file,
        doubts=tuple(doubt for doubt in result.doubts if doubt.about == "measurement"),
    )


def validate_config(path: Path, overrides: Sequence[str]) -> Checked:
    """Whether a config is well formed, and nothing else."""

    def validate() -> Checked:
        load_spec(path, overrides, at_hand=False)
        said = "the config is well formed"
        return Checked(config=path, verdict=Verdict.PASS, finding=said, remedy="", marks=())

    return _guarded(path, validate)


def _command(path: Path, overrides: Sequence[str], target: Path) -> str:
    """The call that makes a result, as a shell reads it."""
    out = [] if target == default_path(path, "probe") else ["--out", str(target)]
    settings = [word for override in overrides for word in ("--set", override)]
    return shlex.join(["bnoise", "probe", str(path), *settings, *out])


def _checked(path: Path, place: Position, verdict: Verdict, finding: str, remedy: str) -> Checked:
    """A verdict with one mark."""
    text = f"{finding.removesuffix('.')}. {remedy}".rstrip()
    mark = Mark(line=place[0], column=place[1], text=text)
    return Checked(config=path, verdict=verdict, finding=finding, remedy=remedy, marks=(mark,))


def _invalid(path: Path, error: ConfigError) -> Checked:
    marks = []
    for problem in error.problems:
        line, column = _position(problem.place, path)
        text = str(problem) if line is None else str(problem).removeprefix(f"{problem.place}: ")
        marks.append(Mark(line=line, column=column, text=text))
    return Checked(config=path, verdict=Verdict.INVALID, finding=str(error), remedy="", marks=tuple(marks))


def _position(place: str, path: Path) -> Position:
    """Line and column of `file:line:column`; None if that names another file."""
    found = re.fullmatch(re.escape(str(path)) + r":(\d+):(\d+)", place)
    return (int(found[1]), int(found[2])) if found is not None else (None, None)
