"""Whatever ends the process of user code, only bnoise gives the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cases import QUADRATIC_CONFIG, Write
from tests.processes import Running, start, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="user code has a process of its own on Linux")

# Each line calls the function of that name in a process of its own, and tells what came of it.
SCRIPT = """
import atexit, ctypes, json, os, signal, sys, threading, time
from bnoise_cli.cli import own_process
from bnoise_cli.errors import ConfigError, NothingMeasuredError, Problem

def value(): return {"a": 1}
def config_error(): raise ConfigError([Problem(place="c.yaml:1:2", found="x", expected="y")])
def interrupted(): raise NothingMeasuredError("interrupted.")
def left(): os._exit(0)
def left_with_1(): os._exit(1)
def left_in_c(): ctypes.CDLL(None).exit(1)
def replaced(): os.execv(sys.executable, [sys.executable, "-c", ""])
def crashed(): os.kill(os.getpid(), signal.SIGSEGV)
def killed(): os.kill(os.getpid(), signal.SIGKILL)
def unforeseen(): return 1 / 0
def exits(): sys.exit(0)
def closed(): os.closerange(0, 100); return 5
def held(): threading.Thread(target=lambda: time.sleep(100)).start(); return 6
def late(): atexit.register(lambda: os._exit(1)); return 7
own_process.allow()
for name in sys.argv[1:]:
    try: outcome = own_process.apart(globals()[name])
    except BaseException as error: outcome = f"{type(error).__name__} {error}"
    print(json.dumps([name, outcome]), flush=True)
"""
OUTCOMES = {
    "value": {"a": 1},
    "config_error": "ConfigError c.yaml:1:2: found x; expected y",
    "interrupted": "NothingMeasuredError interrupted.",
    "left": "RunError the user's code ended the process with exit code 0.",
    "left_with_1": "RunError the user's code ended the process with exit code 1.",
    "left_in_c": "RunError the user's code ended the process with exit code 1.",
    "replaced": "RunError the user's code ended the process with exit code 0.",
    "crashed": "RunError the process that ran the user's code was ended by SIGSEGV.",
    "killed": "RunError the process that ran the user's code was ended by SIGKILL.",
    "unforeseen": "RunError the measurement ended with ZeroDivisionError",
    "exits": "RunError the measurement ended with SystemExit",
    "closed": 5,
    "held": 6,
    "late": 7,
}


def test_every_end_of_a_process_is_an_outcome() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *OUTCOMES], capture_output=True, text=True, check=True, timeout=60
    )
    told = dict(json.loads(line) for line in done.stdout.splitlines())
    assert list(told) == list(OUTCOMES)
    for name, expected in OUTCOMES.items():
        found = told[name][: len(expected)] if isinstance(expected, str) else told[name]
        assert found == expected
    assert done.stderr.count("this is a mistake in bnoise") == 2


@pytest.mark.full
@pytest.mark.parametrize("command", ["probe", "sweep"])
@pytest.mark.parametrize("code", [0, 1])
def test_user_code_that_ends_the_process_is_a_failed_run(write: Write, command: str, code: int) -> None:
    write("u.py", f"import os\nos._exit({code})\ndef loss(model, batch): ...\n")
    text = QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "u.py:loss")
    path = str(write("c.yaml", text))
    ended, out, err = start([command, path], Path.cwd(), Path("streams"), {}).end(60)
    assert (ended, out) == (4, "")
    assert f"the user's code ended the process with exit code {code}" in err


def probing(write: Write, folder: Path) -> Running:
    """A probe whose user code has begun, and sleeps for a minute."""
    write(
        "u.py",
        "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\ndef loss(model, batch): ...\n",
    )
    text = QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "u.py:loss")
    running = start(["probe", str(write("c.yaml", text))], folder, folder / "streams", {})
    wait_for(folder / "begun")
    return running


@pytest.mark.full
def test_a_process_that_is_killed_takes_its_child_along(write: Write, tmp_path: Path) -> None:
    running = probing(write, tmp_path)
    own = running.process.pid
    [child] = map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())
    running.send(signal.SIGKILL)
    assert running.end(60)[0] == -signal.SIGKILL
    for _ in range(500):
        if not is_alive(child):
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlives its parent")


@pytest.mark.full
def test_signals_that_follow_the_first_do_not_change_the_exit_code(write: Write, tmp_path: Path) -> None:
    running = probing(write, tmp_path)
    for _ in range(3000):
        running.send(signal.SIGTERM)
        time.sleep(0.001)
        if not running.is_alive():
            break
    assert running.end(60)[0] == 130


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended may wait for init to take note."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("arguments", [["--help"], ["probe", "--help"], ["--version"]])
def test_a_reader_of_the_help_may_leave(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "bnoise_cli", *arguments], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
