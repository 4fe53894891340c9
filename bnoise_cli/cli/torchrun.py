"""Several processes of one call, as torchrun starts them: the first speaks, the others only measure."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bnoise_cli.errors import BnoiseError, CallError

#: Commands that several processes make together.
_TOGETHER = ("probe", "sweep")


def is_follower() -> bool:
    """Whether this process reports to another one."""
    return os.environ.get("RANK", "0") != "0"


def mute() -> None:
    """Say nothing from now on: what every process prints comes from the first."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # torch reads it when it is imported
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open until the end


@contextmanager
def prepared() -> Iterator[None]:
    """What goes wrong on one machine before the processes meet is told by the first one, which waits for them."""
    try:
        yield
    except BnoiseError as error:
        if is_follower():
            from bnoise_cli.measurement.task.ranks import stay_away

            stay_away(str(error))
        raise


def require_alone(command: str | None) -> None:
    """
    Raises:
        CallError: several processes were started for a command of one.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size != "1" and command not in _TOGETHER:
        raise CallError(
            f"{size} processes were started together for `bnoise {command}`, which one does alone; together they make "
            f"{' or '.join(_TOGETHER)}. Call it without torchrun."
        )
