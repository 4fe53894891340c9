"""`bnoise_cli.probe`, `sweep` and `load`: the commands' measurements of objects that a program has at hand."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bnoise_cli.api.measure import measure
from bnoise_cli.api.measured import Measured
from bnoise_cli.ledger import Ledger
from bnoise_cli.report.progress import LOADING, ProgressLine
from bnoise_cli.spec.identity import ledger_hash
from bnoise_cli.spec.keywords import signature_of, spec_of_call
from bnoise_cli.spec.load import Spec

if TYPE_CHECKING:
    from bnoise_cli.results.branch import BranchResult
    from bnoise_cli.results.probe import ProbeResult
    from bnoise_cli.results.sweep import SweepResult

#: The stem of the file of a result that no config names.
_UNNAMED = "python"


def probe(
    model: Any,
    dataset: Any,
    loss: Any = None,
    *,
    optimizer: Any,
    objective: Any = None,
    collate: Any = None,
    config: str | Path | None = None,
    step: int = 0,
    quiet: bool = False,
    **settings: Any,
) -> Measured[ProbeResult]:
    """What `bnoise probe` measures, of a model at its present weights. All that is given stays as it is.

    Args:
        model: a torch.nn.Module; a copy of it is trained and probed, where it is.
        dataset: anything with a length and items, a DataLoader, or a function that returns one.
        loss: a criterion for examples (x, y), or f(model, batch) if its first parameter is named `model`; without loss
            and objective the loss is model(**batch).loss.
        optimizer: the one that trains the model, whose state is taken too; or a function that makes one of parameters.
        objective: f(model, batch), whatever its parameters are named.
        collate: makes a batch of a list of examples.
        config: a config whose values hold unless they are given here.
        step: training steps that the model has taken.
        quiet: show no progress.
        settings: the keys of `probe:` and `training:`, and whole sections, as `bnoise explain config-reference` lists
            them.

    Raises:
        ConfigError, CallError: an argument is wrong.
        RunError, KeyboardInterrupt: before anything was measured.
    """
    given = given_objects(model, dataset, loss, optimizer, objective, collate)
    spec = spec_of_call("probe", given, settings, config=config, step=step)
    with _measuring(spec, quiet) as (device, line):
        from bnoise_cli.measurement.probing.session import Session
        from bnoise_cli.results.probe import probe_result

        found = measure(Session(spec, device), lambda run: probe_result(run, spec), None, line, timed=True)
    return Measured(found.result, _name(config))


def sweep(
    model: Any,
    dataset: Any,
    loss: Any = None,
    *,
    optimizer: Any,
    objective: Any = None,
    collate: Any = None,
    config: str | Path | None = None,
    step: int = 0,
    quiet: bool = False,
    **settings: Any,
) -> Measured[SweepResult | BranchResult]:
    """What `bnoise sweep` measures: training at many batch sizes from a model's present weights.

    Its finished runs are kept in memory alone: what an interruption leaves is in the result. The arguments are those of
    `probe`; settings are looked for in `sweep:` first.
    """
    given = given_objects(model, dataset, loss, optimizer, objective, collate)
    spec = spec_of_call("sweep", given, settings, config=config, step=step)
    with _measuring(spec, quiet) as (device, line), TemporaryDirectory() as folder:
        from bnoise_cli.measurement.sweeping.sweep import SweepSession
        from bnoise_cli.results.branch import branch_result
        from bnoise_cli.results.sweep import sweep_result

        timed = spec.config.sweep.branch is None
        make = sweep_result if timed else branch_result
        session = SweepSession(spec, device, Ledger(Path(folder) / "runs", ledger_hash(spec)))
        found = measure(session, lambda run: make(run, spec), None, line, timed=timed)
    return Measured(found.result, _name(config))


def load(path: str | Path) -> Measured[Any]:
    """A result that a command, a callback or `save` stored.

    Raises:
        CallError: there is none, or it is damaged.
    """
    from bnoise_cli.results.stored import read_result

    return Measured(read_result(Path(path)), Path(path).name.split(".")[0])


probe.__signature__ = signature_of("probe", inspect.signature(probe))  # type: ignore[attr-defined]
sweep.__signature__ = signature_of("sweep", inspect.signature(sweep))  # type: ignore[attr-defined]


def given_objects(
    model: Any, dataset: Any, loss: Any, optimizer: Any, objective: Any, collate: Any
) -> dict[str, Any]:
    """The objects by the keys of the config in whose place they are used."""
    if loss is not None and objective is None and takes_the_model(loss):
        loss, objective = None, loss
    return {
        "model": model,
        "dataset": dataset,
        "loss": loss,
        "optimizer": optimizer,
        "objective": objective,
        "collate": collate,
    }


def takes_the_model(loss: Any) -> bool:
    """Whether a loss is f(model, batch): its first parameter is named so. A criterion takes (prediction, target)."""
    try:
        return next(iter(inspect.signature(loss).parameters), None) == "model"
    except (TypeError, ValueError):  # a function of C
        return False


def _name(config: str | Path | None) -> str:
    return _UNNAMED if config is None else Path(config).stem


@contextmanager
def _measuring(spec: Spec, quiet: bool) -> Iterator[tuple[Any, ProgressLine]]:
    """Show the progress, and give the random streams back. Yields the model's `torch.device`."""
    with ProgressLine(quiet=quiet) as line:
        line.say(LOADING)
        from bnoise_cli.measurement.building.live import device_of
        from bnoise_cli.measurement.task.preserve import random_streams

        with random_streams(*spec.given.values()):
            yield device_of(spec.given["model"]), line
