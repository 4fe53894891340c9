"""YAML text to nodes: the dialect of a config, and how large a document may be."""

from __future__ import annotations

import math
import re

import yaml
from yaml.nodes import Node, ScalarNode

from bnoise_cli.errors import ConfigError, Problem

#: Values of a config, counted as often as aliases repeat them; more are a mistake or an attack.
MOST_VALUES = 20_000
#: Lists and mappings inside one another.
DEEPEST = 50
#: Characters of a number. A float has 17 digits that count.
MOST_DIGITS = 100


class Loader(yaml.SafeLoader):
    """SafeLoader with the numbers and booleans of YAML 1.2: 1e-3 is a number, `on` and 1:30 are text.

    It stops at documents that no config needs: with more nodes, deeper, or with longer numbers.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._name, self._nodes, self._depth = name, 0, 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose one node and what is inside it.

        Raises:
            ConfigError: the document is too large.
        """
        self._nodes += 1
        self._depth += 1
        if self._depth > DEEPEST:
            raise too_deep(self._name)
        if self._nodes > MOST_VALUES:
            raise too_many_values(self._name)
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("^$")))


def _whole_number(_: Loader, node: ScalarNode) -> int:
    text = _short(node).replace("_", "")
    return int(text, 16) if text.lower().startswith("0x") else int(text)  # YAML 1.1 reads 010 as 8


def _number(loader: Loader, node: ScalarNode) -> float:
    value: float = loader.construct_yaml_float(ScalarNode(node.tag, _short(node)))
    if math.isnan(value):
        raise ValueError("not a number")
    return value


def _short(node: ScalarNode) -> str:
    """The digits of a number. Reading a long number takes longer than reading its digits."""
    text: str = node.value
    if len(text) > MOST_DIGITS:
        raise ValueError("too many digits")
    return text


Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
Loader.add_constructor("tag:yaml.org,2002:float", _number)


def compose(text: str, name: str) -> Node | None:
    """The nodes of one YAML document; None if it is empty.

    Raises:
        ConfigError: it is not YAML, or too large; `name` stands for the document.
    """
    try:
        loader = Loader(text, name)
        node: Node | None = loader.get_single_node()
        return node
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # numbers in a directive or an escape
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


def too_deep(name: str) -> ConfigError:
    """The mistake of a document with more levels than `DEEPEST`."""
    return _unlike_a_config(name, f"lists or mappings in one another, more than {DEEPEST} deep")


def too_many_values(name: str) -> ConfigError:
    """The mistake of a document with more than `MOST_VALUES`."""
    return _unlike_a_config(name, f"more than {MOST_VALUES:,} values, aliases counted as often as they stand")


def _unlike_a_config(name: str, found: str) -> ConfigError:
    return ConfigError([Problem(place=name, found=found, expected="a config")])
