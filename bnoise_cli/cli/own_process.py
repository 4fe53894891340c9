"""A process of its own for the code that a config names, so that only bnoise says how a measurement ended.

User code, or a library of it, may end its process with any code (`os._exit`, `exit` in C). 0 would say that all went
well, and 1 that a check failed. On Linux a child process therefore runs user code. The process of the call waits for
it, and goes by the outcome that the child leaves in memory that both share, not by the code that the child ends with.
Elsewhere user code runs in the process of the call, because torch does not survive a fork on every system.
"""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, TypeVar, cast

import typer

from bnoise_cli.cli.streams import tell_unforeseen
from bnoise_cli.errors import BnoiseError, ExitCode, RunError
from bnoise_cli.interrupt import ENDING, passed_on

T = TypeVar("T")
#: Bytes of the largest outcome, which holds a result of less than a megabyte.
_ROOM = 1 << 23
_PR_SET_PDEATHSIG = 1  # of prctl, in linux/prctl.h


class _State:
    allowed = False
    #: The memory that a child shares with its parent; None in any other process.
    shared: mmap.mmap | None = None


def allow() -> None:
    """Let measurements have processes of their own. `bnoise` calls this; a test that calls its commands does not."""
    _State.allowed = sys.platform == "linux"


def is_child() -> bool:
    """Whether another process waits for the outcome of this one."""
    return _State.shared is not None


def hand_over() -> None:
    """Go on in a child process. The process of the call waits, and ends with the exit code that the child leaves.

    Raises:
        typer.Exit: in the process of the call, with that code.
        RunError: in the process of the call, because the child left none.
    """
    if _State.allowed and (child := _fork()) is not None:
        raise typer.Exit(ExitCode(child.outcome()))


def apart(work: Callable[[], T]) -> T:
    """Call a function in a child process, and return or raise what it does there.

    Raises:
        RunError: the child ended before the function did, or with an error that nobody foresaw.
    """
    child = _fork() if _State.allowed else None
    if not is_child():
        if child is None:
            return work()
        outcome = child.outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        if child.asked:  # too late to end the child
            raise KeyboardInterrupt
        return cast(T, outcome)
    try:
        leave(work())
    except KeyboardInterrupt as error:
        leave(error)
    except BnoiseError as error:
        leave(error)
    except BaseException as error:
        tell_unforeseen(error)
        leave(
            RunError(f"the measurement ended with {type(error).__name__}, which is told on standard error.")
        )


def leave(outcome: Any, code: int = 0) -> NoReturn:
    """Leave the outcome of this child for its parent, and end.

    Threads of user code do not hold the end, and torch's communication threads, which were seen to abort while the
    interpreter shut down, do not change it.

    Args:
        code: the exit code of this process, which counts if no parent waits for an outcome.
    """
    _on_signals(signal.SIG_IGN)
    _flush()
    if _State.shared is not None:
        note = pickle.dumps(outcome)
        _State.shared[8 : 8 + len(note)] = note
        _State.shared[:8] = len(note).to_bytes(8, "little")
        _on_signals(signal.SIG_DFL)  # what user code does at the end can be stopped
    atexit._run_exitfuncs()
    _flush()
    os._exit(code)


def _on_signals(handler: signal.Handlers) -> None:
    for sign in ENDING:
        signal.signal(sign, handler)


class _Child:
    """A child process, seen by its parent, which passes the signals on that end a measurement.

    Attributes:
        asked: whether there were any.
    """

    def __init__(self, number: int, shared: mmap.mmap) -> None:
        self._number, self._shared, self.asked = number, shared, False
        heard = [sign for sign in ENDING if signal.getsignal(sign) is not signal.SIG_IGN]
        self._before = {sign: signal.signal(sign, self._pass_on) for sign in heard}

    def _pass_on(self, sign: int, _frame: FrameType | None) -> None:
        self.asked = True
        with suppress(ProcessLookupError):
            os.kill(self._number, sign)

    def outcome(self) -> Any:
        """Wait for the end of the child, and return the outcome that it left.

        Raises:
            RunError: it left none.
        """
        _, status = os.waitpid(self._number, 0)
        if self.asked:
            passed_on()
        for sign, handler in self._before.items():
            signal.signal(sign, handler)
        length = int.from_bytes(self._shared[:8], "little")
        if length == 0:
            raise RunError(_how_it_ended(os.waitstatus_to_exitcode(status)))
        return pickle.loads(self._shared[8 : 8 + length])


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return (
            f"the user's code ended the process with exit code {code}. Look for os._exit, os.exec or a library that "
            "calls exit, in the code that the config names."
        )
    why = " The system does so if the memory is full." if code == -signal.SIGKILL else ""
    return f"the process that ran the user's code was ended by {signal.Signals(-code).name}.{why}"


def _fork() -> _Child | None:
    """Split this process in two. Returns None in the child, and if there is no room for another process."""
    shared, parent = mmap.mmap(-1, 8 + _ROOM), os.getpid()
    _flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until both processes have their handlers
    try:
        number = os.fork()
        if number > 0:
            return _Child(number, shared)
        _State.shared, _State.allowed = shared, False
        _end_with(parent)
    except OSError:
        pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return None


def _end_with(parent: int) -> None:
    """Let the system kill this process if its parent is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before that
        os._exit(ExitCode.RUN_FAILED)


def _flush() -> None:
    # User code writes to the last two as well.
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
