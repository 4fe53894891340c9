"""Result files: written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from bnoise_cli.errors import CallError, RunError


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
    except OSError as error:
        raise CallError(
            f"a folder that can be written is needed for {path}; {path.parent.resolve()} cannot "
            f"({error.strerror or error}). Choose another place."
        ) from error


def read_json(path: Path) -> Any:
    """Read a file that should hold JSON.

    Raises:
        CallError: there is no such file, or it cannot be read, or it is torn.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CallError(f"a result is needed; there is no file {path}. `bnoise probe` writes one.") from None
    except OSError as error:
        raise CallError(f"a result is needed; {path} cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError):
        raise CallError(
            f"a result is needed; {path} is no JSON, or torn. Make it again with `bnoise probe`."
        ) from None


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a result.

    Raises:
        RunError: the file cannot be written; an older file at `path` is untouched.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


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
