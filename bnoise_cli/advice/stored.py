"""A stored result, read back and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bnoise_cli.errors import CallError
from bnoise_cli.records import SCHEMA_VERSION, ProbeResult, Result, SweepResult
from bnoise_cli.spec.schema import Advice, Probe, Section, Training
from bnoise_cli.storage import read_json

S = TypeVar("S", bound=Section)
_KINDS: dict[str, type[Any]] = {"probe": ProbeResult, "sweep": SweepResult}


def read_result(path: Path) -> Result:
    """Read a result that `bnoise probe` or `bnoise sweep` stored; fields that this version does not know are left out.

    Raises:
        CallError: there is no such file, it is torn or no result, or its schema has another version.
    """
    data = read_json(path)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(version, int) or "kind" not in data:
        raise CallError(
            f"a result is needed; {path} is JSON of something else. Name a file that bnoise wrote."
        )
    if version != SCHEMA_VERSION:
        raise CallError(
            f"{path} has schema_version {version}; this bnoise reads {SCHEMA_VERSION}. "
            "Read it with the bnoise that wrote it, or measure again."
        )
    if str(data["kind"]) not in _KINDS:
        kinds = " and ".join(map(repr, _KINDS))
        raise CallError(f"{path} is a result of kind {str(data['kind'])[:40]!r}; this bnoise reads {kinds}.")
    try:
        result: Result = TypeAdapter(_KINDS[data["kind"]]).validate_python(data)
        _require_plan(result.config)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or error.title
        raise CallError(
            f"{path} is damaged: `{place}`: {first['msg'].lower()}. Make it again with `bnoise probe`."
        ) from None
    return result


def planned(config: dict[str, Any]) -> tuple[Training, Advice]:
    """The plan in a stored config: the run and the user's limits."""
    return _section(Training, config, "training"), _section(Advice, config, "advice")


def _require_plan(config: dict[str, Any]) -> None:
    planned(config)
    _section(Probe, config, "probe")
    TypeAdapter(dict[str, Any]).validate_python(config.get("optimizer"))


def _section(model: type[S], config: dict[str, Any], name: str) -> S:
    data = config.get(name, {})
    known = {key: data[key] for key in data if key in model.model_fields} if isinstance(data, dict) else data
    return model.model_validate(known)
