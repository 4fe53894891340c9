"""`python -m bnoise_cli` is the same program as `bnoise`."""

from __future__ import annotations

import gc
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
        from bnoise_cli.cli.own_process import allow

        gc.enable()
        allow()
        code = run()
    except KeyboardInterrupt:
        print("bnoise: interrupted before anything was measured.", file=sys.stderr)
        code = _INTERRUPTED
    from bnoise_cli.cli.own_process import is_child, leave
    from bnoise_cli.launch import here

    if here().size > 1:
        code = _common(code, here())
    if here().size > 1 or is_child():
        leave(code, code)
    ignore_more()
    sys.exit(code)


def _common(code: int, launch: Launch) -> int:
    """The exit code of one of several processes. Only rank 0 reports a failure."""
    if not launch.agent_store:
        return 0 if launch.is_follower else code
    if not (launch.is_follower and code == _INTERRUPTED):
        from bnoise_cli.measurement.meeting import common_exit_code

        with suppress(KeyboardInterrupt):
            return common_exit_code(code)
    return code


if __name__ == "__main__":
    main()
