"""Files and folders of data that a config names, compared by size and samples."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from bnoise_cli.spec.load import TARGET_KEYS, Spec
from bnoise_cli.spec.source import is_file, is_folder
from bnoise_cli.spec.targets import SPELLINGS
from bnoise_cli.storage import SAMPLE, sampled_hash

#: All data that a config names, together: samples of 4 KiB, and files of folders whose names and whose sizes count.
_SAMPLES, _NAMES, _SIZES = 4096, 100_000, 10_000
#: Entries of folders that are looked at, files that are left out included.
_ENTRIES = 1_000_000
#: Samples of each file of a folder.
_EACH = 16
#: Files that programs write beside data.
_IGNORED = (".lock", ".log", ".tmp")
#: Characters of the longest path.
_LONGEST_PATH = 4096


def data_paths(spec: Spec) -> dict[str, Path]:
    """Plain files and folders that are arguments of targets, as written, from the current or the config's folder.

    Folders that hold one of these two are left out: results are written to them.
    """
    named = _named(spec)
    found = {name: path for name in named if (path := _path_of(name, spec)) is not None}
    around = {Path(os.path.realpath(base)) for base in (spec.source.here, spec.folder)}
    around |= {parent for base in around for parent in base.parents}
    return {name: path for name, path in found.items() if Path(os.path.realpath(path)) not in around}


def data_hashes(
    spec: Spec, known: MutableMapping[tuple[Path, int], str] | None = None, *, folders: bool = True
) -> dict[str, str]:
    """sha256 of size and samples of each file and folder of data that is at hand and can be read.

    The work is bounded: all that a config names shares a fixed number of samples.

    Args:
        known: hashes that were made before in this call of the program; new ones are added.
        folders: whether folders are hashed too.
    """
    known = {} if known is None else known
    share = max(len(_named(spec)), 1)
    found = {}
    for name, path in data_paths(spec).items():
        if not (folders or is_file(path)):
            continue
        with suppress(OSError):
            if (path, share) not in known:
                known[path, share] = _hash(path, share)
            found[name] = known[path, share]
    return found


def changed_data(before: object, now: dict[str, str]) -> list[str]:
    """The names of data that differ, of those with hashes on both sides. `before` was read from a file."""
    old = before if isinstance(before, dict) else {}
    return sorted(name for name in now.keys() & old.keys() if old[name] != now[name])


def _named(spec: Spec) -> list[str]:
    """Every text among the arguments of targets."""
    values = [spec.source.data.get(key) for key in TARGET_KEYS if key not in spec.given]
    return list(dict.fromkeys(text for value in values for text in _texts(value)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_PATH:
        yield value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key not in SPELLINGS:
            yield from _texts(item)


def _path_of(name: str, spec: Spec) -> Path | None:
    path = Path(os.path.expanduser(name))  # noqa: PTH111  Path.expanduser raises for users that are not known
    if path.suffix in _IGNORED:
        return None
    places = (base / path for base in (spec.source.here, spec.folder))
    return next((place for place in places if is_file(place) or is_folder(place)), None)


def _hash(path: Path, share: int) -> str:
    samples = max(_SAMPLES // share, 4)
    if is_file(path):
        return sampled_hash(path, whole=samples * SAMPLE, samples=samples)
    names = list(islice(_files(path), max(_NAMES // share, 100)))
    sized = names[: max(_SIZES // share, 100)]
    sizes = [os.stat(path / name).st_size for name in sized]  # noqa: PTH116  many files
    digest = hashlib.sha256(repr((names, sizes)).encode(errors="backslashreplace"))
    for name in sized[:: max(len(sized) * _EACH // samples, 1)]:
        digest.update(sampled_hash(path / name, whole=_EACH * SAMPLE, samples=_EACH).encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[str]:
    """Plain files of a folder and of those in it, in order of their names. Links to folders are not followed."""
    left, waiting = _ENTRIES, [""]
    while waiting and left > 0:
        inner = waiting.pop()
        with os.scandir(folder / inner) as entries:
            listed = sorted(islice(entries, left), key=lambda entry: entry.name)
        left -= len(listed) + 1
        shown = [entry for entry in listed if not _is_ignored(entry.name)]
        waiting += [f"{inner}{e.name}/" for e in reversed(shown) if e.is_dir(follow_symlinks=False)]
        yield from (f"{inner}{entry.name}" for entry in shown if entry.is_file())


def _is_ignored(name: str) -> bool:
    """Hidden files, and what libraries write beside data."""
    return name.startswith((".", "__pycache__", "cache-")) or name.endswith(_IGNORED)
