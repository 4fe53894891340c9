"""`python -m bnoise_cli` is the same program as `bnoise`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

#: Ctrl-C; and what torchrun and job schedulers send before they kill.
_ENDING = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTED = 130


def main() -> None:
    """Run the program and leave with the exit code of the contract."""
    for sign in _ENDING:
        signal.signal(sign, _interrupt_once)
    try:
        gc.disable()  # imports make no garbage, and looking for it is a tenth of a short run
        from bnoise_cli.cli.app import run
        from bnoise_cli.cli.torchrun import is_follower, mute

        gc.enable()
        if is_follower():
            mute()
        code = run()
    except KeyboardInterrupt:
        print("bnoise: interrupted before anything was measured.", file=sys.stderr)
        code = _INTERRUPTED
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    _leave(code)


def _leave(code: int) -> None:
    """End one process of several, with all said and stored; of a failure the first one tells.

    At once: the threads of torch's exchanges were seen to abort while the interpreter was taken down.
    """
    from bnoise_cli.cli.torchrun import is_follower

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        code = 0 if is_follower() else code
    elif not (is_follower() and code == _INTERRUPTED):
        from bnoise_cli.measurement.task.ranks import last_word

        with suppress(KeyboardInterrupt):
            code = last_word(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _interrupt_once(_signal: int, _frame: FrameType | None) -> None:
    """The first Ctrl-C ends the measurement; a second one must not end the storing of it."""
    for sign in _ENDING:
        signal.signal(sign, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
