"""Ctrl-C and the signals of job schedulers: one interrupt, which ends the measurement and not the storing of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C; what torchrun and job schedulers send before they kill; the end of the terminal or the connection.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_state = {"asked": False}
_getpid = os.getpid  # which user code may replace


def listen() -> None:
    """Turn the first signal into KeyboardInterrupt. Later ones are ignored, so that storing is not cut short."""
    for sign in ENDING:
        if signal.getsignal(sign) is not signal.SIG_IGN:  # as under nohup
            signal.signal(sign, _interrupt)


@contextmanager
def not_swallowed() -> Iterator[None]:
    """Around user code, which may catch the KeyboardInterrupt and go on, or raise an error of its own instead.

    Raises:
        KeyboardInterrupt: a signal came while the code ran.
    """
    before = _state["asked"]
    try:
        yield
    finally:
        if _state["asked"] and not before and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt


@contextmanager
def in_one_process() -> Iterator[None]:
    """Around user code, which may fork. A child that comes back out of it ends here: it must say and store nothing."""
    own = _getpid()
    try:
        yield
    finally:
        if _getpid() != own:
            os._exit(0)


def passed_on() -> None:
    """Take note that a signal has ended a child process, so that no later one interrupts this process."""
    _state["asked"] = True


def ignore_more() -> None:
    """Ignore what follows a first signal until the process is gone.

    Python gives signals their default back when it shuts down: an impatient user's second Ctrl-C would then end the
    program with the signal instead of its exit code.
    """
    if _state["asked"]:
        for sign in ENDING:
            signal.signal(sign, signal.SIG_IGN)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    if not _state["asked"]:
        _state["asked"] = True
        raise KeyboardInterrupt
