"""SIGKILL by strace at every system call of storing, in a real process: the old or the new is there, never neither."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes import server
from tests.storing import BEGIN, END, SCENARIOS, store_once_traced

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

#: System calls that name a file or a descriptor, and so all that change one.
CALLS = "%file,%desc"


def traced(scenario: str, folder: Path, *options: str) -> tuple[int | None, list[str]]:
    """A scenario in a new process, under strace from where it stores.

    Returns:
        The exit code, which is negative for a signal, and the system calls.
    """
    folder.mkdir()
    calls = folder / "calls"
    process = server().Process(target=store_once_traced, args=(scenario, folder))
    process.start()
    assert process.pid is not None
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)
    command = ["strace", "-o", str(calls), "-e", f"trace={CALLS}", *options, "-p", str(process.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        told = strace.stderr.readline()
        os.kill(process.pid, signal.SIGCONT)
        process.join()
    if "attached" not in told:
        pytest.skip(f"strace cannot trace here: {told}")
    return process.exitcode, calls.read_text().splitlines()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_every_system_call_of_storing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = SCENARIOS[name]
    code, calls = traced(name, tmp_path / "whole")
    assert code == 0
    begin, end = (next(i for i, line in enumerate(calls) if f'"{mark}"' in line) for mark in (BEGIN, END))
    assert end - begin > 5
    names = [call.partition("(")[0] for call in calls]
    spared = []
    for at in range(begin + 1, end + 1):
        which = names[: at + 1].count(names[at])  # strace counts the calls of each name
        folder = tmp_path / str(at)
        code, killed = traced(name, folder, "-e", f"inject={names[at]}:signal=SIGKILL:when={which}")
        if code == 0:  # no kill: one call of the name fewer than in the whole run, or strace missed it
            spared.append((calls[at], killed))
            continue
        assert code == -signal.SIGKILL
        assert any(f'"{BEGIN}"' in line for line in killed)
        monkeypatch.chdir(folder)
        assert scenario.holds(), calls[at]
        with suppress(FileExistsError):  # a config that is there is kept
            scenario.store()
        assert scenario.done(), calls[at]
    assert len(spared) <= 1, spared
