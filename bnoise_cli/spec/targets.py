"""Targets: code that a config names by `_target_`, as it is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bnoise_cli.spec.source import KeyPath

ARGS, PARTIAL = "_args_", "_partial_"
#: `_target_` and its other spellings.
SPELLINGS = ("_target_", "_component_", "class_path")


def is_target(value: Any) -> bool:
    """Whether a value of the config names code."""
    return isinstance(value, dict) and any(key in value for key in SPELLINGS)


def target_name(value: dict[str, Any]) -> Any:
    """The dotted path or `file.py:name` of a target."""
    return next(value[key] for key in SPELLINGS if key in value)


def arguments(value: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of a target, as written."""
    if "class_path" in value:
        return [], dict(value.get("init_args") or {})
    keywords = {k: v for k, v in value.items() if k not in (*SPELLINGS, ARGS, PARTIAL)}
    return list(value.get(ARGS) or []), keywords


def targets_in(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """All targets inside a value at any depth, outer ones first."""
    if is_target(value):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from targets_in(item, (*path, key))
