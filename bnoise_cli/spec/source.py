"""YAML read as plain data that still knows the line and column of every value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bnoise_cli.errors import ConfigError, Problem

#: Where in the document a value is: its keys and indices from the top.
KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers and booleans of YAML 1.2: 1e-3 is a number, `on` and 1:30 are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("^$")))


def _whole_number(_: _Loader, node: ScalarNode) -> int:
    text = node.value.replace("_", "")
    return int(text, 16) if text.lower().startswith("0x") else int(text)  # YAML 1.1 reads 010 as 8


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


_PLAIN_TAGS = tuple(
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")
)
_KINDS: dict[type[Node], str] = {SequenceNode: "list"}
#: Values of a config, counted as often as aliases repeat them; more are a mistake or an attack.
_MOST_VALUES = 100_000


@dataclass
class Source:
    """A config as read: its data and the place of each part."""

    name: str
    folder: Path
    data: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)  # places in the file, whatever overrides say
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath) -> str:
        """`file:line:column` of the value at `path`, or of the nearest thing around it."""
        return self._nearest(self.places, path)

    def written_place(self, path: KeyPath) -> str:
        """The same, in the file itself, also for what an override has changed."""
        return self._nearest(self.written, path)

    def _nearest(self, places: dict[KeyPath, str], path: KeyPath) -> str:
        ends = range(len(path), -1, -1)
        return next((places[path[:end]] for end in ends if path[:end] in places), self.name)

    def problem(self, path: KeyPath, found: str, expected: str, nearest: str | None = None) -> None:
        """Note a mistake; all are reported together."""
        self.problems.append(Problem(place=self.place(path), found=found, expected=expected, nearest=nearest))


def is_file(path: Path) -> bool:
    """Whether there is such a file; no error for a name that none can have, or a folder that cannot be read."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, as `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def read_source(path: Path) -> Source:
    """Read a config file.

    Raises:
        ConfigError: the file is missing, unreadable or no YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        expected = f"a config file at {path.resolve()}"
        if path == Path("bnoise.yaml"):
            expected += ", or the name of another config as the first argument"
        raise ConfigError([Problem(place=str(path), found="no such file", expected=expected)]) from None
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else f"bytes that are not UTF-8 ({error.reason})"
        raise ConfigError(
            [Problem(place=str(path), found=str(found), expected="a readable text file in UTF-8")]
        ) from None
    return parse_source(text, str(path), path.resolve().parent)


def parse_source(text: str, name: str, folder: Path) -> Source:
    """Parse YAML text; `name` stands for the file in messages."""
    source = Source(name=name, folder=folder, data={})
    node = _compose(text, name)
    source.places[()] = _place(name, node) if node is not None else f"{name}:1:1"
    if not isinstance(node, MappingNode):
        found = "an empty document" if node is None else f"a {_KINDS.get(type(node), 'single value')}"
        source.problem((), found, "a mapping with `model:`, `dataset:` and a loss")
        raise ConfigError(source.problems)
    try:
        source.data = _Reader(source).mapping(node, (), frozenset())
    except RecursionError:
        raise _too_deep(name) from None
    source.written = dict(source.places)
    return source


def apply_override(source: Source, text: str) -> None:
    """Apply one `--set key.path=value`, the value read as YAML."""
    place = f"--set {text}"
    key, equals, value_text = text.partition("=")
    if not equals or not key.strip():
        source.problems.append(
            Problem(
                place=place, found="no `key=value`", expected="--set key.path=value, as in probe.budget=30s"
            )
        )
        return
    try:
        node = _compose(value_text, place)
    except ConfigError as error:
        source.problems += error.problems
        return
    parts: list[str | int] = [
        int(part) if part.isascii() and part.isdecimal() else part for part in key.strip().split(".")
    ]
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
            Problem(place=place, found=f"index {last}", expected=f"an index below {len(target)}")
        )
        return
    reader = _Reader(Source(name=place, folder=source.folder, data={}, problems=source.problems))
    target[last] = reader.value(node, path, frozenset()) if node is not None else None
    for known in [known for known in source.places if known[: len(path)] == path]:
        del source.places[known]
    source.places[path] = place


def _compose(text: str, name: str) -> Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise _too_deep(name) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        found = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            [
                Problem(
                    place=place, found=f"text that is not YAML ({found})", expected="one valid YAML document"
                )
            ]
        ) from None


def _too_deep(name: str) -> ConfigError:
    found = "lists or mappings in one another, hundreds deep"
    return ConfigError([Problem(place=name, found=found, expected="a config")])


def _place(name: str, node: Node) -> str:
    if name.startswith("--set"):
        return name
    return f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


class _Reader:
    """Nodes to plain data, noting places, doubled keys and tags."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._constructor = _Loader("")
        self._values = 0

    def value(self, node: Node, path: KeyPath, above: frozenset[int]) -> Any:
        """The data of any node."""
        self.source.places[path] = _place(self.source.name, node)
        self._values += 1
        if self._values > _MOST_VALUES:
            found = f"more than {_MOST_VALUES:,} values, aliases counted as often as they stand"
            raise ConfigError([Problem(place=self.source.name, found=found, expected="a config")])
        if id(node) in above:
            self.source.problem(path, "an alias to something that contains it", "a value that ends")
            return None
        if node.tag not in _PLAIN_TAGS:
            self.source.problem(path, f"the tag {node.tag}", "plain YAML without tags")
            return None
        if isinstance(node, MappingNode):
            return self.mapping(node, path, above)
        if isinstance(node, SequenceNode):
            inner = above | {id(node)}
            return [self.value(item, (*path, i), inner) for i, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError):
            self.source.problem(path, f"{node.tag} {node.value!r}", "plain YAML without tags")
            return None

    def mapping(self, node: MappingNode, path: KeyPath, above: frozenset[int]) -> dict[str, Any]:
        """The data of a mapping; merge keys (`<<`) give way to keys of its own."""
        above = above | {id(node)}
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                value = self.value(value_node, path, above)
                for part in reversed(value if isinstance(value, list) else [value]):
                    if isinstance(part, dict):
                        merged |= part
                    else:
                        self.source.problem(
                            path, "a merge key `<<` without a mapping", "an alias to a mapping"
                        )
                continue
            if not isinstance(key_node, ScalarNode):
                self.source.problem(path, "a key that is not a word", "a key such as `model`")
                continue
            key = str(key_node.value)
            inner = (*path, key)
            if key in own:
                self.source.problems.append(
                    Problem(
                        place=_place(self.source.name, key_node),
                        found=f"`{key}` a second time (first in line {lines[key]})",
                        expected="every key once",
                    )
                )
                continue
            lines[key] = key_node.start_mark.line + 1
            own[key] = self.value(value_node, inner, above)
        return merged | own
