"""What a measurement depends on, and its hash: whether a stored result is one of this config."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bnoise_cli.spec.checkpoints import files_of
from bnoise_cli.spec.load import TARGET_KEYS, Spec, short_json
from bnoise_cli.spec.source import Source, is_file
from bnoise_cli.spec.targets import target_name, targets_in
from bnoise_cli.storage import sampled_hash

#: Raised when entries of a sweep's ledger change their meaning.
_LEDGER = 3


def measured(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a result depends on: not the planned batch, the budget, the seeds or the advice.

    Args:
        config: a resolved config.
        settings: the settings that this kind of measurement depends on, by section.
    """
    kept = {key: config.get(key) for key in (*TARGET_KEYS, "checkpoint")}
    training = config.get("training")
    clipped = training.get("max_grad_norm") if isinstance(training, Mapping) else None
    kept["training"] = {"max_grad_norm": clipped}
    return {**kept, **settings}


def measured_hash(spec: Spec, found: Mapping[str, Any]) -> str:
    """sha256 of what is measured, as `measured` finds it, and of the user's code that the config names."""
    return _sha256({**found, "code": code_hashes(spec)})


def ledger_hash(spec: Spec) -> str:
    """sha256 of what every single run of a sweep depends on, and where it goes on: all but sizes, budget and advice."""
    whole = spec.config.model_dump()
    start = {"seed": whole["probe"]["seed"], "batch_size": whole["training"]["batch_size"]}
    goal = {key: whole["sweep"][key] for key in ("goal", "steps", "max_steps", "seeds", "branch")}
    known = {
        "ledger": _LEDGER,
        "start": start,
        "goal": goal,
        "code": code_hashes(spec),
        "weights": weights_hash(spec),
    }
    settings = {"sweep": {"warmup_steps": whole["sweep"]["warmup_steps"]}}
    return _sha256({**measured(whole, settings), **known})


def code_hashes(spec: Spec) -> dict[str, str]:
    """sha256 of every file of the user's that the config names, without its comments and blank lines.

    Files are those of `file.py:name` and, in the config's folder or the current one, of `module.name`; what they import
    is not followed.
    """
    files = code_files(spec)
    return {name: _code_hash(files[name].read_bytes()) for name in sorted(files)}


def code_files(spec: Spec) -> dict[str, Path]:
    """The user's files of code by the names that the config gives them."""
    names = (
        str(target_name(target))
        for key in TARGET_KEYS
        for _, target in targets_in(spec.source.data.get(key), (key,))
    )
    return dict(found for name in names if (found := _file_of(name, spec.source)) is not None)


def contents(spec: Spec) -> dict[str, str]:
    """Every value of the config by its dotted key, and hashes of the checkpoints and of every file of code it names."""
    values = {f"`{key}`": _canonical(value) for key, value in _leaves(spec.config.model_dump()).items()}
    return {**values, **code_hashes(spec), "the checkpoint": str(weights_hash(spec))}


def weights_hash(spec: Spec) -> str | None:
    """Of the checkpoint's file `sampled_hash`, of more files the hash of theirs; None where one is not at hand."""
    files = {str(path): files_of(path) for path in spec.checkpoints()}
    each = [file for found in files.values() for file in found]
    if not each or not all(map(is_file, each)):
        return None
    if len(files) == 1 and each == spec.checkpoints():
        return sampled_hash(each[0])
    return _sha256([sorted((file.name, sampled_hash(file)) for file in found) for found in files.values()])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How what was measured differs from what is wanted now, both as `measured` finds it; a sentence each."""
    found, wanted = _leaves(before), _leaves(now)
    return [
        f"`{key}` was {short_json(found.get(key), 60)} and is {short_json(wanted.get(key), 60)}"
        for key in sorted(found.keys() | wanted.keys())
        if _canonical(found.get(key)) != _canonical(wanted.get(key))
    ]


def _file_of(target: str, source: Source) -> tuple[str, Path] | None:
    """The user's file that a target lies in, as the config names it and where it is; None where that is not known."""
    name, colon, _ = target.rpartition(":")
    if colon:
        path = source.folder / name
        return (name, path) if name.endswith(".py") and is_file(path) else None
    parts = target.split(".")
    if not all(parts) or parts[0] == "bnoise_cli":
        return None
    modules = [Path(*parts[:end]) for end in range(len(parts) - 1, 0, -1)]
    paths = [path for module in modules for path in (module.with_suffix(".py"), module / "__init__.py")]
    found = ((path.as_posix(), base / path) for base in (source.folder, source.here) for path in paths)
    return next(((name, path) for name, path in found if is_file(path)), None)


@cache
def _code_hash(source: bytes) -> str:
    """sha256 of code without what does not run: comments, blank lines, trailing space, the ends of lines.

    Many configs name the same file, so that what is known of it is kept.
    """
    import tokenize  # few configs name files

    text = source.decode("utf-8", "replace").replace("\r\n", "\n")
    lines = text.split("\n")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError, RecursionError, ValueError):
        tokens = []
    for token in tokens:
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return _sha256("\n".join(line.rstrip() for line in lines if line.strip()))


def _leaves(value: Any, key: str = "") -> dict[str, Any]:
    """Every value that is no mapping, by its dotted key."""
    if not isinstance(value, Mapping) or not value:
        return {key: value}
    parts = (_leaves(part, f"{key}.{name}" if key else str(name)) for name, part in value.items())
    return {key: part for leaves in parts for key, part in leaves.items()}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _sha256(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()
