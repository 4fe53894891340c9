"""The file of a result: the one place that decides what may be replaced, and the history of what gave way."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnoise_cli.errors import CallError, NothingMeasuredError, RunError, reason
from bnoise_cli.records import WIDEST_INTERVAL
from bnoise_cli.storage import (
    absolute,
    locked,
    read_json,
    require_apart,
    require_writable,
    write_json,
    write_whole,
)

_HISTORY = "history"
#: File systems take 255 bytes. A name in the history has a time more, that of a ledger another ending.
_LONGEST_NAME = 200
#: Results and ledgers that gave way at one path in one second.
_MOST_AT_ONCE = 10_000
#: Numbers beyond this are no batch sizes, and may be integers that no float holds.
_LARGEST = 1e100


def default_path(config: Path, kind: str) -> Path:
    """Where a command keeps its result unless told otherwise."""
    return Path(".bnoise") / f"{config.stem}.{kind}.json"


def stored_results(folder: Path) -> list[Path]:
    """The results in a `.bnoise` folder and in its history. Hidden files are left out: they may be unfinished.

    Raises:
        OSError: the folder is there and cannot be read.
    """
    return [
        path
        for place in (folder, folder / _HISTORY)
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.suffix == ".json" and not path.name.startswith(".")
    ]


class ResultFile:
    """The file in which a command keeps its result. The only place that decides what may be replaced.

    A result takes the place of an earlier one unless the earlier one is better (see `_rank`). Whichever has to give
    way is kept in the history. The path is made absolute at once, because user code may change the current folder.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            CallError: the current folder is gone.
        """
        self.path, self._shown = absolute(path), path
        self._own: bytes | None = None  # what this object wrote to `path`
        self._aside: Path | None = None  # where this object's result is kept if not in `path`

    def require(self, reads: Sequence[Path] = ()) -> None:
        """Find out before measuring that a result can be stored.

        Args:
            reads: files that are inputs of the measurement.

        Raises:
            CallError: the file cannot be written, is one of `reads`, or is not a result of bnoise.
        """
        if len(os.fsencode(self.path.name)) > _LONGEST_NAME:
            raise CallError(
                f"a name of at most {_LONGEST_NAME} bytes is needed, so that an earlier result can be kept; found "
                f"{self.path.name}. Name a shorter one with --out."
            )
        require_writable(self._shown)
        require_apart([self.path], reads)
        try:
            with locked(self.path, wait=True):
                pass
        except OSError as error:
            raise CallError(
                f"{self._shown} cannot be locked ({reason(error)}). Move away the file of its lock, "
                f"{error.filename}, or name another file with --out."
            ) from error
        if self.path.exists() and _result_in(self.path) is None:
            raise CallError(
                f"{self._shown} is not a result of bnoise, and would be replaced. Name another file with --out, or "
                "move it away."
            )

    def store(self, data: dict[str, Any]) -> str:
        """Keep a result, and what lay in its place.

        A command that stores twice replaces its own first result.

        Returns:
            A sentence that says where the result is, and where the one is that gave way.

        Raises:
            RunError: it cannot be written; what lay there is untouched.
        """
        try:
            with locked(self.path, wait=True):
                return self._store(data)
        except RunError:
            raise
        except Exception as error:
            raise RunError(f"{self._shown} could not be written ({reason(error)}).") from error

    def _store(self, data: dict[str, Any]) -> str:
        there = self.path.read_bytes() if self.path.is_file() else None
        if there is not None and there != self._own:
            earlier = _result_in(self.path)
            if earlier is None or _rank(earlier) > _rank(data):
                kind = "better result" if earlier is not None else "file that is not a result"
                self._aside = self._aside or free_in_history(self.path, time.time())
                write_json(self._aside, data)
                return f"The result is in {self.named(self._aside)}; the {kind} in {self._shown} is kept."
            kept = free_in_history(self.path, self.path.stat().st_mtime)
            write_whole(kept, lambda file: file.write(there))
            said = f" The earlier one is in {self.named(kept)}."
        else:
            said = ""
        write_json(self.path, data)
        self._own = self.path.read_bytes()
        if self._aside is not None:
            self._aside.unlink(missing_ok=True)
            self._aside = None
        return f"The result is in {self._shown}.{said}"

    @property
    def kept(self) -> Path:
        """Where the result of this object is, in the words of the call."""
        return self.named(self._aside or self.path)

    def interruption(self, unfinished: str) -> NothingMeasuredError:
        """The error that ends a call after Ctrl-C; it names the file of the result if there is one.

        Args:
            unfinished: what the interruption came before, if nothing was stored.
        """
        if self._aside is None and self._own is None:
            return NothingMeasuredError(f"interrupted before {unfinished}.")
        return NothingMeasuredError(f"interrupted. The result is in {self.kept}.")

    def named(self, path: Path) -> Path:
        """A path in the words of the call."""
        return self._shown.parent / path.relative_to(self.path.parent)

    def __str__(self) -> str:
        return str(self._shown)


def history(path: Path) -> list[Path]:
    """What gave way at `path`, the newest first: earlier results and ledgers, and later results that were worse."""
    stem, ending = _stem(path)
    pattern = re.compile(rf"{re.escape(stem)}\.\d{{8}}T\d{{6}}Z(-\d+)?{re.escape(ending)}")
    found = [
        each for each in history_folder(path).glob("*") if pattern.fullmatch(each.name) and each.is_file()
    ]
    return sorted(found, key=lambda each: (each.stat().st_mtime, each.name), reverse=True)


def free_in_history(path: Path, seconds: float) -> Path:
    """A name in the history of `path` that is not taken, with a time (in seconds since 1970) in it.

    Raises:
        RunError: all are taken.
    """
    stem, ending = _stem(path)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
    names = (
        f"{stem}.{moment}{number}{ending}" for number in ("", *(f"-{n}" for n in range(2, _MOST_AT_ONCE)))
    )
    for name in names:
        if not (place := history_folder(path) / name).exists():
            return place
    raise RunError(f"{history_folder(path)} is full. Move away what lies there.")


def _stem(path: Path) -> tuple[str, str]:
    """A name and its ending. Only bnoise's own endings are taken off: the dot of lr0.1 is part of the name."""
    ending = ".jsonl" if path.suffix == ".jsonl" else ".json"
    return path.name.removesuffix(ending), ending


