"""YAML read as plain data that still knows the line and column of every value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bnoise_cli.errors import ConfigError, Problem, reason
from bnoise_cli.spec.nodes import (
    DEEPEST,
    MOST_DIGITS,
    MOST_VALUES,
    Loader,
    compose,
    too_deep,
    too_many_values,
)
from bnoise_cli.storage import absolute, read_plain, real

#: The path of a value in the document: keys and indices from the top.
KeyPath = tuple[str | int, ...]
#: Bytes of a config with all the files that it is put together from; a long one has a tenth.
MOST_BYTES = 1 << 16
#: Mistakes that are told, and characters of each part of one.
MOST_TOLD, _LONGEST = 100, 1000

_PLAIN_TAGS = tuple(
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")
)
_KINDS: dict[type[Node], str] = {SequenceNode: "list"}


@dataclass
class Source:
    """A config as read: its data and the place of each part."""

    name: str
    folder: Path
    data: dict[str, Any]
    here: Path = field(default_factory=lambda: absolute(Path()))  # the current folder, before user code runs
    places: dict[KeyPath, str] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)  # places in the file, whatever overrides say
    problems: list[Problem] = field(default_factory=list)
    bytes_read: int = 0
    files: list[Path] = field(default_factory=list)  # read besides, for `defaults:`

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
        found, expected = cut(found, _LONGEST), cut(expected, _LONGEST)
        self.problems.append(Problem(place=self.place(path), found=found, expected=expected, nearest=nearest))

    def error(self) -> ConfigError:
        """The mistakes in the order of the file, at most the first hundred."""
        told = sorted(self.problems, key=_order)
        if (more := len(told) - MOST_TOLD) > 0:
            rest = Problem(place=self.name, found=f"{more:,} more mistakes", expected="none")
            told = [*told[:MOST_TOLD], rest]
        return ConfigError(told)


def cut(text: str, most: int) -> str:
    """Text of at most `most` characters."""
    return text if len(text) <= most else text[: most - 3] + "..."


def _order(problem: Problem) -> tuple[int, int]:
    *_, line, column = ("", "0", "0", *problem.place.rsplit(":", 2))[-3:]
    numbers = line.isascii() and line.isdecimal() and column.isascii() and column.isdecimal()
    return (int(line), int(column)) if numbers and len(line) < 10 else (1 << 30, 0)


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


def read_source(path: Path, most: int = MOST_BYTES) -> Source:
    """Read a config file of at most `most` bytes.

    Raises:
        ConfigError: the file is missing, unreadable, too large or not a YAML mapping.
    """
    try:
        data = read_plain(path, most)
        text = data.decode()
    except FileNotFoundError:
        expected = f"a config file of this name in {real(path).parent}"
        if path == Path("bnoise.yaml"):
            expected += ", or the name of another config as the first argument"
        raise ConfigError([Problem(place=str(path), found="no such file", expected=expected)]) from None
    except (OSError, UnicodeDecodeError) as error:
        found = (
            f"a path that cannot be read ({reason(error)})"
            if isinstance(error, OSError)
            else f"bytes that are not UTF-8 ({error.reason})"
        )
        raise ConfigError(
            [Problem(place=str(path), found=found, expected="a readable text file in UTF-8")]
        ) from None
    source = parse_source(text, str(path), real(path).parent)
    source.bytes_read = len(data)
    return source


def parse_source(text: str, name: str, folder: Path) -> Source:
    """Parse YAML text; `name` stands for the file in messages."""
    source = Source(name=name, folder=folder, data={})
    node = compose(text, name)
    source.places[()] = _place(name, node) if node is not None else f"{name}:1:1"
    if not isinstance(node, MappingNode):
        found = "an empty document" if node is None else f"a {_KINDS.get(type(node), 'single value')}"
        source.problem((), found, "a mapping with `model:`, `dataset:` and a loss")
        raise source.error()
    source.data = Reader(source).mapping(node, (), frozenset())
    source.written = dict(source.places)
    return source


def _place(name: str, node: Node) -> str:
    if name.startswith("--set"):
        return name
    return f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


class Reader:
    """Nodes to plain data, noting places, doubled keys and tags."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._constructor = Loader("", source.name)
        self._values = 0

    def value(self, node: Node, path: KeyPath, above: frozenset[int]) -> Any:
        """The data of any node."""
        self.source.places[path] = _place(self.source.name, node)
        self._values += 1
        if self._values > MOST_VALUES:
            raise too_many_values(self.source.name)
        if len(path) > DEEPEST:  # by aliases
            raise too_deep(self.source.name)
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
            kind = node.tag.rpartition(":")[2]
            expected = "a finite number" if kind in ("int", "float") else "plain YAML"
            if len(node.value) > MOST_DIGITS:
                expected = f"at most {MOST_DIGITS} characters"
            self.source.problem(path, f"`{cut(node.value, 40)}` as {kind}", expected)
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
