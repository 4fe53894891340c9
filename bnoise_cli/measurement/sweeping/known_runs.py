"""The finished runs of a sweep, in memory and in the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import ValidationError

from bnoise_cli.ledger import Ledger
from bnoise_cli.measurement.sweeping.entries import BranchEntry, RunEntry, RunsEntry, StacksEntry, is_fact
from bnoise_cli.measurement.sweeping.training_runs import Arrival
from bnoise_cli.records import BranchRun, TrainingRun

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
        self._branches: dict[tuple[int, int], BranchRun] = {}
        for entry in ledger.entries:
            self._remember(entry)

    @property
    def branches(self) -> list[BranchRun]:
        """Every branch once, in the order of the ledger."""
        return list(self._branches.values())

    @property
    def entries(self) -> int:
        """Entries of the ledger, of all kinds."""
        return len(self._ledger.entries)

    def __len__(self) -> int:
        return len(self._runs) + len(self._branches)

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

    def add_branch(self, run: BranchRun) -> None:
        """Keep a branch."""
        self._add({"kind": "branch", **asdict(run)})

    def add_stacks(self, batch_size: int, value: bool) -> None:
        """Keep whether runs at a batch size go side by side."""
        self._add({"kind": "stacks", "batch_size": batch_size, "value": value})

    def fact(self, kind: str, **which: Any) -> Any:
        """Another finding that was kept; None: nothing of this kind for `which`."""
        entries = (e for e in self._ledger.entries if e.get("kind") == kind and e.get("which") == which)
        return next((e["value"] for e in entries if is_fact(kind, e.get("value"))), None)

    def add_fact(self, kind: str, value: Any, **which: Any) -> None:
        """Keep a finding."""
        self._ledger.append({"kind": kind, "which": which, "value": value})

    def _add(self, entry: dict[str, Any]) -> None:
        self._remember(entry)
        self._ledger.append(entry)

    def _remember(self, entry: dict[str, Any]) -> None:
        """Take an entry in. One that is not as this version writes it is left out, like a damaged line."""
        with suppress(ValidationError):
            match entry.get("kind"):
                case "branch":
                    branch = BranchRun(**BranchEntry.model_validate(entry).model_dump())
                    self._branches.setdefault((branch.batch_size, branch.seed), branch)
                case "stacks":
                    stacks = StacksEntry.model_validate(entry)
                    self.stacks[stacks.batch_size] = stacks.value
                case "runs":
                    for run in RunsEntry.model_validate(entry).runs:
                        key = Key(run.batch_size, run.point, run.seed, run.stage)
                        self._runs[key] = self._training_run(run)

    def _training_run(self, found: RunEntry) -> TrainingRun:
        return TrainingRun(
            batch_size=found.batch_size,
            learning_rate=self._rate(found.point),
            seed=found.seed,
            steps=found.steps,
            examples=found.taken * found.batch_size,
            evaluations=found.evaluations,
            seconds=found.seconds,
            reached=found.outcome == "reached",
            outcome=found.outcome,
            lowest_loss=found.lowest_loss,
        )


def mean_steps(runs: Sequence[TrainingRun]) -> float | None:
    """Geometric mean over seeds; None where one did not arrive."""
    steps = [run.steps for run in runs if run.steps is not None]
    return math.exp(math.fsum(map(math.log, steps)) / len(steps)) if len(steps) == len(runs) else None
