"""SIGKILL by strace at every system call of storing, in a real process: the old or the new is there, never neither."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.storing import SCENARIOS

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

#: System calls that name a file or a descriptor, and so all that change one.
CALLS = "%file,%desc"
BEGIN, END = "/the-storing-begins", "/the-storing-ends"
#: Prepares what lies there, then stores; the system calls between the two marks are killed, one in each process.
SCRIPT = f"""
import os, sys
from tests.storing import SCENARIOS
SCENARIOS[sys.argv[1]].before()
os.path.exists({BEGIN!r})
SCENARIOS[sys.argv[1]].store()
os.path.exists({END!r})
"""


def traced(scenario: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The script in a new process; its system calls are in the file `calls`."""
    return subprocess.run(
        [
            "strace",
            "-qq",
            "-o",
            "calls",
            "-e",
            f"trace={CALLS}",
            *options,
            sys.executable,
            "-c",
            SCRIPT,
            scenario,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_every_system_call_of_storing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = SCENARIOS[name]
    (tmp_path / "whole").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    if (calm := traced(name)).returncode != 0:
        pytest.skip(f"strace cannot trace here: {calm.stderr[-200:]}")
    calls = Path("calls").read_text().splitlines()
    begin, end = (next(i for i, line in enumerate(calls) if f'"{mark}"' in line) for mark in (BEGIN, END))
    assert end - begin > 5
    names = [call.partition("(")[0] for call in calls]
    for at in range(begin + 1, end + 1):
        (tmp_path / str(at)).mkdir()
        monkeypatch.chdir(tmp_path / str(at))
        which = names[: at + 1].count(names[at])  # strace counts the calls of each name
        killed = traced(name, "-e", f"inject={names[at]}:signal=SIGKILL:when={which}")
        assert killed.returncode == -signal.SIGKILL
        assert f'"{BEGIN}"' in Path("calls").read_text()
        assert scenario.holds(), calls[at]
        with suppress(FileExistsError):  # a config that is there is kept
            scenario.store()
        assert scenario.done(), calls[at]
