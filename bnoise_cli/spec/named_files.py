"""The files that a config names: what a measurement reads, and no output may replace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bnoise_cli.spec.checkpoints import files_of
from bnoise_cli.spec.code_files import code_files
from bnoise_cli.spec.load import Spec
from bnoise_cli.spec.source import is_file


def named_files(spec: Spec) -> list[Path]:
    """The config and its parts, its code and checkpoints, and every file that one of its values is the path of."""
    named = [spec.path, *spec.source.files, *code_files(spec).values()]
    named += [file for path in spec.checkpoints() for file in files_of(path)]
    values = [value for key in spec.source.data for value in _texts(spec.source.data[key])]
    named += [base / value for value in values for base in (spec.folder, spec.source.here)]
    return [path for path in dict.fromkeys(named) if is_file(path)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(item)
