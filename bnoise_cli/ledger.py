"""The ledger of a sweep: a file of lines that only grows, so that finished runs outlive whatever happens next."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bnoise_cli.errors import RunError, reason
from bnoise_cli.records import SCHEMA_VERSION
from bnoise_cli.result_file import free_in_history, history, history_folder
from bnoise_cli.storage import absolute, beside, locked, read_plain

#: Bytes of the largest ledger that is read; a long sweep writes less than ten megabytes.
_LARGEST = 1 << 28


def ledger_path(result: Path) -> Path:
    """Path of the ledger of a sweep, next to its result."""
    return beside(result, ".runs.jsonl")


class Ledger:
    """Finished entries in a file. Its first line, the head, names what the entries belong to.

    Opening a ledger changes nothing on disk. If the file belongs to something else, the first new entry moves it to
    the history; if the history holds a ledger with the right head, its entries are gone on with. Lines that are torn
    or damaged are left out.

    Attributes:
        path: absolute, because user code may change the current folder.
        entries: what was read and what was added.
        damaged: lines that could not be read.
        in_the_way: why the file at `path` will be moved to the history; None if it will not.
    """

    def __init__(self, path: Path, belongs_to: str, data: Mapping[str, str] | None = None) -> None:
        """
        Args:
            belongs_to: hash of what a run depends on.
            data: hashes of files of data by name. A file that was not there yet when the ledger began may be there now.

        Raises:
            RunError: a file cannot be read.
        """
        self.path = absolute(path)
        self.entries: list[dict[str, Any]] = []
        self.damaged = 0
        self.in_the_way: str | None = None
        self._data = dict(data or {})
        self._head: dict[str, Any] = {"ledger": SCHEMA_VERSION, "belongs_to": belongs_to}
        self._found = self.path  # the file that the entries were read from
        self._whole: int | None = None  # bytes before a torn last line
        try:
            if self.path.exists() and not self._read(self.path):
                self.in_the_way = self._reason()
            if not self.entries:
                any(self._read(place) for place in history(self.path))
        except OSError as error:
            raise RunError(f"{path} could not be read ({reason(error)}).") from error

    @property
    def source(self) -> Path:
        """The file that the entries were read from."""
        return self._found

    @property
    def aside(self) -> Path:
        """The folder that a ledger in the way is moved to."""
        return history_folder(self.path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing this ledger.

        Raises:
            CallError: another process is writing it.
            RunError: the lock's file cannot be made.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path, wait=False))
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    def append(self, entry: dict[str, Any]) -> None:
        """Keep an entry.

        Raises:
            RunError: it cannot be written; it is still in `entries`.
        """
        self.entries.append(entry)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._make_way()
            begun = self.path.exists() and self.path.stat().st_size > 0
            head = {**self._head, "data": self._data} if self._data else self._head
            lines = [entry] if begun else [head, *self.entries]
            text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except Exception as error:
            raise self._unwritable(error) from error

    def _make_way(self) -> None:
        """Move another ledger out of the way, and the right one to its place. A kill in between loses nothing."""
        if self.in_the_way is not None:
            aside = free_in_history(self.path, time.time())
            aside.parent.mkdir(parents=True, exist_ok=True)
            self.path.replace(aside)
            self.in_the_way = None
        if self._found != self.path:
            self._found.replace(self.path)
            self._found = self.path
        if self._whole is not None:
            os.truncate(self.path, self._whole)
            self._whole = None

    def _read(self, place: Path) -> bool:
        """Take the entries of a file if it has the right head."""
        data = read_plain(place, _LARGEST)
        lines = data.splitlines(keepends=True)
        if not lines or not self._is_own(_parsed(lines[0])):
            return not data
        parsed = [_parsed(line) for line in lines[1:]]
        self.entries = [entry for entry in parsed if entry is not None and isinstance(entry.get("kind"), str)]
        self.damaged = len(parsed) - len(self.entries)
        if not lines[-1].endswith(b"\n"):  # torn by a kill: what follows must not be written behind it
            self._whole = len(data) - len(lines[-1])
        self._found = place
        return True

    def _is_own(self, head: dict[str, Any] | None) -> bool:
        """Whether a head names what this ledger belongs to, and no other data. `head` was read from a file."""
        before = {} if head is None else head.pop("data", {})
        known = before if isinstance(before, dict) else {}
        return head == self._head and all(self._data.get(name, old) == old for name, old in known.items())

    def _reason(self) -> str:
        """Why the file at `path` is not gone on with."""
        with self.path.open("rb") as file:
            head = _parsed(file.readline(10_000))
        known = head is not None and isinstance(head.get("belongs_to"), str)
        if head is not None and head.get("belongs_to") == self._head["belongs_to"]:
            return "The data have changed"
        return "The config has changed" if known else f"The first line of {self.path.name} is damaged"

    def _unwritable(self, error: Exception) -> RunError:
        return RunError(f"{self.path} could not be written ({reason(error)}).")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of a ledger; None if it is torn or is not an entry."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and line.endswith(b"\n") else None
