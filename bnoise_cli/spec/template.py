"""Configs for `bnoise init`: the examples that come with bnoise, and a new one for the user's own targets."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bnoise_cli.errors import CallError, ConfigError, Problem, printable
from bnoise_cli.spec.imports import TargetError, nearest, resolve
from bnoise_cli.spec.load import TARGET_KEYS
from bnoise_cli.spec.schema import Check, Config, Probe, Section, Training

_PACKAGE = Path(__file__).resolve().parents[1]
#: Number of arguments that bnoise itself passes: the parameters; (prediction, target); (model, batch); the examples.
_GIVEN = {"optimizer": 1, "loss": 2, "objective": 2, "collate": 1}
#: The keys that a new config shows in each section. All others keep their defaults.
_SHOWN: tuple[tuple[str, type[Section], tuple[str, ...]], ...] = (
    ("training", Training, ("batch_size", "world_size")),
    ("probe", Probe, ("warmup_steps", "precision", "budget")),
    ("check", Check, ("max_compute_overhead",)),
)
_COLUMN = 38


def example_names() -> list[str]:
    """The names of the examples that come with bnoise."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def example_config(name: str) -> str:
    """The text of an example.

    Raises:
        CallError: no example has that name.
    """
    path = _folder() / f"{name}.yaml"
    if name not in example_names():
        near = nearest(name, example_names())
        known = ", ".join(example_names())
        hint = f"; did you mean {near}?" if near else ""
        raise CallError(f"--example needs one of {known}; found {name!r}{hint}")
    return path.read_text(encoding="utf-8")


def companions(name: str) -> dict[str, str]:
    """The code that an example needs beside its config: contents of files by file name."""
    script = _folder() / f"{name}.py"
    return {script.name: script.read_text(encoding="utf-8")} if script.is_file() else {}


def config_for(targets: dict[str, str], folder: Path) -> str:
    """A config for the user's own targets that shows all their arguments with defaults. This runs the named code.

    Args:
        targets: a dotted path or `file.py:name` for each of `model`, `dataset` and so on.
        folder: the folder that relative paths start from.

    Raises:
        ConfigError: a target does not exist; with all such mistakes.
    """
    found, problems = {}, []
    for key, name in targets.items():
        try:
            found[key] = resolve(name, folder)
        except TargetError as error:
            problems.append(
                Problem(place=f"--{key}", found=error.found, expected=error.expected, nearest=error.nearest)
            )
    if problems:
        raise ConfigError(problems)
    lines = ["# Written by `bnoise init`; `bnoise probe --dry-run` tries it.", "version: 1"]
    for key in TARGET_KEYS:
        if key in targets:
            lines += _target(key, targets[key], found[key])
    if not {"loss", "objective"} & targets.keys():
        lines.append("# loss, objective: neither is named, so the loss is model(**batch).loss")
    return "\n".join([*lines, *settings()]) + "\n"


def settings(known: Mapping[tuple[str, str], Any] | None = None) -> list[str]:
    """The lines of the sections that a new config shows.

    Args:
        known: values by section and key; a key that is not shown otherwise is added.
    """
    known, lines = known or {}, []
    for name, section, shown in _SHOWN:
        lines.append(commented(f"{name}:", section.__doc__ or ""))
        for key in (*shown, *(key for place, key in known if place == name and key not in shown)):
            field = section.model_fields[key]
            value = known.get((name, key), field.default)
            lines.append(commented(f"  {key}: {_value(value)}", field.description or ""))
    return lines


def _target(key: str, name: str, found: Any) -> list[str]:
    lines = [
        commented(f"{key}:", Config.model_fields[key].description or ""),
        f"  _target_: {_value(name)}",
    ]
    for parameter in _parameters(key, found):
        default = parameter.default
        kind = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
        if default is parameter.empty:
            lines.append(commented(f"  # {parameter.name}:", f"needed{kind}"))
        elif default is None or not _is_plain(default):
            usual = getattr(default, "__qualname__", repr(default))
            lines.append(commented(f"  # {parameter.name}:", f"{_short(usual)} unless given{kind}"))
        else:
            lines.append(f"  {parameter.name}: {_value(default)}")
    return lines


def _parameters(key: str, found: Any) -> Sequence[inspect.Parameter]:
    """The arguments that a config may give to a target."""
    try:
        signature = inspect.signature(found) if callable(found) else None
    except (TypeError, ValueError):
        signature = None
    if signature is None:
        return []
    given = _GIVEN.get(key, 0)
    if key != "optimizer" and inspect.isclass(found):
        given = 0
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p for p in list(signature.parameters.values())[given:] if p.kind in named]


def _is_plain(value: Any) -> bool:
    """True if a value survives being written and read as YAML."""
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)


def _value(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10**9)
    return text.removesuffix("\n").removesuffix("...").strip()


def _annotation(annotation: Any) -> str:
    return _short(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))


def _short(text: str) -> str:
    return textwrap.shorten(text, 60, placeholder=" …")


def commented(line: str, comment: str) -> str:
    """A line with a comment that begins at a fixed column."""
    return f"{line:<{_COLUMN}}# {printable(comment)}" if comment else line


def _folder() -> Path:
    """The folder of the examples: inside an installed package, or `configs/` of the source tree."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"
