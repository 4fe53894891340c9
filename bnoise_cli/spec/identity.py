"""The part of a config that a measurement depends on, and its hash, by which a stored result is found."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bnoise_cli.errors import ConfigError, Problem
from bnoise_cli.spec.check_targets import MOST_PARSED
from bnoise_cli.spec.checkpoints import files_of
from bnoise_cli.spec.load import TARGET_KEYS, Spec, short_json
from bnoise_cli.spec.source import Source, is_file
from bnoise_cli.spec.targets import target_name, targets_in
from bnoise_cli.storage import read_plain, sampled_hash

#: Raised when entries of a sweep's ledger change their meaning.
_LEDGER = 4


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
    probe = config.get("probe")
    mode = probe.get("precision_mode") if isinstance(probe, Mapping) else None
    return {**kept, **settings, "probe": {**settings.get("probe", {}), "precision_mode": mode}}


def measured_hash(spec: Spec, found: Mapping[str, Any]) -> str:
    """sha256 of what is measured, as `measured` finds it, and of the user's code that the config names."""
    return _sha256({**found, "code": code_hashes(spec)})


def ledger_hash(spec: Spec) -> str:
    """Hash of everything a single training run depends on.

    Batch sizes, budget and advice are left out, so that a change of them keeps finished runs.
    """
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
    try:
        return {name: _file_hash(path) for name, path in sorted(code_files(spec).items())}
    except OSError as error:
        raise _unreadable(spec, error) from None


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
    """Hash of the checkpoint: `sampled_hash` of its file, or of all its files together. None if a file is missing."""
    files = {str(path): files_of(path) for path in spec.checkpoints()}
    each = [file for found in files.values() for file in found]
    if not each or not all(map(is_file, each)):
        return None
    try:
        if len(files) == 1 and each == spec.checkpoints():
            return sampled_hash(each[0])
        return _sha256(
            [sorted((file.name, sampled_hash(file)) for file in found) for found in files.values()]
        )
    except OSError as error:
        raise _unreadable(spec, error) from None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How what was measured differs from what is wanted now, both as `measured` finds it; a sentence each."""
    found, wanted = _leaves(before), _leaves(now)
    return [
        f"`{key}` was {short_json(found.get(key), 60)} and is {short_json(wanted.get(key), 60)}"
        for key in sorted(found.keys() | wanted.keys())
        if _canonical(found.get(key)) != _canonical(wanted.get(key))
    ]


def _file_of(target: str, source: Source) -> tuple[str, Path] | None:
    """The user's file that defines a target: as the config names it, and its path; None if it is not known."""
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


def _file_hash(path: Path) -> str:
    return (
        sampled_hash(path) if path.stat().st_size > MOST_PARSED else _code_hash(read_plain(path, MOST_PARSED))
    )


@cache
def _code_hash(source: bytes) -> str:
    """sha256 of the tokens of code: comments, blank lines and the space between tokens do not count.

    Many configs name the same file, so the hash is kept.
    """
    import tokenize  # few configs name files

    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING)
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(source.replace(b"\r\n", b"\n")).readline))
    except (tokenize.TokenError, SyntaxError, RecursionError, ValueError):
        return hashlib.sha256(source).hexdigest()
    encoding = tokens[0].string
    # The hash depends on where blocks begin and end, not on the width of the indentation.
    blocks = (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE)
    kept = [(t.type, "" if t.type in blocks else t.string) for t in tokens if t.type not in ignored]
    return _sha256([encoding, kept])


def _unreadable(spec: Spec, error: OSError) -> ConfigError:
    """A file that the config names cannot be read."""
    found = f"{error.filename}, which cannot be read ({error.strerror or error})"
    return ConfigError([Problem(place=str(spec.path), found=found, expected="plain files that can be read")])


def _leaves(value: Any, key: str = "") -> dict[str, Any]:
    """Every value that is not a mapping, by its dotted key."""
    if not isinstance(value, Mapping) or not value:
        return {key: value}
    parts = (_leaves(part, f"{key}.{name}" if key else str(name)) for name, part in value.items())
    return {key: part for leaves in parts for key, part in leaves.items()}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _sha256(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()
