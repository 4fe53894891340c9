"""A stored result, read back and checked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bnoise_cli.errors import CallError
from bnoise_cli.records import SCHEMA_VERSION, Estimate
from bnoise_cli.results.branch import as_branches
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.result import Kind, Result
from bnoise_cli.storage import read_json


def read_result(path: Path) -> Result:
    """Read a result that `bnoise probe` or `bnoise sweep` stored; fields that this version does not know are left out.

    Raises:
        CallError: there is no such file, it is torn or no result, or its schema has another version.
    """
    return checked_result(path, read_json(path))


def checked_result(path: Path, data: Any) -> Result:
    """A result from what was read of a file.

    Raises:
        CallError: as `read_result`.
    """
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
    if str(data["kind"]) not in KINDS:
        kinds = " and ".join(map(repr, KINDS))
        raise CallError(f"{path} is a result of kind {str(data['kind'])[:40]!r}; this bnoise reads {kinds}.")
    data = as_branches(_clean(data))
    kind = KINDS[data["kind"]]
    try:
        result: Result = _reader(kind.name).validate_python(data)
        wrong = next((place for place, holds in _checks(result) if not holds), None)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or error.title
        raise _damaged(path, f"`{place}`: {first['msg'].lower()}", kind) from None
    if wrong is not None:
        raise _damaged(path, f"`{wrong}` has an impossible value", kind)
    return result


@cache
def _reader(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind].result)


def _damaged(path: Path, how: str, kind: Kind) -> CallError:
    return CallError(f"{path} is damaged: {how}. Make it again with `bnoise {kind.command}`.")


def _checks(result: Result) -> Iterator[tuple[str, bool]]:
    """Relations between values that arithmetic relies on, and whether they hold."""
    for place, found in _estimates(result, ""):
        value, low, high = found.value, found.low, found.high
        ordered = value is None or low <= value * (1 + 1e-9)
        yield place, ordered and (high is None or (value is not None and value <= high * (1 + 1e-9)))
    plan = result.plan
    training = plan.training
    yield "config.optimizer", bool(plan.optimizer)
    yield "config.training", training.batch_size % training.world_size == 0
    length = training.steps if training.examples is None else training.examples
    yield "config.advice", plan.advice.deadline is None or length is not None
    if (times := result.throughput) is not None:
        sizes = [step.micro_batch_size for step in times.step_times]
        yield "throughput.parallel", (times.world_size > 1) == (times.parallel is not None)
        yield "throughput.step_times", bool(sizes) and sizes == sorted(set(sizes))
        yield "throughput.step_times", all(step.exchange_seconds < step.seconds for step in times.step_times)
        waits = any(step.exchange_seconds for step in times.step_times)
        yield "throughput.step_times", not waits or times.parallel == "ddp"
        yield "throughput.largest_micro_batch_size", times.largest_micro_batch_size == max(sizes, default=0)


def _estimates(record: Any, place: str) -> Iterator[tuple[str, Estimate]]:
    """Every estimate in a record, with its dotted place."""
    if isinstance(record, Estimate):
        yield place, record
    elif isinstance(record, tuple):
        for i, item in enumerate(record):
            yield from _estimates(item, f"{place}.{i}")
    elif is_dataclass(record):
        for part in fields(record):
            name = f"{place}.{part.name}" if place else part.name
            yield from _estimates(getattr(record, part.name), name)


def _clean(value: Any) -> Any:
    """The same data without control characters, which could steer a terminal; a number beyond floats becomes null."""
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        return None
    if isinstance(value, str):
        return "".join(c for c in value if c.isprintable())
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
