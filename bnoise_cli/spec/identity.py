"""The part of a config that a measurement depends on, and its hash, by which a stored result is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bnoise_cli.spec.checkpoints import files_of
from bnoise_cli.spec.code_files import code_hashes, unreadable
from bnoise_cli.spec.load import TARGET_KEYS, Spec, short_json
from bnoise_cli.spec.source import is_file
from bnoise_cli.storage import sampled_hash

#: Raised when entries of a sweep's ledger change their meaning.
_LEDGER = 5


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
    """sha256 of what is measured, as `measured` finds it, and of the user's code."""
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
        raise unreadable(spec, error) from None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How what was measured differs from what is wanted now, both as `measured` finds it; a sentence each."""
    found, wanted = _leaves(before), _leaves(now)
    return [
        f"`{key}` was {short_json(found.get(key), 60)} and is {short_json(wanted.get(key), 60)}"
        for key in sorted(found.keys() | wanted.keys())
        if _canonical(found.get(key)) != _canonical(wanted.get(key))
    ]


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
