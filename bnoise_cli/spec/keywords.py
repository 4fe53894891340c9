"""Keyword arguments of a Python call as a config: the keys, defaults and checks of the schema."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bnoise_cli.errors import CallError
from bnoise_cli.spec.defaults import compose_defaults
from bnoise_cli.spec.described import described, plain
from bnoise_cli.spec.imports import nearest
from bnoise_cli.spec.load import TARGET_KEYS, Spec, validated
from bnoise_cli.spec.schema import Config, Probe, Section, Sweep, Training
from bnoise_cli.spec.source import KeyPath, Source, read_source
from bnoise_cli.storage import absolute

#: Training steps that no run takes; the counters of random streams hold more.
_MOST_STEPS = 10**15
_SECTIONS: dict[str, type[Section]] = {"probe": Probe, "sweep": Sweep, "training": Training}


def spec_of_call(
    command: str,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    config: str | Path | None = None,
    step: int = 0,
) -> Spec:
    """The spec of a call from Python.

    Args:
        command: the measuring command, whose section of the config the settings are looked for in first; then in
            `training` and `probe`, then among the sections themselves.
        given: objects by the key of the config in whose place they are used; None: none.
        settings: values by key, as in `budget="60s"` or `check={"max_compute_overhead": 0.5}`.
        config: a file whose values hold where `settings` has none, and whose targets describe the objects.
        step: training steps that the model has taken.

    Raises:
        ConfigError: with all mistakes.
        CallError: `step` is not a number of steps.
    """
    if not isinstance(step, int) or not 0 <= step <= _MOST_STEPS:
        raise CallError(
            f"step must be a whole number of training steps, from 0 to {_MOST_STEPS:,}; found {step!r}."
        )
    given = {key: value for key, value in given.items() if value is not None}
    if config is None:
        source = Source(name=f"bnoise_cli.{command}()", folder=absolute(Path()), data={"version": 1})
        source.data |= {key: described(value) for key, value in given.items()}
    else:
        source = read_source(Path(config))
        compose_defaults(source)
    for key, value in settings.items():
        _set(source, command, key, plain(value))
    path = Path(config) if config is not None else Path(source.name)
    return validated(source, path, given=given, step=step)


def signature_of(command: str, call: inspect.Signature) -> inspect.Signature:
    """The signature of a call with every setting of the schema in the place of `**settings`."""
    own = {p.name: p for p in call.parameters.values() if p.kind is not p.VAR_KEYWORD}
    for _, name, field in _keys(command):
        kind, default = inspect.Parameter.KEYWORD_ONLY, field.get_default()
        own.setdefault(name, inspect.Parameter(name, kind, default=default, annotation=field.annotation))
    return call.replace(parameters=list(own.values()))


def _keys(command: str) -> Iterator[tuple[KeyPath, str, Any]]:
    """Every setting of a call: its place in the config, its name and its field, in the order of the search."""
    for section in dict.fromkeys((command, "training", "probe")):
        for name, field in _SECTIONS[section].model_fields.items():
            yield (section, name), name, field
    for name, field in Config.model_fields.items():
        if name not in (*TARGET_KEYS, "version", "checkpoint"):
            yield (name,), name, field


def _set(source: Source, command: str, key: str, value: Any) -> None:
    """Put a setting where the schema has it."""
    path = next((path for path, name, _ in _keys(command) if name == key), None)
    if path is None:
        known = sorted({name for _, name, _ in _keys(command)})
        source.problem((), f"unknown argument `{key}`", f"one of {', '.join(known)}", nearest(key, known))
        return
    *outer, last = map(str, path)
    holder = source.data.setdefault(outer[0], {}) if outer else source.data
    holder[last] = (
        holder[last] | value if isinstance(value, dict) and isinstance(holder.get(last), dict) else value
    )
    source.places[path] = f"{key}="
