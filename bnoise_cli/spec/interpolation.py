"""`${key}` of OmegaConf: values of a config that stand for other values of it."""

from __future__ import annotations

import re
from typing import Any

from bnoise_cli.spec.nodes import DEEPEST, MOST_VALUES, too_deep, too_many_values
from bnoise_cli.spec.source import KeyPath, Source, cut

_ONE = re.compile(r"\$\{([^${}]*)\}")
#: What is left of an interpolation that `_ONE` does not read.
_OTHER = re.compile(r"\$\{")
#: Characters of all values that interpolations make. A config has a thousandth.
_MOST_CHARACTERS = 1 << 20


class _NotResolvedError(Exception):
    """Carries what was found and what was expected."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found)
        self.found, self.expected = found, expected


def resolve_interpolations(source: Source) -> None:
    """Put the values that they stand for in the place of all interpolations; note those that stand for none.

    Read are `${a.b}` from the top, `${.b}` beside the value and `${..b}` further out, alone or inside a text. Resolvers
    such as `${oc.env:NAME}` are not: what is measured would depend on more than the config.

    Raises:
        ConfigError: they make more than a config can hold.
    """
    if _has_any(source.data):
        source.data = _Resolver(source).value(source.data, (), ())


def _has_any(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_any, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and _OTHER.search(value) is not None


class _Resolver:
    def __init__(self, source: Source) -> None:
        self._source, self._values, self._characters, self._depth = source, 0, 0, 0

    def value(self, value: Any, path: KeyPath, within: tuple[KeyPath, ...]) -> Any:
        """A value without interpolations.

        Args:
            path: where it stands in the config, which relative interpolations begin from.
            within: the places whose values are being found, which this one cannot be part of.
        """
        self._values += 1
        if self._values > MOST_VALUES or self._characters > _MOST_CHARACTERS:
            raise too_many_values(self._source.name)
        if self._depth > DEEPEST:
            raise too_deep(self._source.name)
        self._depth += 1
        try:
            return self._value(value, path, within)
        finally:
            self._depth -= 1

    def _value(self, value: Any, path: KeyPath, within: tuple[KeyPath, ...]) -> Any:
        if isinstance(value, dict):
            return {key: self.value(item, (*path, key), within) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, (*path, i), within) for i, item in enumerate(value)]
        if not isinstance(value, str) or _OTHER.search(value) is None:
            return value
        try:
            return self._text(value, path, within)
        except _NotResolvedError as error:
            if not within:  # the value that the user wrote, and not one on the way
                self._source.problem(path, error.found, error.expected)
                return None
            raise

    def _text(self, text: str, path: KeyPath, within: tuple[KeyPath, ...]) -> Any:
        if path in within:
            raise _NotResolvedError(
                f"`{cut(text, 80)}`, which stands for itself", "an interpolation that ends"
            )
        inner = (*within, path)
        whole = _ONE.fullmatch(text)
        if whole is not None:
            return self._target(whole[1], path, inner)
        made = _ONE.sub(lambda found: str(self._target(found[1], path, inner)), text)
        self._characters += len(made)
        if _OTHER.search(_ONE.sub("", text)) is not None:
            raise _NotResolvedError(
                f"the interpolation `{cut(text, 80)}`", "one of a key, as in `${training.batch_size}`"
            )
        return made

    def _target(self, name: str, path: KeyPath, within: tuple[KeyPath, ...]) -> Any:
        shown = f"the interpolation `${{{cut(name, 80)}}}`"
        if ":" in name:
            raise _NotResolvedError(
                shown,
                "one of a key of this config, or the value itself: resolvers depend on more than the config",
            )
        dots = len(name) - len(name.lstrip("."))
        place: list[str | int] = list(path[: len(path) - dots]) if dots else []
        found: Any = self._source.data
        for part in place:
            found = found[part]
        for key in re.findall(r"[^.\[\]]+", name):
            part = int(key) if isinstance(found, list) and key.isdecimal() and len(key) < 10 else key
            known = isinstance(found, dict) and part in found
            if not known and not (isinstance(found, list) and isinstance(part, int) and part < len(found)):
                raise _NotResolvedError(shown, "a key that this config has")
            found = found[part]
            place.append(part)
        if tuple(place) in (path[: len(place)], *(outer[: len(place)] for outer in within)):
            raise _NotResolvedError(f"{shown}, which stands for itself", "an interpolation that ends")
        return self.value(found, tuple(place), within)
