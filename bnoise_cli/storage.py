"""Result files: written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.records import SCHEMA_VERSION

#: Bytes of a large file that are read at either end.
_PART = 1 << 20


def default_path(config: Path, kind: str) -> Path:
    """Where a command keeps its result unless told otherwise."""
    return Path(".bnoise") / f"{config.stem}.{kind}.json"


def require_writable(path: Path) -> None:
    """Find out before measuring, not after, that a file could be written to `path`.

    Raises:
        CallError: the folder cannot be made or written, or `path` is a folder or a device.
    """
    try:
        if path.exists() and not path.is_file():
            raise CallError(f"a file is needed to write to; {path} is a folder or a device. Name a file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except (
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: links that lead to one another, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CallError(
            f"a folder that can be written is needed for {path}; {path.parent.absolute()} cannot ({reason}). "
            "Choose another place."
        ) from error


def read_json(path: Path, *, most: int | None = None) -> Any:
    """Read a file that should hold JSON.

    Args:
        most: bytes; a larger file, or one without a size, is not read.

    Raises:
        CallError: there is no such file, or it cannot be read, or it is torn.
    """
    try:
        if most is not None and not (path.is_file() and path.stat().st_size <= most):
            raise CallError(f"a result is needed; {path} is no plain file of at most {most:,} bytes.")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CallError(f"a result is needed; there is no file {path}. `bnoise probe` writes one.") from None
    except OSError as error:
        raise CallError(f"a result is needed; {path} cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError):
        raise CallError(
            f"a result is needed; {path} is no JSON, or torn. Make it again with `bnoise probe`."
        ) from None


def ends_hash(path: Path) -> str:
    """sha256 of the size, the beginning and the end of a file that may be too large to read."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        for place in (0, max(size - _PART, 0)):
            file.seek(place)
            digest.update(file.read(_PART))
    return digest.hexdigest()


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a result.

    Raises:
        RunError: the file cannot be written; an older file at `path` is untouched.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


class Ledger:
    """A file of lines that only grows: what is finished is kept at once, whatever happens next.

    The first line names what the others belong to; a file of something else is put aside, not overwritten. Torn
    and damaged lines are left out.
    """

    def __init__(self, path: Path, belongs_to: str) -> None:
        """
        Raises:
            RunError: the file cannot be read or put aside.
        """
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self.damaged = 0  # lines that could not be read
        self.set_aside: Path | None = None
        self._head = {"ledger": SCHEMA_VERSION, "belongs_to": belongs_to}
        try:
            if path.exists():
                self._read()
        except OSError as error:
            raise RunError(f"{path} could not be read ({error.strerror or error}).") from error

    def append(self, entry: dict[str, Any]) -> None:
        """Keep an entry.

        Raises:
            RunError: it cannot be written; it is still in `entries`.
        """
        self.entries.append(entry)
        lines = [entry] if self.path.exists() else [self._head, *self.entries]
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"{self.path} could not be written ({error.strerror or error}).") from error

    def _read(self) -> None:
        data = self.path.read_bytes()
        lines = data.splitlines(keepends=True)
        parsed = [_parsed(line) for line in lines]
        if not parsed or parsed[0] != self._head:
            if data:
                self._put_aside()
            return
        self.entries = [entry for entry in parsed[1:] if entry is not None and "kind" in entry]
        self.damaged = len(parsed) - 1 - len(self.entries)
        if not lines[-1].endswith(b"\n"):  # torn by a kill: what follows must not be written behind it
            with self.path.open("r+b") as file:
                file.truncate(len(data) - len(lines[-1]))

    def _put_aside(self) -> None:
        names = [".old.jsonl", *(f".old{n}.jsonl" for n in range(2, 1000))]
        places = [self.path.with_suffix(name) for name in names]
        self.set_aside = next((place for place in places if not place.exists()), places[0])
        self.path.replace(self.set_aside)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of a ledger; None where it is torn or no entry."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and line.endswith(b"\n") else None


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a temporary file beside `path`, then rename it; a link is followed.

    Raises:
        RunError: the file cannot be written (a full disk, say); an older file at `path` is untouched.
    """
    path = path.resolve()
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=path.suffix)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise RunError(f"{path} could not be written ({error.strerror or error}).") from error
