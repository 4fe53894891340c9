"""A stored result, read back and checked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bnoise_cli.errors import CallError
from bnoise_cli.records import SCHEMA_VERSION, Estimate, ProbeResult, Result, SweepResult
from bnoise_cli.spec.schema import Advice, Probe, Section, Sweep, Training
from bnoise_cli.spec.targets import is_target
from bnoise_cli.storage import read_json

S = TypeVar("S", bound=Section)
_KINDS: dict[str, type[Any]] = {"probe": ProbeResult, "sweep": SweepResult}


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
    if str(data["kind"]) not in _KINDS:
        kinds = " and ".join(map(repr, _KINDS))
        raise CallError(f"{path} is a result of kind {str(data['kind'])[:40]!r}; this bnoise reads {kinds}.")
    try:
        result: Result = _reader(data["kind"]).validate_python(_clean(data))
        result = replace(result, config=_completed(result.config))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or error.title
        raise _damaged(path, f"`{place}`: {first['msg'].lower()}") from None
    for place, sane in _checks(result):
        if not sane:
            raise _damaged(path, f"`{place}` has an impossible value")
    return result


@cache
def _reader(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(_KINDS[kind])


def planned(config: dict[str, Any]) -> tuple[Training, Advice]:
    """The plan in a stored config: the run and the user's limits."""
    return _section(Training, config, "training"), _section(Advice, config, "advice")


def _damaged(path: Path, how: str) -> CallError:
    return CallError(f"{path} is damaged: {how}. Make it again with `bnoise probe` or `bnoise sweep`.")


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """The config with every value that the advice and the words read, defaults where it has none."""
    sections: dict[str, type[Section]] = {
        "training": Training,
        "advice": Advice,
        "probe": Probe,
        "sweep": Sweep,
    }
    full = {
        name: {**_section(model, config, name).model_dump(mode="json"), **config.get(name, {})}
        for name, model in sections.items()
    }
    return {**config, **full}


def _checks(result: Result) -> Iterator[tuple[str, bool]]:
    """Values that arithmetic relies on, and whether they are possible."""
    estimates: list[tuple[str, Estimate]] = [("critical_batch_size", result.critical_batch_size)]
    if isinstance(result, ProbeResult):
        place, trajectory = "trajectory", result.trajectory
        estimates += [
            (n, getattr(result, n)) for n in ("noise_scale", "max_improvement", "simple_noise_scale")
        ]
        for i, point in enumerate(result.points):
            yield f"points.{i}", point.std_error >= 0 and (point.batch_size is None or point.batch_size > 0)
        if result.schedule is not None:
            taken = (result.schedule.steps_ratio, result.schedule.examples_ratio)
            yield "schedule", 0 < result.schedule.gamma <= 1 and all(1 < ratio <= 2 for ratio in taken)
    else:
        estimates += [(n, getattr(result, n)) for n in ("min_steps", "min_examples")]
        for i, batch in enumerate(result.batches):
            known = (batch.batch_size, batch.steps, batch.learning_rate, batch.fitted, batch.predicted)
            yield f"batches.{i}", all(value is None or value > 0 for value in known)
        place, trajectory = "predicted.trajectory", ()
        if result.predicted is not None:
            estimates.append(("predicted.critical_batch_size", result.predicted.critical_batch_size))
            trajectory = result.predicted.trajectory
    for i, along in enumerate(trajectory):
        yield f"{place}.{i}", along.batch_size is None or along.batch_size > 0
        estimates.append((f"{place}.{i}.noise_scale", along.noise_scale))
        estimates.append((f"{place}.{i}.simple_noise_scale", along.simple_noise_scale))
    yield "config.optimizer", is_target(result.config.get("optimizer"))
    plan, wishes = planned(result.config)
    yield "config.training", plan.batch_size % plan.world_size == 0
    yield "config.advice", wishes.deadline is None or plan.steps is not None or plan.examples is not None
    yield "provenance.group", result.provenance.group > 0
    factor = result.provenance.tokens_per_example
    yield "provenance.tokens_per_example", factor is None or factor > 0
    for name, estimate in estimates:
        value, low, high = estimate.value, estimate.low, estimate.high
        ordered = value is None or (value > 0 and low <= value * (1 + 1e-9))
        bounded = high is None or (value is not None and value <= high * (1 + 1e-9))
        yield name, ordered and bounded and low >= 0 and 0 < estimate.confidence < 1
    if result.throughput is not None:
        times = result.throughput
        sizes = [step.micro_batch_size for step in times.step_times]
        measured = (
            times.fixed_seconds,
            times.seconds_per_example,
            times.optimizer_seconds,
            times.worst_misfit,
        )
        yield "throughput", all(value >= 0 for value in measured)
        yield "throughput.step_times", bool(sizes) and sizes == sorted(set(sizes)) and sizes[0] > 0
        yield "throughput.step_times", all(step.seconds > 0 for step in times.step_times)
        together = times.world_size > 1 and times.parallel in ("ddp", "fsdp")
        yield "throughput.parallel", together or (times.world_size == 1 and times.parallel is None)
        yield "throughput.step_times", all(0 <= s.exchange_seconds < s.seconds for s in times.step_times)
        waits = any(step.exchange_seconds for step in times.step_times)
        yield "throughput.step_times", not waits or times.parallel == "ddp"
        yield "throughput.largest_micro_batch_size", times.largest_micro_batch_size == max(sizes, default=0)


def _clean(value: Any) -> Any:
    """Without control characters in texts: a file must not steer a terminal. No float's number is null, as written."""
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        return None
    if isinstance(value, str):
        return "".join(c for c in value if c.isprintable() or c == "\n")
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _section(model: type[S], config: dict[str, Any], name: str) -> S:
    data = config.get(name, {})
    known = {key: data[key] for key in data if key in model.model_fields} if isinstance(data, dict) else data
    return model.model_validate(known)
