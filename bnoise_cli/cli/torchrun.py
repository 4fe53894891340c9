"""Several processes of one call, as torchrun starts them: the first speaks, the others only measure."""

from __future__ import annotations

import os
import sys

from bnoise_cli.errors import CallError

#: Commands that several processes make together.
_TOGETHER = ("probe", "sweep")


def is_follower() -> bool:
    """Whether this process reports to another one."""
    return os.environ.get("RANK", "0") != "0"


def mute() -> None:
    """Say nothing from now on: what every process prints comes from the first."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open until the end


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
