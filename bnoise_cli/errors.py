"""Everything that can go wrong in a way we foresaw, with the exit code it becomes.

    BnoiseError                        4
    ├── ConfigError                    2    mistakes in a config, all at once
    ├── CallError                      2    the command line asks for something impossible
    ├── RunError                       4    the measurement failed
    │   ├── NotFiniteError             4    a loss or a gradient is NaN or infinite
    │   ├── DivergedError              4    a loss along an update is not finite (probing/line_evaluation.py)
    │   ├── MistakeError               4    bnoise itself failed; what was measured before that is kept
    │   └── StoppedError               4    passes cannot go on; trying something else does not help
    │       ├── CutShortError          4    one rank stopped in the middle of an exchange
    │       ├── LostRankError          4    another rank has ended
    │       └── OutOfTimeError         3    the time of the budget does not hold the next pass
    ├── NothingMeasuredError         130    Ctrl-C before there was anything to keep
    ├── NoAdviceError                  3    nothing to emit (report/export/emit.py)
    └── OtherConfigError               3    a result of another config (cli/report.py)

Three more are signals between two functions, and are always caught: OutOfMemoryError (task/user_code.py; fewer examples
are tried), BudgetSpentError (sweeping/sweep.py) and TargetError (spec/imports.py; it becomes a Problem). What is in no
row here keeps its traceback and ends with 4. Exit code 1 is not an error: it says that a check failed.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the process; a contract with scripts."""

    DONE = 0
    CHECK_FAILED = 1
    WRONG_CALL = 2
    CANNOT_TELL = 3
    RUN_FAILED = 4
    INTERRUPTED = 130


class BnoiseError(Exception):
    """A foreseen failure; its text says what was needed, what was found and what to change."""

    exit_code = ExitCode.RUN_FAILED


class CallError(BnoiseError):
    """The command line asks for something impossible."""

    exit_code = ExitCode.WRONG_CALL


class RunError(BnoiseError):
    """The measurement itself failed: out of memory, NaN, an exception in the user's code."""

    exit_code = ExitCode.RUN_FAILED


class NotFiniteError(RunError):
    """A loss or a gradient is NaN or infinite."""


class MistakeError(RunError):
    """What nobody foresaw, after something was measured that is kept."""

    @classmethod
    def of(cls, error: Exception) -> MistakeError:
        """The exception in one line, with the place in the code that raised it."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        return cls(
            f"this is a mistake in bnoise; please report it: {type(error).__name__}: {message_of(error)} "
            f"({place.filename}:{place.lineno}, in {place.name})."
        )


class StoppedError(RunError):
    """Passes cannot go on. Code that tries something else after a failed pass lets this one through."""


class CutShortError(StoppedError):
    """One rank could not go on in the middle of an exchange; nothing more can be exchanged."""


class OutOfTimeError(StoppedError):
    """The time of a budget, or of a phase's share of it, does not hold the next pass."""

    exit_code = ExitCode.CANNOT_TELL


class LostRankError(StoppedError):
    """Another process that measures together with this one has ended, or says nothing any more."""

    @classmethod
    def of(cls, said: str) -> LostRankError:
        """From what the exchange with it said."""
        return cls(
            "another rank has ended or has said nothing for too long. Look for what it or torchrun printed, and start "
            f"again. The exchange said: {re.sub(r'^[^ ]*[.]cc:[0-9]+[^ ]* ', '', said).split('. ')[0]}."
        )


class NothingMeasuredError(BnoiseError):
    """Ctrl-C came before there was anything to keep."""

    exit_code = ExitCode.INTERRUPTED


def printable(text: str) -> str:
    """Text on one line, what cannot be printed escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


#: Characters of a message of user code; one of a state dict that does not fit names all its keys.
_LONGEST_MESSAGE = 10_000


def message_of(error: BaseException) -> str:
    """The text of an exception of user code, which may be long, or fail to be made."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as again:
        return f"a message that cannot be shown ({type(again).__name__})"
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."


def reason(error: Exception) -> str:
    """Why a file could not be read or written. User code may have replaced functions of `os`: any error is possible."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {message_of(error)}"


def harmless(text: str) -> str:
    """Text of a stranger's for a terminal or a log: on one line, and without what a CI runner takes for a command.

    Runners of GitHub and Azure look for `::name::` and `##name[`, TeamCity for `##teamcity[`.
    """
    text = re.sub(r":(?=:)", ": ", printable(text))
    return re.sub(r"##(?=\w*\[)", "# #", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in a config.

    `place` is `file:line:column`, or the `--set` that made the value.
    """

    place: str
    found: str
    expected: str
    nearest: str | None = None

    def __post_init__(self) -> None:
        """Text of a config must not steer a terminal or a log."""
        for name in ("place", "found", "expected", "nearest"):
            text = getattr(self, name)
            if text is not None:
                object.__setattr__(self, name, printable(text))

    def __str__(self) -> str:
        text = f"{self.place}: found {self.found}; expected {self.expected}"
        return text + (f"; did you mean {self.nearest}?" if self.nearest else "")


class ConfigError(BnoiseError):
    """The config is wrong; carries every mistake that was found."""

    exit_code = ExitCode.WRONG_CALL

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type, tuple[Sequence[Problem]]]:
        """The exception is handed from one process to another."""
        return type(self), (self.problems,)
