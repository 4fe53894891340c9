"""A live object as a config would name it, for the record of what was measured."""

from __future__ import annotations

import functools
import inspect
import sys
from itertools import accumulate
from typing import Any

#: Marks an object whose arguments are not known, so that no config on disk is taken for the same.
_GIVEN = "_given_"


def described(value: Any) -> dict[str, Any]:
    """The target that would build an object: the name of its class or function, and settings that are known.

    They are known of a `functools.partial` and of an optimizer, which has those of its first group.
    """
    if isinstance(value, functools.partial):
        return {"_target_": _name(value.func), **_plain_items(value.keywords)}
    if inspect.isroutine(value) or inspect.isclass(value):
        return {"_target_": _name(value)}
    target: dict[str, Any] = {"_target_": _name(type(value))}
    groups = getattr(value, "param_groups", None)
    if not groups:
        return {**target, _GIVEN: True}
    taken = inspect.signature(type(value)).parameters
    return {**target, **_plain_items({key: item for key, item in groups[0].items() if key in taken})}


def plain(value: Any) -> Any:
    """A value as YAML gives it: tuples and ranges as lists, numbers of NumPy and torch as numbers, paths as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(item) for item in value]
    if hasattr(value, "__fspath__"):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _plain_items(items: dict[str, Any]) -> dict[str, Any]:
    values = {key: plain(value) for key, value in items.items()}
    return {key: value for key, value in values.items() if _is_data(value)}


def _is_data(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_data, value))
    return value is None or isinstance(value, bool | int | float | str)


def _name(named: Any) -> str:
    """The shortest dotted path to a class or function, as in torch.optim.SGD for torch.optim.sgd.SGD."""
    module, name = str(named.__module__), str(getattr(named, "__qualname__", type(named).__qualname__))
    for package in accumulate(module.split("."), "{}.{}".format):
        if getattr(sys.modules.get(package), name, None) is named:
            return f"{package}.{name}"
    return f"{module}.{name}"
