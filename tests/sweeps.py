"""Shared pieces of the tests of sweeps: running one, stopping one, and reading its ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bnoise_cli.ledger import Ledger
from bnoise_cli.measurement.outcome import SweepProgress, SweepRun
from bnoise_cli.measurement.sweeping.sweep import SweepSession
from bnoise_cli.spec.identity import ledger_hash
from bnoise_cli.spec.load import Spec
from tests.cases import CPU, TINY_SWEEP


def silent(_: SweepProgress) -> None:
    pass


def swept(spec: Spec, ledger: Path, on_progress: Callable[[SweepProgress], None] = silent) -> SweepRun:
    return SweepSession(spec, CPU, Ledger(ledger, ledger_hash(spec))).run(on_progress)


def stop_at(phase: str, error: BaseException, after: int = 3) -> Callable[[SweepProgress], None]:
    """Progress that raises at the so many-th report of a phase."""
    left = [after]

    def on_progress(progress: SweepProgress) -> None:
        if progress.phase == phase:
            left[0] -= 1
            if left[0] == 0:
                raise error

    return on_progress


def without_times(text: str) -> dict[str, Any]:
    """A stored result without what the clock decides."""
    data: dict[str, Any] = json.loads(text)
    del data["provenance"]["time"], data["cost"]["seconds"]
    for key in ("throughput", "tradeoff", "recommendation", "alternatives"):
        data.pop(key)
    for run in data["runs"]:
        del run["seconds"]
    data["doubts"] = [doubt for doubt in data["doubts"] if doubt["about"] != "advice"]
    return data


def entries(path: Path) -> list[dict[str, Any]]:
    """The entries of a ledger, without a last line that is torn."""
    lines = path.read_bytes().splitlines(keepends=True)[1:]
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def finished(path: Path) -> list[tuple[int, int, int, int]]:
    """Which runs a ledger holds, in its order."""
    return [
        (run["batch_size"], run["point"], run["seed"], run["stage"])
        for entry in entries(path)
        if entry["kind"] == "runs"
        for run in entry["runs"]
    ]


def decide_stacks(ledger: Path, spec: Spec, sizes: Sequence[int]) -> None:
    """Every other batch size side by side: what the sweep would else find out by the clock."""
    kept = Ledger(ledger, ledger_hash(spec))
    for i, size in enumerate(sizes):
        kept.append({"kind": "stacks", "batch_size": size, "value": i % 2 == 1})


#: Slow enough to be killed at ten different places.
KILLED = (
    TINY_SWEEP.replace("seeds: 2", "seeds: 4")
    .replace("[2, 8, 32]", "[2, 4, 8, 16, 32]")
    .replace("0.4", "0.25")
)
