"""Several processes of one call, as torchrun starts them: rank 0 reports, the others only measure."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bnoise_cli.errors import BnoiseError
from bnoise_cli.launch import here, join


def join_ranks() -> None:
    """Take this process's place among the ranks. Ranks other than 0 print nothing from here on.

    Raises:
        CallError: torchrun's variables contradict one another.
    """
    if join().is_follower:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # torch reads it when it is imported
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open until the end


@contextmanager
def prepared() -> Iterator[None]:
    """Pass an error before the process group exists (a missing config on one machine) on to rank 0, which prints it."""
    try:
        yield
    except BnoiseError as error:
        if here().is_follower:
            from bnoise_cli.measurement.meeting import stay_away

            stay_away(str(error))
        raise
