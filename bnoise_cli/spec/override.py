"""`--set key.path=value`: a value of the config changed on the command line."""

from __future__ import annotations

from typing import Any

from bnoise_cli.errors import ConfigError, Problem
from bnoise_cli.spec.nodes import DEEPEST, compose
from bnoise_cli.spec.source import Reader, Source, cut


def apply_override(source: Source, text: str) -> None:
    """Apply one `--set key.path=value`, the value read as YAML."""
    place = f"--set {cut(text, 100)}"
    key, equals, value_text = text.partition("=")
    if not equals or not key.strip():
        source.problems.append(
            Problem(
                place=place, found="no `key=value`", expected="--set key.path=value, as in probe.budget=30s"
            )
        )
        return
    try:
        node = compose(value_text, place)
    except ConfigError as error:
        source.problems += error.problems
        return
    parts = [_part(part) for part in key.strip().split(".")]
    if len(parts) > DEEPEST:
        found = f"a path of {len(parts)} keys"
        source.problems.append(Problem(place=place, found=found, expected=f"at most {DEEPEST}"))
        return
    target: Any = source.data
    for depth, part in enumerate(parts[:-1]):
        if isinstance(target, dict):
            if target.get(str(part)) is None:
                target[str(part)] = {}
            target = target[str(part)]
        elif isinstance(target, list) and isinstance(part, int) and part < len(target):
            target = target[part]
        else:
            target = None
        if not isinstance(target, dict | list):
            shown = ".".join(str(p) for p in parts[: depth + 1])
            source.problems.append(
                Problem(place=place, found=f"`{shown}`, which holds no keys", expected="the path of a key")
            )
            return
    path = tuple(parts)
    last: Any = parts[-1] if isinstance(target, list) else str(parts[-1])
    if isinstance(target, list) and not (isinstance(last, int) and last < len(target)):
        source.problems.append(
            Problem(
                place=place, found=f"index {cut(str(last), 40)}", expected=f"an index below {len(target)}"
            )
        )
        return
    reader = Reader(Source(name=place, folder=source.folder, data={}, problems=source.problems))
    target[last] = reader.value(node, path, frozenset()) if node is not None else None
    for known in [known for known in source.places if known[: len(path)] == path]:
        del source.places[known]
    source.places[path] = place


def _part(text: str) -> str | int:
    """A key, or an index of a list."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text
