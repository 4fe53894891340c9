"""The program in processes of its own, forked from one that has imported everything: an import takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from unittest.mock import patch

import torch

from bnoise_cli.__main__ import main

#: What calls of the program import, so that no call has to. torch imports the first with the first optimizer.
_PRELOADED = [
    "torch._dynamo",
    "torch.distributed.fsdp",
    "bnoise_cli.cli.app",
    "bnoise_cli.api.measure",
    "bnoise_cli.advice.advise",
    "bnoise_cli.measurement.probing.session",
    "bnoise_cli.measurement.sweeping.branches",
    "bnoise_cli.measurement.sweeping.sweep",
    "bnoise_cli.report.plots.draw",
    "bnoise_cli.report.words.probe",
    "bnoise_cli.report.words.sweep",
    "bnoise_cli.report.words.verdict",
    "tests.full.processes.faults",
    "tests.storing",
    __name__,
]


@cache
def server() -> ForkServerContext:
    """Where processes are forked from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    # torch reads the level when it is imported. The program sets it for all ranks but the first, before that.
    with patch.dict(os.environ, TORCH_CPP_LOG_LEVEL="FATAL"):
        forkserver.ensure_running()
    return context


@dataclass(frozen=True, slots=True)
class Running:
    """A call of the program that may still be under way."""

    process: ForkServerProcess
    streams: Path

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def send(self, sign: int) -> None:
        """Send a signal, which a process that has ended does not hear."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, sign)

    def end(self, timeout: float) -> tuple[int | None, str, str]:
        """Wait for the end; kill what has not ended by then.

        Returns:
            The exit code, which is negative for a signal, stdout and stderr.
        """
        self.process.join(timeout)
        self.process.kill()
        self.process.join()
        out, err = ((self.streams / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return self.process.exitcode, out, err


def _nothing() -> None:
    pass


def start(
    arguments: Sequence[str],
    folder: Path,
    streams: Path,
    environment: dict[str, str],
    before: Callable[[], None] = _nothing,
) -> Running:
    """Call the program.

    Args:
        arguments: those of the command line.
        folder: the working folder.
        streams: a folder for what it prints.
        environment: variables added to those of this process.
        before: called in the new process before the program; a function of a module.
    """
    streams.mkdir(parents=True, exist_ok=True)
    process = server().Process(target=_program, args=(list(arguments), folder, streams, environment, before))
    process.start()
    return Running(process, streams)


def free_port() -> str:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def wait_for(path: Path) -> None:
    """Wait until another process has made a file; a minute is far more than any machine needs."""
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never came")


def _program(
    arguments: list[str], folder: Path, streams: Path, environment: dict[str, str], before: Callable[[], None]
) -> None:
    os.environ.update({"OMP_NUM_THREADS": "1", "COLUMNS": "100"} | environment)
    os.chdir(folder)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(streams / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.stdout, sys.stderr = (
        open(stream, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115  open until the end
        for stream in (1, 2)
    )
    sys.argv = ["bnoise", *arguments]
    torch.set_num_threads(1)
    before()
    main()
