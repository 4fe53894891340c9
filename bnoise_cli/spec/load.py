"""Read a config file and its overrides into a validated spec, and report all mistakes at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from bnoise_cli.spec.check_targets import check_form, check_targets
from bnoise_cli.spec.checkpoints import WEIGHTS, weights_file
from bnoise_cli.spec.defaults import compose_defaults
from bnoise_cli.spec.imports import nearest
from bnoise_cli.spec.interpolation import resolve_interpolations
from bnoise_cli.spec.override import apply_override
from bnoise_cli.spec.schema import Config, Section
from bnoise_cli.spec.source import MOST_TOLD, KeyPath, Source, cut, is_folder, read_source
from bnoise_cli.spec.units import convert_tokens

TARGET_KEYS = ("model", "dataset", "collate", "loss", "objective", "optimizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A well-formed config, and the file it came from.

    Attributes:
        given: objects of a Python program, by the key of the target in whose place they are used; a model also takes
            the place of the checkpoint.
        step: training steps that a given model has taken.
    """

    config: Config
    source: Source
    path: Path
    given: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the config start from."""
        return self.source.folder

    def require_targets(self) -> None:
        """Import all targets that are used, and check their arguments. This runs the user's code.

        Raises:
            ConfigError: with all mistakes.
        """
        keys = [key for key in TARGET_KEYS if getattr(self.config, key) is not None and key not in self.given]
        if check_targets(self.source, keys):
            raise self.source.error()

    def resolved(self) -> dict[str, Any]:
        """The config as plain data, with the defaults of all keys that it leaves out."""
        return self.config.model_dump(mode="json")

    def checkpoints(self) -> list[Path]:
        """The paths of the checkpoints that are loaded, in the order of the config."""
        return [] if "model" in self.given else [self.folder / name for name in self.config.checkpoints]


def load_spec(path: Path, overrides: Sequence[str] = (), *, at_hand: bool = True) -> Spec:
    """Read and validate a config without importing or running anything it names.

    Args:
        at_hand: True if the packages and weights that the config names must be on this machine.

    Raises:
        ConfigError: with all mistakes that can be found without running code.
    """
    source = read_source(path)
    compose_defaults(source)
    for override in overrides:
        apply_override(source, override)
    return validated(source, path, at_hand=at_hand)


def validated(
    source: Source, path: Path, *, given: Mapping[str, Any] | None = None, step: int = 0, at_hand: bool = True
) -> Spec:
    """A spec from what was read.

    Args:
        given, step: as the spec has them. The target of a given object only describes it.
        at_hand: as for `load_spec`.

    Raises:
        ConfigError: as `load_spec`.
    """
    given = given or {}
    resolve_interpolations(source)
    unconverted = convert_tokens(source)
    told = {problem.place for problem in source.problems}
    config = None
    try:
        config = Config.model_validate(source.data)
    except ValidationError as error:
        for place, mistakes in _by_place(source, error).items():
            if place not in unconverted and source.places.get(place) not in told:
                _note(source, place, mistakes)
    for key in TARGET_KEYS:
        if key not in given and isinstance(source.data.get(key), dict):
            check_form(source, key, installed=at_hand)
    if source.data.get("loss") is not None and source.data.get("objective") is not None:
        source.problem(("objective",), "both `loss` and `objective`", "one of them")
    if config is not None:
        _note_the_plan(source, config)
        if "model" not in given:
            _note_the_trajectory(source, config)
    if at_hand and "model" not in given:
        _note_the_checkpoints(source, source.data.get("checkpoint"))
    if source.problems or config is None:
        raise source.error()
    return Spec(config=config, source=source, path=path, given=given, step=step)


def _note_the_plan(source: Source, config: Config) -> None:
    """Note values that are right by themselves and contradict each other."""
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


def _note_the_trajectory(source: Source, config: Config) -> None:
    """Note settings that do not fit several checkpoints."""
    names = config.checkpoints
    if len(names) < 2:
        return
    if config.probe.at_steps is not None:
        source.problem(
            ("probe", "at_steps"),
            f"both `probe.at_steps` and {len(names)} checkpoints",
            "one of them; `probe.warmup_steps` are trained from each checkpoint",
        )
    elif needed := config.probe.examples_needed(len(names)):
        found = f"`probe.max_examples: {config.probe.max_examples}` for {len(names)} checkpoints"
        source.problem(("probe", "max_examples"), found, needed)


def _note_the_checkpoints(source: Source, named: Any) -> None:
    """Note checkpoints that are not on this machine."""
    each: list[tuple[KeyPath, Any]] = [(("checkpoint",), named)]
    if isinstance(named, list):
        each = [(("checkpoint", i), name) for i, name in enumerate(named)]
    for place, name in each:
        if not isinstance(name, str) or weights_file(source.folder / name) is not None:
            continue
        path, found = source.folder / name, f"`checkpoint: {name}`"
        if is_folder(path):
            source.problem(
                place, f"{found}, a folder without weights", f"one of {', '.join(WEIGHTS)} in {path}"
            )
        else:
            source.problem(
                place, found, f"a file of weights, or a folder with one, of this name in {path.parent}"
            )


def _by_place(source: Source, error: ValidationError) -> dict[KeyPath, list[Any]]:
    """pydantic's errors by place. Errors of the members of one union are at one place."""
    places: dict[KeyPath, list[Any]] = {}
    for mistake in error.errors():
        places.setdefault(_real_path(source.data, mistake["loc"]), []).append(mistake)
    # Inside a list, the members of a union report errors at different depths. The deepest error is the most precise.
    around = {path[:depth] for path in places for depth in range(len(path))}
    return {path: mistakes for path, mistakes in places.items() if path not in around}


def _note(source: Source, path: KeyPath, mistakes: list[Any]) -> None:
    """Note pydantic's errors about one value as one mistake, in the words of all other mistakes."""
    first = mistakes[0]
    last = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        close = nearest(last, known) if len(source.problems) < MOST_TOLD else None
        source.problem(path, f"unknown key `{cut(last, 80)}`", f"one of {', '.join(known)}", close)
    elif first["type"] == "missing":
        source.problem(path[:-1], f"no `{last}`", f"the key `{_key(path)}`")
    else:
        expected = " or ".join(dict.fromkeys(_expected(mistake) for mistake in mistakes))
        source.problem(path, f"`{_key(path)}: {short_json(first['input'], 40)}`", expected)


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
    "finite_number": "a finite number",
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
    """pydantic's location without the names of union members, which are not keys of the config."""
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
        members = get_args(annotation) or (annotation,)  # an optional section, such as Branch | None
        model = next(each for each in members if isinstance(each, type) and issubclass(each, Section))
    return list(model.model_fields)


def _key(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def short_json(value: Any, most: int) -> str:
    """A value as JSON, cut at `most` characters."""
    return cut(json.dumps(value, default=str, ensure_ascii=False), most)
