"""Which commands look at torchrun's variables, and what becomes of wrong ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnoise_cli import launch
from bnoise_cli.errors import CallError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE")


@pytest.fixture(autouse=True)
def by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "_here", launch.Launch())


def test_the_place_is_that_of_the_variables_once_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, ("3", "8", "1", "2", "True"), strict=True):
        monkeypatch.setenv(name, value)
    assert launch.here() == launch.Launch()
    found = launch.Launch(rank=3, size=8, local_rank=1, local_size=2, agent_store=True)
    assert launch.join() == launch.here() == found
    assert found.is_follower


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"RANK": "one"}, "RANK must be a whole number.*'one'"),
        ({"RANK": "0", "WORLD_SIZE": "-1"}, "WORLD_SIZE must be a whole number.*'-1'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2"),
        ({"RANK": "1"}, "RANK=1 and WORLD_SIZE=1"),
        ({"WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0"),
    ],
)
def test_variables_that_contradict_one_another_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CallError, match=named):
        launch.join()


@pytest.mark.parametrize("command", [["check", "c.yaml"], ["report", "none.json"], ["init", "--schema"]])
@pytest.mark.parametrize("variables", [{"RANK": "1", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "4"}])
def test_commands_of_one_process_do_not_look_at_them(
    tmp_path: Path, command: list[str], variables: dict[str, str]
) -> None:
    """A follower is silent and exits with 0, which would let any plan pass a check."""
    (tmp_path / "c.yaml").write_text("version: 1\nmodel: 3\n")

    def called(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bnoise_cli", *command],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    alone, set_anyway = called({}), called(variables)
    assert (set_anyway.returncode, set_anyway.stdout, set_anyway.stderr) == (
        alone.returncode,
        alone.stdout,
        alone.stderr,
    )
    assert alone.returncode == (0 if command[0] == "init" else 2)
