"""Storing, and what lies there before: for processes that are killed in the middle of it."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bnoise_cli.ledger import Ledger
from bnoise_cli.result_file import ResultFile, history
from bnoise_cli.storage import read_json, write_whole

RESULT, LEDGER, CONFIG = Path(".bnoise/c.probe.json"), Path(".bnoise/c.sweep.runs.jsonl"), Path("bnoise.yaml")


def result(name: str, value: float | None = 9.0) -> dict[str, object]:
    found = {"value": value, "low": value, "high": value}
    return {"schema_version": 1, "kind": "probe", "config_hash": name, "critical_batch_size": found}


def store(name: str, value: float | None = 9.0) -> None:
    ResultFile(RESULT).store(result(name, value))


def add(config: str, number: int) -> None:
    Ledger(LEDGER, config).append({"kind": "x", "n": number})


def numbers(config: str) -> list[int]:
    return [entry["n"] for entry in Ledger(LEDGER, config).entries]


def results() -> list[str]:
    """The names of all results that can be found, the one in the place of the config first."""
    places = [path for path in (RESULT, *history(RESULT)) if path.exists()]
    return [read_json(path)["config_hash"] for path in places]


def nothing() -> None:
    pass


def old() -> None:
    store("old")


def two_ledgers() -> None:
    add("a", 1)
    add("b", 2)
    with LEDGER.open("ab") as file:
        file.write(b'{"kind": "x", "n": 3}')


def init() -> None:
    write_whole(CONFIG, lambda file: file.write(b"text"), new=True)


def old_is_kept() -> bool:
    return "old" in results() and set(results()) <= {"old", "new"} and RESULT.exists()


@dataclass(frozen=True)
class Scenario:
    """Something is stored: what lies there before, and what holds whenever the process is killed."""

    before: Callable[[], object]
    store: Callable[[], object]
    holds: Callable[[], bool]
    #: Once it is stored again.
    done: Callable[[], bool]


SCENARIOS = {
    "first result": Scenario(
        nothing, lambda: store("new"), lambda: results() in ([], ["new"]), lambda: results()[0] == "new"
    ),
    "better result": Scenario(old, lambda: store("new"), old_is_kept, lambda: results()[0] == "new"),
    "worse result": Scenario(
        old, lambda: store("new", None), old_is_kept, lambda: results()[0] == "old" and "new" in results()
    ),
    "next entry": Scenario(
        lambda: add("a", 1),
        lambda: add("a", 9),
        lambda: numbers("a") in ([1], [1, 9]),
        lambda: numbers("a")[-1] == 9,
    ),
    "entry of another config": Scenario(
        two_ledgers,
        lambda: add("c", 9),
        lambda: numbers("a") == [1] and numbers("b") == [2] and numbers("c") in ([], [9]),
        lambda: numbers("c")[-1] == 9 and numbers("a") == [1],
    ),
    "entry of a ledger put aside": Scenario(
        two_ledgers,
        lambda: add("a", 9),
        lambda: numbers("a") in ([1], [1, 9]) and numbers("b") == [2],
        lambda: numbers("a")[-1] == 9 and numbers("b") == [2],
    ),
    "config": Scenario(
        nothing,
        init,
        lambda: not CONFIG.exists() or CONFIG.read_bytes() == b"text",
        lambda: CONFIG.read_bytes() == b"text",
    ),
}

#: Linux's PR_SET_PTRACER: who may trace the process besides its parents, on systems that allow nobody else.
_SET_PTRACER = 0x59616D61
#: Asked for before and after the storing, so that the trace of a process shows where it begins and ends.
BEGIN, END = "/the-storing-begins", "/the-storing-ends"


def store_once_traced(name: str, folder: Path) -> None:
    """Prepare what lies in a folder, wait in a stop, then store between the two marks."""
    ctypes.CDLL(None).prctl(_SET_PTRACER, ctypes.c_ulong(-1))
    os.chdir(folder)
    SCENARIOS[name].before()
    os.kill(os.getpid(), signal.SIGSTOP)
    Path(BEGIN).exists()
    SCENARIOS[name].store()
    Path(END).exists()
