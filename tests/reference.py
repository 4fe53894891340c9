"""The page on config keys, made from the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bnoise_cli.spec.schema import Config

_HEAD = """\
# Every key of a config

A time is a number of seconds, or as in `60s`, `2m`, `1h`. A target is a mapping with `_target_`
(`bnoise explain config`). This page is made from `bnoise_cli/spec/schema.py`.
"""
_NAMES = {"integer": "whole number", "string": "text"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
#: Bounds beyond this only say that the number must fit its type.
_HUGE = 2**53


def reference() -> str:
    """The text of the page."""
    whole = Config.model_json_schema()
    lines = [_HEAD, "## At the top", "", *_table(whole)]
    for key, value in whole["properties"].items():
        if "$ref" in value:
            lines += _section(key, whole["$defs"][_definition(value)])
    lines += _section("sweep.branch", whole["$defs"]["Branch"])
    return "\n".join(lines) + "\n"


def _section(name: str, schema: dict[str, Any]) -> list[str]:
    return ["", f"## {name}", "", schema["description"], "", *_table(schema)]


def _table(schema: dict[str, Any]) -> Iterator[str]:
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for key, value in schema["properties"].items():
        if _definition(value) is None:
            default = "required" if key in schema.get("required", []) else _shown(value["default"])
            yield f"| `{key}` | {_kind(value)} | {default} | {value.get('description', '')} |"


def _definition(value: dict[str, Any]) -> str | None:
    """The section that a key holds, if it does not hold a value."""
    found = (choice.get("$ref") for choice in [value, *value.get("anyOf", [])])
    return next((ref.rpartition("/")[2] for ref in found if ref), None)


def _shown(default: Any) -> str:
    return "none" if default is None else str(default)


def _kind(schema: dict[str, Any]) -> str:
    """The values that a key takes, in words."""
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "object":
        return "target"
    if "anyOf" in schema:
        kinds = dict.fromkeys(_kind(choice) for choice in schema["anyOf"] if choice.get("type") != "null")
        return " or ".join(kinds).replace("number at least 1 or text", "time")
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    if "pattern" in schema:
        return "amount of tokens"
    bounds = [f"{word} {schema[key]:,}" for key, word in _BOUNDS.items() if schema.get(key, _HUGE) < _HUGE]
    return " ".join([_NAMES.get(schema["type"], schema["type"]), " and ".join(bounds)]).rstrip()
