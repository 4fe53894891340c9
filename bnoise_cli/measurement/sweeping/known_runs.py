"""The finished runs of a sweep, in memory and in the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from bnoise_cli.measurement.outcome import BranchEnd
from bnoise_cli.measurement.sweeping.training_runs import Arrival
from bnoise_cli.records import TrainingRun
from bnoise_cli.storage import Ledger

#: The search first looks at learning rates a factor of two apart with one seed, then more closely with all seeds.
COARSE, FINE = 1, 2


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which run."""

    batch_size: int
    point: int  # on the grid of learning rates
    seed: int
    stage: int  # of the search: COARSE or FINE


class KnownRuns:
    """What is finished; everything that is added is kept at once.

    Args:
        rate: the learning rate of a grid point.
    """

    def __init__(self, ledger: Ledger, rate: Callable[[int], float]) -> None:
        self._ledger, self._rate = ledger, rate
        self._runs: dict[Key, TrainingRun] = {}
        self.stacks: dict[int, bool] = {}  # batch size → whether runs go side by side
        self.branches: list[BranchEnd] = []
        for entry in ledger.entries:
            self._remember(entry)

    def __len__(self) -> int:
        return len(self._runs) + len(self.branches)

    def __contains__(self, key: Key) -> bool:
        """A run of the first stage that ended of itself need not be made again in the second."""
        earlier = self._runs.get(replace(key, stage=COARSE))
        return key in self._runs or (earlier is not None and earlier.outcome != "beaten")

    def __getitem__(self, key: Key) -> TrainingRun:
        return self._runs[key] if key in self._runs else self._runs[replace(key, stage=COARSE)]

    def all(self) -> tuple[TrainingRun, ...]:
        """Every run, by batch size, learning rate and seed."""
        return tuple(self._runs[key] for key in sorted(self._runs))

    def at_best(self, batch_size: int, point: int, seeds: int) -> list[float]:
        """Steps of every seed that arrived at one learning rate."""
        runs = [self[Key(batch_size, point, seed, FINE)] for seed in range(seeds)]
        return [run.steps for run in runs if run.steps is not None]

    def add(self, keys: Sequence[Key], arrivals: Sequence[Arrival]) -> None:
        """Keep finished runs; all that went side by side are one line of the ledger.

        Raises:
            RunError: the ledger cannot be written; the runs are known all the same.
        """
        pairs = zip(keys, arrivals, strict=True)
        self._add({"kind": "runs", "runs": [{**asdict(key), **asdict(arrival)} for key, arrival in pairs]})

    def add_branch(self, end: BranchEnd) -> None:
        """Keep a branch."""
        self._add({"kind": "branch", **asdict(end)})

    def add_stacks(self, batch_size: int, value: bool) -> None:
        """Keep whether runs at a batch size go side by side."""
        self._add({"kind": "stacks", "batch_size": batch_size, "value": value})

    def fact(self, kind: str, **which: Any) -> Any:
        """What else was found and kept; None: nothing of this kind for `which`."""
        entries = (entry for entry in self._ledger.entries if entry["kind"] == kind)
        return next((entry.get("value") for entry in entries if entry.get("which") == which), None)

    def add_fact(self, kind: str, value: Any, **which: Any) -> None:
        """Keep a finding."""
        self._ledger.append({"kind": kind, "which": which, "value": value})

    def _add(self, entry: dict[str, Any]) -> None:
        self._remember(entry)
        self._ledger.append(entry)

    def _remember(self, entry: dict[str, Any]) -> None:
        """Take an entry in; one that lacks something is as good as not there."""
        with suppress(KeyError, TypeError):
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        match entry["kind"]:
            case "branch":
                self.branches.append(BranchEnd(**{key: entry[key] for key in entry if key != "kind"}))
            case "stacks":
                self.stacks[entry["batch_size"]] = entry["value"]
            case "runs":
                for found in entry["runs"]:
                    key = Key(found["batch_size"], found["point"], found["seed"], found["stage"])
                    self._runs[key] = self._training_run(key, found)

    def _training_run(self, key: Key, found: dict[str, Any]) -> TrainingRun:
        return TrainingRun(
            batch_size=key.batch_size,
            learning_rate=self._rate(key.point),
            seed=key.seed,
            steps=found["steps"],
            examples=found["taken"] * key.batch_size,
            evaluations=found["evaluations"],
            seconds=found["seconds"],
            reached=found["outcome"] == "reached",
            outcome=found["outcome"],
            lowest_loss=found["lowest_loss"],
        )


def mean_steps(runs: Sequence[TrainingRun]) -> float | None:
    """Geometric mean over seeds; None where one did not arrive."""
    steps = [run.steps for run in runs if run.steps is not None]
    return math.exp(math.fsum(map(math.log, steps)) / len(steps)) if len(steps) == len(runs) else None
