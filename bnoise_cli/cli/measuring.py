"""From a session to a stored and printed result: what the probe and the sweep have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bnoise_cli.cli.exports import Outputs, result_name, tell_unmet
from bnoise_cli.errors import BnoiseError, ExitCode, RunError
from bnoise_cli.launch import here
from bnoise_cli.records import Doubt, Throughput
from bnoise_cli.report.document import Section
from bnoise_cli.report.export.as_json import JSON
from bnoise_cli.report.progress import LOADING, ProgressLine
from bnoise_cli.result_file import ResultFile
from bnoise_cli.results.related import beside
from bnoise_cli.results.result import Result

if TYPE_CHECKING:
    from bnoise_cli.measurement.ranks import Ranks


class Ended(Protocol):
    """A measurement that is over."""

    @property
    def interrupted(self) -> bool: ...
    @property
    def failure(self) -> RunError | None: ...


E = TypeVar("E", bound=Ended)
R = TypeVar("R", bound=Result)


class Measuring(Protocol[E]):
    """A session that measures, and then times training steps."""

    ranks: Ranks

    def run(self, on_progress: ProgressLine) -> E: ...
    def time_steps(self, run: E, critical: float | None) -> Throughput: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The outcome of a measuring command."""

    result: Result
    interrupted: bool
    failure: BnoiseError | None
    #: A sentence that names the file of the result.
    kept: str
    #: Why the result is in no file, so that it must be printed; None if it is in one.
    lost: RunError | None


@contextmanager
def on_device(device: str, *, quiet: bool) -> Iterator[tuple[Any, Ranks, ProgressLine]]:
    """Load torch, choose this rank's `torch.device` and meet the other ranks; user code may run in the block.

    Args:
        device: as the option --device names it.
        quiet: show no progress.
    """
    from bnoise_cli.cli.streams import around_user_code

    with around_user_code(), ProgressLine(quiet=quiet) as line:
        line.say(LOADING)
        from bnoise_cli.measurement.building.build import choose_device
        from bnoise_cli.measurement.meeting import joined

        with joined(lambda: choose_device(device)) as (own, ranks):
            yield own, ranks, line


def show_plan(plan: Any, sections: Sequence[Section], outputs: Outputs) -> ExitCode:
    """Print what a dry run found: a dataclass, or what there is to say about it."""
    from bnoise_cli.cli.streams import show_json, show_sections

    if outputs.value(JSON):
        show_json(asdict(plan))
    else:
        show_sections(sections)
    return ExitCode.DONE


def finish(found: Found, target: ResultFile, outputs: Outputs, *, quiet: bool) -> ExitCode:
    """Make and print everything that was asked for; the exit code says how the measurement ended."""
    from bnoise_cli.cli.streams import show_json, tell

    if here().is_follower:
        return ExitCode.INTERRUPTED if found.interrupted else ExitCode.DONE
    named = [(result_name(target.path), found.result)]
    if found.lost is not None:
        show_json(found.result.to_json())
        tell(f"bnoise: {found.lost} The result is printed instead; keep it from there.")
        return ExitCode.RUN_FAILED
    made, failed = outputs.write(named)
    code = _code(found, failed)
    try:
        others = [(str(target.named(path)), other) for path, other in beside(target.path, found.result)]
        outputs.print(named, beside=others, quiet=quiet)
    except BnoiseError as error:
        failed.append(f"bnoise: {error}")
        code = code or error.exit_code
    tell(" ".join([found.kept, *made]), quiet=quiet or outputs.value(JSON) is not None)
    for sentence in failed:
        tell(sentence)
    if found.failure is not None:
        tell(f"bnoise: {found.failure}")
    return code


def _code(found: Found, failed: Sequence[str]) -> ExitCode:
    if found.interrupted:
        return ExitCode.INTERRUPTED
    if found.failure is not None or failed:
        return ExitCode.RUN_FAILED
    if not found.result.resolved:
        return ExitCode.CANNOT_TELL
    return ExitCode.WRONG_CALL if tell_unmet([found.result]) else ExitCode.DONE


def measure(
    session: Measuring[E], make: Callable[[E], R], target: ResultFile, line: ProgressLine, *, timed: bool
) -> Found:
    """Measure, advise, time, advise again, and store after each, so that a later failure costs nothing known.

    All ranks do so, but only the first one stores.

    Args:
        make: a result of what was measured.
        timed: whether the result has a use for step times.
    """
    from bnoise_cli.advice.advise import advise

    def keep() -> tuple[str, RunError | None]:
        return _store(target, result) if session.ranks.rank == 0 else ("", None)

    run = session.run(line)
    interrupted: bool = run.interrupted
    failure: RunError | None = run.failure
    result = make(run)
    keep()
    result = advise(result)
    kept, lost = keep()
    if timed and not interrupted and failure is None:
        line.say("timing training steps")
        try:
            result = replace(result, throughput=session.time_steps(run, result.critical_batch_size.value))
        except KeyboardInterrupt:
            result, interrupted = _untimed(result, "interrupted"), True
        except RunError as error:
            failure = session.ranks.publish(error)
            result = _untimed(result, failure)
        keep()
        result = advise(result)
        kept, lost = keep()
    return Found(result=result, interrupted=interrupted, failure=failure, kept=kept, lost=lost)


def _store(target: ResultFile, result: Result) -> tuple[str, RunError | None]:
    """Keep a result. Returns a sentence that names its file, and the error if it could not be written."""
    try:
        return target.store(result.to_json()), None
    except RunError as error:
        return "", error


def _untimed(result: R, why: object) -> R:
    """A result whose steps could not be timed."""
    doubt = Doubt(
        code="untimed",
        finding=f"training steps could not be timed: {str(why).removesuffix('.')}",
        remedy="The critical batch size stands; the trade-off is in steps and examples only.",
    )
    return replace(result, doubts=(*result.doubts, doubt))
