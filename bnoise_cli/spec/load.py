"""A config file and its overrides to a validated spec, every mistake reported at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bnoise_cli.errors import ConfigError
from bnoise_cli.spec.schema import Config, Section
from bnoise_cli.spec.source import KeyPath, Source, apply_override, read_source
from bnoise_cli.spec.targets import check_form, check_targets, nearest, target_name, targets_in

TARGET_KEYS = ("model", "dataset", "collate", "loss", "objective", "optimizer")
#: Raised when entries of a sweep's ledger change their meaning.
_LEDGER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A config that is well formed, with where it came from."""

    config: Config
    source: Source
    path: Path

    @property
    def folder(self) -> Path:
        """What relative paths in the config are relative to."""
        return self.source.folder

    def require_targets(self) -> None:
        """Import everything that is named and check its arguments. Runs the user's code.

        Raises:
            ConfigError: with every mistake.
        """
        keys = [key for key in TARGET_KEYS if getattr(self.config, key) is not None]
        if problems := check_targets(self.source, keys):
            raise ConfigError(problems)

    def resolved(self) -> dict[str, Any]:
        """The config with its defaults, as plain data."""
        return self.config.model_dump(mode="json")

    def measured_hash(self) -> str:
        """sha256 of what the measurement depends on: all but the planned batch and the budget."""
        whole = self.resolved()
        kept = {key: whole[key] for key in (*TARGET_KEYS, "checkpoint")}
        kept["start"] = {key: whole["probe"][key] for key in ("warmup_steps", "at_steps")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def sweep_hash(self) -> str:
        """sha256 of what the runs of a sweep depend on: all but the batch sizes, the budget and the advice."""
        whole = self.resolved()
        kept = {key: whole[key] for key in (*TARGET_KEYS, "checkpoint")}
        kept["start"] = {
            "warmup": whole["sweep"]["warmup_steps"],
            "seed": whole["probe"]["seed"],
            "max_grad_norm": whole["training"]["max_grad_norm"],
            "batch_size": whole["training"]["batch_size"],
        }
        kept["code"] = self._code()
        kept["ledger"] = _LEDGER
        kept["goal"] = {key: whole["sweep"][key] for key in ("goal", "steps", "max_steps", "seeds", "branch")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def _code(self) -> dict[str, str]:
        """sha256 of every file of the user's that the config names: with other code it is another sweep."""
        found = {}
        for key in TARGET_KEYS:
            for _, target in targets_in(self.source.data.get(key), (key,)):
                name, colon, _ = str(target_name(target)).rpartition(":")
                path = self.folder / name
                if colon and path.is_file():
                    found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


def load_spec(path: Path, overrides: Sequence[str] = ()) -> Spec:
    """Read and validate a config without importing or running anything it names.

    Raises:
        ConfigError: with every mistake that can be seen without running code.
    """
    source = read_source(path)
    for override in overrides:
        apply_override(source, override)
    config = None
    try:
        config = Config.model_validate(source.data)
    except ValidationError as error:
        for place, mistakes in _by_place(source, error).items():
            _note(source, place, mistakes)
    for key in TARGET_KEYS:
        if source.data.get(key) is not None and isinstance(source.data[key], dict):
            check_form(source, key)
    if source.data.get("loss") is not None and source.data.get("objective") is not None:
        source.problem(("objective",), "both `loss` and `objective`", "one of them")
    if config is not None:
        _note_the_plan(source, config)
    checkpoint = source.data.get("checkpoint")
    if isinstance(checkpoint, str) and not (source.folder / checkpoint).is_file():
        source.problem(
            ("checkpoint",),
            f"`checkpoint: {checkpoint}`",
            f"a file of weights at {source.folder / checkpoint}",
        )
    if source.problems or config is None:
        raise ConfigError(sorted(source.problems, key=_order))
    return Spec(config=config, source=source, path=path)


def _note_the_plan(source: Source, config: Config) -> None:
    """Mistakes between values that are right by themselves."""
    plan = config.training
    length = "`training.steps` or `training.examples`"
    if plan.steps is not None and plan.examples is not None:
        source.problem(
            ("training", "examples"), "both `training.steps` and `training.examples`", "one of them"
        )
    if plan.steps is None and plan.examples is None:
        found = f"a price without a length of the run (`training.price_per_device_hour: {plan.price_per_device_hour}`)"
        if plan.price_per_device_hour is not None:
            source.problem(("training", "price_per_device_hour"), found, f"{length} beside it")
        if config.advice.deadline is not None:
            source.problem(
                ("advice", "deadline"),
                "a deadline without a length of the run (`advice.deadline`)",
                f"{length} too",
            )
    rest = plan.batch_size % plan.world_size
    if rest:
        near = [size for size in (plan.batch_size - rest, plan.batch_size - rest + plan.world_size) if size]
        source.problem(
            ("training", "world_size"),
            f"a batch of {plan.batch_size} for {plan.world_size} devices",
            f"a `training.batch_size` that divides among them, such as {' or '.join(map(str, near))}",
        )


def _order(problem: Any) -> tuple[int, int]:
    *_, line, column = ("", "0", "0", *problem.place.rsplit(":", 2))[-3:]
    return (int(line), int(column)) if line.isdigit() and column.isdigit() else (1 << 30, 0)


def _by_place(source: Source, error: ValidationError) -> dict[KeyPath, list[Any]]:
    """pydantic's errors, those of the members of one union together."""
    places: dict[KeyPath, list[Any]] = {}
    for mistake in error.errors():
        places.setdefault(_real_path(source.data, mistake["loc"]), []).append(mistake)
    # Inside a list the members of a union disagree about the depth; the deepest says most.
    return {
        path: mistakes
        for path, mistakes in places.items()
        if not any(other != path and other[: len(path)] == path for other in places)
    }


def _note(source: Source, path: KeyPath, mistakes: list[Any]) -> None:
    """Word pydantic's errors about one value in the form that every mistake has."""
    first = mistakes[0]
    last = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        source.problem(path, f"unknown key `{last}`", f"one of {', '.join(known)}", nearest(last, known))
    elif first["type"] == "missing":
        source.problem(path[:-1], f"no `{last}`", f"the key `{_key(path)}`")
    else:
        expected = " or ".join(dict.fromkeys(_expected(mistake) for mistake in mistakes))
        source.problem(path, f"`{_key(path)}: {_value(first['input'])}`", expected)


def _expected(mistake: Any) -> str:
    kind = mistake["type"]
    if kind == "value_error":
        return str(mistake["ctx"]["error"])
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**mistake["ctx"])
    if kind == "literal_error":
        return str(mistake["ctx"]["expected"]).replace("'", "")
    return _EXPECTED.get(kind) or str(mistake["msg"])


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping with `_target_`",
    "list_type": "a list",
    "model_type": "a mapping of keys",
    "too_short": "a list that is not empty",
}
_BOUNDS = {
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
}


def _real_path(data: Any, loc: Sequence[str | int]) -> KeyPath:
    """pydantic's location without the names of union members, which are no keys."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif not isinstance(data, dict):
            continue
        path.append(part)
    return tuple(path)


def _keys_at(path: Sequence[str | int]) -> list[str]:
    model: type[Section] = Config
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        model = annotation
    return list(model.model_fields)


def _key(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def _value(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
