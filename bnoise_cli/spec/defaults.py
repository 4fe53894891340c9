"""`defaults:` of Hydra: a config that is put together from files beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnoise_cli.errors import ConfigError, reason
from bnoise_cli.spec.nodes import DEEPEST, too_deep
from bnoise_cli.spec.source import MOST_BYTES, KeyPath, Source, is_file, read_source

_KEY, _SELF = "defaults", "_self_"
#: Files of one config, and entries of one list.
_MOST_FILES = 100
_NAME = re.compile(r"[\w-]+(?:/[\w-]+)*(?:\.yaml)?")


def compose_defaults(source: Source) -> None:
    """Merge the files that `defaults:` names, in its order, the config itself where `_self_` stands or else last.

    `- model: small` is model/small.yaml under the key `model`, `- base` is base.yaml at the top. Groups may be nested,
    and a file may have defaults of its own. Overrides of groups, packages and optional files are mistakes here: bnoise
    has no search path.

    Raises:
        ConfigError: the groups are nested too deeply.
    """
    if isinstance(source.data.get(_KEY), list):
        _compose(source, "", _Files(source.files, MOST_BYTES - source.bytes_read))


@dataclass
class _Files:
    """All files that a config has been put together from, and the bytes that more may have."""

    read: list[Path] = field(default_factory=list)
    left: int = MOST_BYTES


def _compose(source: Source, group: str, files: _Files) -> None:
    """Put `source` together.

    Args:
        group: the folder of its own entries, relative to the folder of the config.
        files: all that have been read.
    """
    if group.count("/") >= DEEPEST:
        raise too_deep(source.name)
    own, places = source.data, dict(source.places)
    entries = own.pop(_KEY, [])
    merged: dict[str, Any] = {}
    if len(entries) > _MOST_FILES:
        source.problem((_KEY,), f"{len(entries):,} entries", f"at most {_MOST_FILES}")
        entries = []
    if _SELF not in entries:
        entries = [*entries, _SELF]
    for i, entry in enumerate(entries):
        if entry == _SELF:
            _merge(merged, own)
            source.places |= places
            continue
        if (found := _named(source, (_KEY, i), entry)) is None:
            continue
        name, keys = found
        inner_group = "/".join(filter(None, [group, *keys]))
        part = _read(source, (_KEY, i), "/".join(filter(None, [inner_group, name])), files)
        if part is not None:
            _compose(part, inner_group, files)
            source.problems += part.problems
            under: dict[str, Any] = part.data
            for key in reversed(keys):
                under = {key: under}
            _merge(merged, under)
            source.places |= {(*keys, *place): where for place, where in part.places.items() if place}
    source.data = merged


def _named(source: Source, place: KeyPath, entry: Any) -> tuple[str, tuple[str, ...]] | None:
    """The name of an entry's file and the keys under which it stands; None if the entry is null or a mistake."""
    group, name = "", entry
    if isinstance(entry, dict) and len(entry) == 1:
        [(group, name)] = entry.items()
        if name is None:
            return None
    if isinstance(name, str) and _NAME.fullmatch(name) and (not group or _NAME.fullmatch(group)):
        return name.removesuffix(".yaml"), tuple(filter(None, group.split("/")))
    expected = "`- name` for name.yaml, or `- group: name` for group/name.yaml, in the folder of the config"
    source.problem(place, f"`{entry}`", expected)
    return None


def _read(source: Source, place: KeyPath, name: str, files: _Files) -> Source | None:
    path = source.folder / f"{name}.yaml"
    if not is_file(path):
        source.problem(place, f"`{name}`", f"a file at {path}")
        return None
    files.read.append(path)
    if len(files.read) > _MOST_FILES:
        source.problem(place, f"more than {_MOST_FILES} files", "files that do not name each other")
        return None
    try:
        if path.stat().st_size > files.left:
            source.problem(place, f"more than {MOST_BYTES:,} bytes in all files of this config", "a config")
            return None
        part = read_source(path, files.left)
        files.left -= part.bytes_read
    except OSError as error:
        source.problem(place, f"`{name}`, which cannot be read ({reason(error)})", f"a file at {path}")
        return None
    except ConfigError as error:
        source.problems += error.problems
        return None
    part.folder = source.folder  # names are relative to the config
    return part


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Merge mappings at any depth; all else is replaced."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
