"""Build what a config names: call its targets with their arguments."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

from bnoise_cli.spec.imports import resolve
from bnoise_cli.spec.load import Spec
from bnoise_cli.spec.targets import PARTIAL, arguments, is_target, target_name


def part(spec: Spec, key: str) -> Any:
    """The object that was given for a key of the config, or what its target builds."""
    return spec.given[key] if key in spec.given else build(getattr(spec.config, key), spec.folder)


def function_part(spec: Spec, key: str) -> Any:
    """The same for `loss`, `objective` and `collate`; None if the config names none."""
    if key in spec.given:
        return spec.given[key]
    value = getattr(spec.config, key)
    return None if value is None else build_function(value, spec.folder)


def build(value: Any, folder: Path, first: tuple[Any, ...] = ()) -> Any:
    """Build a value of the config: call its targets, innermost first, and keep everything else as it is.

    Args:
        first: positional arguments in front of those of the config.
    """
    if isinstance(value, list):
        return [build(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if not is_target(value):
        return {key: build(item, folder) for key, item in value.items()}
    called = resolve(target_name(value), folder)
    positional, keywords = arguments(value)
    args = [*first, *build(positional, folder)]
    kwargs = {key: build(item, folder) for key, item in keywords.items()}
    if value.get(PARTIAL):
        return functools.partial(called, *args, **kwargs)
    if not callable(called) and not args and not kwargs:
        return called
    return called(*args, **kwargs)


def build_function(value: dict[str, Any], folder: Path) -> Any:
    """Build a target under `loss`, `objective` or `collate`: call a class, bind the arguments of a function."""
    called = resolve(target_name(value), folder)
    if inspect.isclass(called) or value.get(PARTIAL):
        return build(value, folder)
    positional, keywords = arguments(value)
    if not positional and not keywords:
        return called
    return functools.partial(
        called, *build(positional, folder), **{k: build(v, folder) for k, v in keywords.items()}
    )
