"""Result files: written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from bnoise_cli.errors import CallError, RunError


def default_path(config: Path, kind: str) -> Path:
    """Where a command keeps its result unless told otherwise."""
    return Path(".bnoise") / f"{config.stem}.{kind}.json"


def require_writable(path: Path) -> None:
    """Find out before measuring, not after, that a result could be written to `path`.

    Raises:
        CallError: the folder cannot be made or written, or `path` is a folder.
    """
    if path.is_dir():
        raise CallError(f"--out needs a file; {path} is a folder. Name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CallError(
            f"the result needs a folder that can be written; {path.parent.resolve()} cannot "
            f"({error.strerror or error}). Choose another place with --out FILE."
        ) from error


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write `data` to a temporary file beside `path`, then rename it.

    Raises:
        RunError: the file cannot be written (a full disk, say); an older file at `path` is untouched.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise RunError(
            f"the result could not be written to {path} ({error.strerror or error}). "
            "It is printed instead; keep it from there."
        ) from error
