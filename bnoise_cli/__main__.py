"""`python -m bnoise_cli` is the same program as `bnoise`."""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the program and leave with the exit code of the contract."""
    signal.signal(signal.SIGINT, _interrupt_once)
    try:
        gc.disable()  # imports make no garbage, and looking for it is a tenth of a short run
        from bnoise_cli.cli.app import run

        gc.enable()
        code = run()
    except KeyboardInterrupt:
        print("bnoise: interrupted before anything was measured.", file=sys.stderr)
        code = 130
    sys.exit(code)


def _interrupt_once(_signal: int, _frame: FrameType | None) -> None:
    """The first Ctrl-C ends the measurement; a second one must not end the storing of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
