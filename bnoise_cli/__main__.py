"""`python -m bnoise_cli` is the same program as `bnoise`."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from bnoise_cli.interrupt import ignore_more, listen

if TYPE_CHECKING:
    from bnoise_cli.launch import Launch

_INTERRUPTED = 130


def main() -> None:
    """Run the program and leave with the exit code of the contract."""
    listen()
    try:
        gc.disable()  # imports make no garbage, and looking for it is a tenth of a short run
        from bnoise_cli.cli.app import run

        gc.enable()
        code = run()
    except KeyboardInterrupt:
        print("bnoise: interrupted before anything was measured.", file=sys.stderr)
        code = _INTERRUPTED
    from bnoise_cli.launch import here

    if here().size == 1:
        ignore_more()
        sys.exit(code)
    _leave(code, here())


def _leave(code: int, launch: Launch) -> None:
    """Exit one of several processes after its output is flushed. Only rank 0 reports a failure.

    Uses `os._exit`: torch's communication threads were seen to abort while the interpreter shut down.
    """
    if not launch.agent_store:
        code = 0 if launch.is_follower else code
    elif not (launch.is_follower and code == _INTERRUPTED):
        from bnoise_cli.measurement.meeting import common_exit_code

        with suppress(KeyboardInterrupt):
            code = common_exit_code(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
