"""Amounts that a config gives in tokens, converted to examples when it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from bnoise_cli.spec.source import KeyPath, Source

#: `524288 tokens`, `0.5M tokens`, `1.5B tokens`. Also in the JSON Schema, so without Python's own syntax.
TOKENS = (
    r"^\s*(?=[0-9_,.]*[1-9])([0-9][0-9_,]*(?:\.[0-9]*)?|\.[0-9]+)([eE]\+?[0-9]{1,2})?"
    r"(?:\s*([kKMBT]))?\s*tokens?\s*$"
)
_THOUSANDS = {None: 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
#: Keys of a config that hold numbers of examples. `*` stands for every item of a list.
_AMOUNTS: tuple[KeyPath, ...] = (
    ("training", "batch_size"),
    ("training", "examples"),
    ("probe", "batch_sizes", "*"),
    ("probe", "max_examples"),
    ("sweep", "batch_sizes", "*"),
    ("sweep", "branch", "examples"),
)


def parse_tokens(text: str) -> float | None:
    """The number in `524288 tokens`, `0.5M tokens` or `1.5B tokens`; None if the text is not a number of tokens."""
    found = re.fullmatch(TOKENS, text) if len(text) <= 100 else None
    if found is None:
        return None
    number = float(found[1].replace("_", "").replace(",", "") + (found[2] or ""))
    return number * _THOUSANDS[found[3]]


def convert_tokens(source: Source) -> set[KeyPath]:
    """Convert amounts of tokens in `source` to examples, by training.tokens_per_example; at least 1 example.

    Returns:
        The places that could not be converted; their mistakes are noted in `source`.
    """
    wrong: set[KeyPath] = set()
    training = source.data.get("training")
    given = training.get("tokens_per_example") if isinstance(training, dict) else None
    for holder, key, path in _amounts(source.data):
        text = holder[key]
        if not isinstance(text, str) or not re.search(r"tokens?\s*$", text):
            continue
        name = ".".join(map(str, path))
        number = parse_tokens(text)
        if number is None or not math.isfinite(number):
            expected = "a number of tokens, such as 524288 tokens or 0.5M tokens, or a number of examples"
            source.problem(path, f"`{name}: {text}`", expected)
            wrong.add(path)
        elif given is None:
            expected = "`training.tokens_per_example` too, the tokens of one example, or a number of examples"
            source.problem(path, f"tokens (`{name}: {text}`)", expected)
            wrong.add(path)
        elif isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
            wrong.add(path)  # the mistake is in training.tokens_per_example, which is reported by itself
        elif not math.isfinite(number / given):
            source.problem(
                path, f"`{name}: {text}` of {given} tokens each", "fewer examples than a float can count"
            )
            wrong.add(path)
        else:
            holder[key] = max(1, round(number / given))
    return wrong


def _amounts(data: dict[str, Any]) -> Iterator[tuple[Any, Any, KeyPath]]:
    """For each amount in the config: its container, its key in the container, and its full path."""
    for path in _AMOUNTS:
        *outer, last = path
        holder: Any = data
        for key in outer:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if last == "*" and isinstance(holder, list):
            yield from ((holder, i, (*outer, i)) for i in range(len(holder)))
        elif isinstance(holder, dict) and last in holder:
            yield holder, last, path