def history_folder(path: Path) -> Path:
    """Where what gives way at `path` is kept."""
    return (path.parent if path.parent.name == ".bnoise" else path.parent / ".bnoise") / _HISTORY


def _result_in(path: Path) -> dict[str, Any] | None:
    """The result in a file; None if the file holds something else."""
    try:
        data = read_json(path)
    except CallError:
        return None
    known = isinstance(data, dict) and {"schema_version", "kind", "config_hash"} <= data.keys()
    return data if known else None


def _rank(data: dict[str, Any]) -> int:
    """How much a result says: 2 if it has an answer, 1 if it ended early with one, 0 if it has none.

    One step alone is no answer where a horizon was asked for. Read from a file, so nothing about its form is known.
    """
    found = data.get("critical_batch_size")
    critical = found if isinstance(found, dict) else {}
    numbers = [critical.get(key) for key in ("value", "low", "high")]
    known = [number for number in numbers if isinstance(number, int | float) and abs(number) < _LARGEST]
    if len(known) < 3 or not known[2] <= WIDEST_INTERVAL * known[1]:
        return 0
    doubts = data.get("doubts")
    codes = (
        [doubt.get("code") for doubt in doubts if isinstance(doubt, dict)] if isinstance(doubts, list) else []
    )
    config = data.get("config")
    asked = config.get("probe") if isinstance(config, dict) else None
    if "one_step" in codes and not (isinstance(asked, dict) and asked.get("horizon") == "off"):
        return 0
    return 1 if "failed" in codes or "interrupted" in codes else 2
