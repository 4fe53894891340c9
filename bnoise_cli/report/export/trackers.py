"""`--log-to`: a result into the experiment tracker that the user already has."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import re
import struct
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.report.export.export import Results, Written
from bnoise_cli.results.result import Result


class Tracker(StrEnum):
    """Packages that a result can be logged to, by the name to import."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """The content of a log, in a form that every tracker can take."""

    run: str
    scalars: dict[str, float]
    curves: dict[int, dict[str, float]]  # batch size, which trackers call the step → name → value
    config: dict[str, Any]
    text: str  # Markdown
    pictures: Mapping[str, Path]


def require_tracker(name: Tracker) -> None:
    """Find out before measuring that a result can be logged.

    Raises:
        CallError: its package is not installed.
    """
    spec = importlib.util.find_spec(name)
    # A folder of that name, such as the wandb/ that wandb writes, is found too, but has no origin.
    if spec is None or spec.origin is None:
        raise CallError(
            f"--log-to {name} needs the package {name}, which is not installed for {sys.executable}. "
            f"Install it: pip install {name}"
        )


def log_result(result: Result, name: Tracker, pictures: Mapping[str, Path]) -> str:
    """Log a stored result and its pictures (PNG files) to a tracker; what is unknown is left out.

    Returns:
        One sentence: where it went.

    Raises:
        RunError: the tracker failed, for whatever reason.
    """
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the result alone
            return f"Logged to {_LOGS[name](_entry(result, pictures))}."
    except Exception as error:
        cause = textwrap.shorten(_without_password(str(error)), 300)
        raise RunError(
            f"{name} could not log the result ({type(error).__name__}: {cause}). The result itself is stored."
        ) from error


def _entry(result: Result, pictures: Mapping[str, Path]) -> _Entry:
    scalars: dict[str, float | None] = {}
    for part in ("noise_scale", "simple_noise_scale", "critical_batch_size", "max_improvement"):
        scalars |= _fields(result, part, "value", "low", "high")
    split = ("batch_size", "micro_batch_size", "accumulation_steps", "world_size")
    scalars |= _fields(result, "recommendation", *split, "learning_rate")
    scalars |= _fields(result, "throughput", "fixed_seconds", "seconds_per_example")
    doubts = "".join(f"- **{doubt.code}**: {doubt.finding}. {doubt.remedy}\n" for doubt in result.doubts)
    return _Entry(
        run=f"bnoise-{result.config_hash[:8]}-{time.strftime('%Y%m%d-%H%M%S')}",
        scalars=_known(scalars),
        curves=_curves(result),
        config={
            **result.config,
            "config_hash": result.config_hash,
            "provenance": asdict(result.provenance),
        },
        text=f"Reasons for doubt:\n\n{doubts or '- none'}",
        pictures=pictures,
    )


def _curves(result: Result) -> dict[int, dict[str, float]]:
    """What was measured at each batch size, ascending."""
    from bnoise_cli.report.kinds import report_kind

    return {size: _known(values) for size, values in sorted(report_kind(result.kind).curves(result))}


def _fields(result: Result, part: str, *names: str) -> dict[str, float | None]:
    record = getattr(result, part, None)
    return {} if record is None else {f"{part}/{name}": getattr(record, name) for name in names}


def _without_password(text: str) -> str:
    """The text with user names and passwords cut out of addresses such as https://user:password@host."""
    return re.sub(r"//[^/@\s]+@", "//", text)


def _known(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if value is not None and math.isfinite(value)}


def _parameters(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """The leaves of a config under dotted names; lists as JSON, nulls left out."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _parameters(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            yield f"{prefix}{key}", value
        elif value is not None:
            yield f"{prefix}{key}", json.dumps(value, default=str)


def _tensorboard(entry: _Entry) -> str:
    # torch.utils.tensorboard and tensorboard.plugins.hparams.api would import torch and TensorFlow.
    events = importlib.import_module("tensorboard.compat.proto.event_pb2")
    protos = importlib.import_module("tensorboard.compat.proto.summary_pb2")
    tensors = importlib.import_module("tensorboard.util.tensor_util")
    text = importlib.import_module("tensorboard.plugins.text.metadata")
    hparams = importlib.import_module("tensorboard.plugins.hparams.summary_v2")
    files = importlib.import_module("tensorboard.summary.writer.event_file_writer")

    folder = Path("runs") / entry.run
    with closing(files.EventFileWriter(str(folder))) as writer:

        def add(summary: Any, step: int = 0) -> None:
            writer.add_event(events.Event(wall_time=time.time(), step=step, summary=summary))

        def value(tag: str, **content: Any) -> Any:
            return protos.Summary(value=[protos.Summary.Value(tag=tag, **content)])

        add(hparams.hparams_pb(dict(_parameters(entry.config)), trial_id=entry.run))
        for tag, number in entry.scalars.items():
            add(value(tag, simple_value=number))
        for batch_size, numbers in entry.curves.items():
            for tag, number in numbers.items():
                add(value(tag, simple_value=number), step=batch_size)
        tensor = tensors.make_tensor_proto(entry.text)
        add(value("doubts", tensor=tensor, metadata=text.create_summary_metadata(None, None)))
        for tag, path in entry.pictures.items():
            png = path.read_bytes()
            width, height = struct.unpack(">II", png[16:24])  # the first chunk of a PNG is its header
            image = protos.Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
            add(value(f"pictures/{tag}", image=image))
    return f"TensorBoard: {folder}; tensorboard --logdir runs shows it"


def _wandb(entry: _Entry) -> str:
    wandb = importlib.import_module("wandb")
    project = os.environ.get("WANDB_PROJECT") or "bnoise"
    with wandb.init(project=project, name=entry.run, config=entry.config, notes=entry.text) as run:
        for batch_size, numbers in entry.curves.items():
            run.log(numbers, step=batch_size)
        run.log({f"pictures/{tag}": wandb.Image(str(path)) for tag, path in entry.pictures.items()})
        run.summary.update(entry.scalars)
        # An offline run is a folder, which `wandb sync` sends on; a disabled one has neither folder nor address.
        place = Path(run.dir).parent if run.offline else run.url or "disabled, so nothing is kept"
        return f"Weights & Biases: {place}"


def _mlflow(entry: _Entry) -> str:
    mlflow = importlib.import_module("mlflow")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "bnoise"
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=entry.run, description=entry.text) as run:
        mlflow.log_params(dict(_parameters(entry.config)))
        mlflow.log_metrics(entry.scalars)
        for batch_size, numbers in entry.curves.items():
            mlflow.log_metrics(numbers, step=batch_size)
        for path in entry.pictures.values():
            mlflow.log_artifact(str(path), "pictures")
        store = _without_password(mlflow.get_tracking_uri())
        return f"MLflow: run {run.info.run_id} of the experiment {experiment} in {store}"


_LOGS: dict[Tracker, Callable[[_Entry], str]] = {
    Tracker.TENSORBOARD: _tensorboard,
    Tracker.WANDB: _wandb,
    Tracker.MLFLOW: _mlflow,
}


def _log(results: Results, tracker: Tracker, _written: Sequence[Path]) -> str:
    from bnoise_cli.report.plots.draw import plot_results

    [(_, result)] = results
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "bnoise.png"
        try:
            plot_results(results, picture)
        except RunError:  # nothing to draw
            return log_result(result, tracker, {})
        return log_result(result, tracker, {"bnoise": picture})


LOG_TO = Written(
    option="--log-to",
    type=Tracker,
    help="Log the result to a tracker that is installed and set up.",
    require=require_tracker,
    what="log",
    write=_log,
    apart=True,
)
