"""The doors at the top: what becomes of exceptions that nobody foresaw, and what the help shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bnoise_cli.cli import app as program
from bnoise_cli.errors import ExitCode
from tests.cases import Call

COMMANDS = ["probe", "sweep", "check", "report", "init", "explain"]


class Own(BaseException):
    """An exception of user code that is not derived from Exception."""


def ending_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def command(**_: Any) -> None:
        raise error

    monkeypatch.setattr(program, "app", program._guarded(command))
    return program.run()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Own("mine"), "Own: mine"),
        (ValueError("mine"), "ValueError: mine"),
        (SystemExit(0), "SystemExit: 0"),
        (SystemExit(1), "SystemExit: 1"),
        (SystemExit("usage: train.py"), "usage: train.py"),
        (SystemExit(None), "ended the program"),
        (ModuleNotFoundError("No module named 'numpy'", name="numpy"), "pip install numpy"),
        (ModuleNotFoundError("No module named 'mine'", name="mine"), "Traceback"),
    ],
)
def test_what_nobody_foresaw_is_a_failed_run_and_never_a_failed_check(
    error: BaseException, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending_with(error, monkeypatch) == ExitCode.RUN_FAILED
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example_and_no_type_for_flags(bnoise: Call, command: str) -> None:
    code, short, _ = bnoise(command, "-h")
    assert (code, short) == bnoise(command, "--help")[:2]
    assert "Example: bnoise " + command in short
    assert "<bool>" not in short + bnoise("--help")[1]


def test_a_budget_that_is_no_time_is_told_as_the_option_it_was_given_by(bnoise: Call) -> None:
    for command in ("probe", "sweep"):
        code, _, err = bnoise(command, "c.yaml", "--budget", "abc")
        assert code == ExitCode.WRONG_CALL
        assert "--budget needs a time of at least 1s" in err
        assert "--set" not in err


def test_completion_is_offered(bnoise: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bnoise"])
    assert "--install-completion" in bnoise("--help")[1]


@pytest.mark.parametrize("width", ["abc", "9" * 30, "-3", "0", "", "1"])
@pytest.mark.parametrize("name", ["TERMINAL_WIDTH", "COLUMNS"])
def test_any_width_of_the_terminal_leaves_the_help_as_it_is(name: str, width: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bnoise_cli", "probe", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, name: width},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "call", [("check", "c.yaml"), ("check", "x*.yaml"), ("init", "train.py"), ("probe", "c.yaml")]
)
def test_a_current_folder_that_is_gone_is_one_message(
    bnoise: Call, tmp_path: Path, call: tuple[str, ...]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        code, _, err = bnoise(*call)
    finally:
        os.chdir(tmp_path)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("call", [["--help"], ["probe", "--help"], ["--version"]])
def test_help_that_cannot_be_written_is_one_message(call: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bnoise_cli", *call],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    assert done.stderr == "bnoise: standard output could not be written (No space left on device).\n"
