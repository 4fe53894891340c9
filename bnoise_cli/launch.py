"""How this process was started: by itself, or by torchrun as one of several.

The only place that reads torchrun's variables, and only for the commands that measure together: a shell or a CI job may
have them set for something else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from bnoise_cli.errors import CallError


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The place of this process among those of one call."""

    rank: int = 0
    size: int = 1
    # The number of this process on its machine, and so of its GPU; None if torchrun did not say.
    local_rank: int | None = None
    local_size: int = 1
    # torchrun's agent keeps the store in which ranks leave messages; otherwise rank 0 does.
    agent_store: bool = False

    @property
    def is_follower(self) -> bool:
        """Whether another process reports for this one."""
        return self.rank != 0


_here = Launch()


def here() -> Launch:
    """The place of this process; alone unless `join` was called."""
    return _here


def join() -> Launch:
    """Take the place that torchrun's variables name. Called by `probe` and `sweep` before anything else.

    Raises:
        CallError: the variables are not numbers, or contradict one another.
    """
    global _here
    rank, size = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if not 0 <= rank < size:
        raise CallError(
            f"RANK must be from 0 to WORLD_SIZE - 1; found RANK={rank} and WORLD_SIZE={size}. "
            "Start several processes with torchrun, or unset both."
        )
    _here = Launch(
        rank=rank,
        size=size,
        local_rank=_number("LOCAL_RANK", rank) if "LOCAL_RANK" in os.environ else None,
        local_size=max(_number("LOCAL_WORLD_SIZE", 1), 1),
        agent_store=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )
    return _here


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise CallError(
            f"{name} must be a whole number, as torchrun sets it; found {text!r}. Start several processes with "
            "torchrun, or unset it."
        )
    return int(text)
