"""Measure, advise, time, advise again: what a command and a call from Python have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from bnoise_cli.errors import BnoiseError, RunError
from bnoise_cli.records import Doubt, Law, Throughput
from bnoise_cli.report.progress import ProgressLine
from bnoise_cli.result_file import ResultFile
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
    def time_steps(self, run: E, law: Law | None) -> Throughput: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[R]):
    """The outcome of a measurement."""

    result: R
    interrupted: bool
    failure: BnoiseError | None
    #: A sentence that names the file of the result; empty if it is kept in none.
    kept: str
    #: Why the result is in no file, so that it must be printed; None if it is in one.
    lost: RunError | None


def measure(
    session: Measuring[E],
    make: Callable[[E], R],
    target: ResultFile | None,
    line: ProgressLine,
    *,
    timed: bool,
) -> Found[R]:
    """Measure, advise, time, advise again, and store after each, so that a later failure costs nothing known.

    All ranks do so, but only the first one stores.

    Args:
        make: a result of what was measured.
        target: the file to store it in; None: it is not stored.
        timed: whether the result has a use for step times.
    """
    from bnoise_cli.advice.advise import advise

    def keep() -> tuple[str, RunError | None]:
        return _store(target, result) if target is not None and session.ranks.rank == 0 else ("", None)

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
            result = replace(result, throughput=session.time_steps(run, result.critical_batch_size.known))
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
