"""Local files. The error about a missing file names its absolute path."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bnoise_cli.storage import sampled_hash


def local_file(path: str, kind: str) -> Path:
    """
    Raises:
        FileNotFoundError: there is none; with the absolute path.
    """
    found = Path(path).expanduser().absolute()
    if not found.is_file():
        raise FileNotFoundError(f"a file of {kind} is needed at {found}; there is none")
    return found


def fingerprint(files: Sequence[Path]) -> str:
    """sha256 over the beginnings and ends of files. It tells whether data have changed without reading all of them."""
    return hashlib.sha256(" ".join(map(sampled_hash, files)).encode()).hexdigest()
