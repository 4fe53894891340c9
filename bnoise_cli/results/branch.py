"""The result of branches of the same number of examples: the largest batch that loses nothing by its size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bnoise_cli.numbers import count
from bnoise_cli.records import BranchRun, Cost, CriticalBatchSize, Doubt, Estimate, Limits, Positive, Size
from bnoise_cli.results.probe import provenance
from bnoise_cli.results.result import Kind, Result
from bnoise_cli.results.sweep_doubts import about_the_end, one_seed
from bnoise_cli.spec.load import Spec
from bnoise_cli.spec.schema import Config

if TYPE_CHECKING:
    from bnoise_cli.measurement.outcome import SweepRun

DEFINITION = (
    "the largest batch whose branch, like those of all smaller ones, ends the same number of examples with a loss "
    "at most {tolerance:g} above that of the smallest; after arXiv:2505.23971"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchOutcome:
    """The ends of the branches of one batch size."""

    batch_size: Size
    learning_rate: Positive
    steps: Positive
    examples: float
    #: The mean over seeds; None if a branch diverged.
    loss: float | None
    #: The range of the seeds.
    loss_limits: Limits | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchResult(Result):
    """Everything the branches of one start found. B_crit has a definition of its own here."""

    kind: Literal["branch"] = "branch"
    start_loss: float
    #: The loss of the smallest batch plus the tolerance; that of the start if the smallest batch diverged.
    goal: float
    #: The number of examples of every branch.
    examples: Size
    batches: tuple[BranchOutcome, ...]
    runs: tuple[BranchRun, ...]


def _identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Which branches there are is part of the result: a config that does not name them has the same start."""
    return {"warmup_steps": settings.get("warmup_steps"), "branch": True}


BRANCH = Kind(name="branch", command="sweep", result=BranchResult, identity=_identity, follows_law=False)


def as_branches(data: dict[str, Any]) -> dict[str, Any]:
    """A stored result in the present form: older versions stored branches as a sweep without a fit."""
    config = data.get("config")
    sweep = config.get("sweep") if isinstance(config, dict) else None
    branch = sweep.get("branch") if isinstance(sweep, dict) else None
    if data.get("kind") != "sweep" or not isinstance(branch, dict):
        return data
    runs = data.get("runs")
    if isinstance(runs, list):
        runs = [{**run, "loss": run.get("lowest_loss")} if isinstance(run, dict) else run for run in runs]
    return {**data, "kind": "branch", "examples": branch.get("examples"), "runs": runs}


def branch_result(run: SweepRun, spec: Spec) -> BranchResult:
    """Put together everything the branches found."""
    branch = spec.config.sweep.branch
    assert branch is not None
    batches = branch_outcomes(run.branches)
    critical = branch_critical(run.branches, branch.tolerance)
    base = batches[0].loss
    return BranchResult(
        config=spec.resolved(),
        config_hash=BRANCH.hash(spec),
        provenance=provenance(run, spec, micro_batch_size=run.micro_batch_size, replicates=len(run.branches)),
        start_loss=run.start_loss,
        goal=base + branch.tolerance if base is not None else run.start_loss,
        examples=branch.examples,
        critical_batch_size=critical,
        batches=batches,
        runs=run.branches,
        doubts=branch_doubts(run, critical, batches, spec.config),
        cost=Cost(
            seconds=round(math.fsum(each.seconds for each in run.branches), 3),
            gradient_examples=sum(each.examples for each in run.branches),
            evaluation_examples=run.evaluation_examples * sum(each.evaluations for each in run.branches),
        ),
    )


def branch_outcomes(runs: Sequence[BranchRun]) -> tuple[BranchOutcome, ...]:
    """The mean loss over seeds at every batch size; None if a branch diverged."""
    outcomes = []
    for size in sorted({run.batch_size for run in runs}):
        own = [run for run in runs if run.batch_size == size]
        losses = [run.loss for run in own if run.loss is not None]
        whole = len(losses) == len(own)
        outcomes.append(
            BranchOutcome(
                batch_size=size,
                learning_rate=own[0].learning_rate,
                steps=own[0].steps,
                examples=own[0].steps * size,
                loss=math.fsum(losses) / len(losses) if whole else None,
                loss_limits=Limits(low=min(losses), high=max(losses)) if whole else None,
            )
        )
    return tuple(outcomes)


def branch_critical(runs: Sequence[BranchRun], tolerance: float) -> CriticalBatchSize:
    """The batch size at which the loss passes the tolerance, on a line in log B, and its limits by the seeds.

    The lower limit is the largest batch that is surely within the tolerance, the upper limit the smallest that is
    surely beyond it, by a t interval on the difference of means. One seed has no spread: then the limits are the
    two neighbours. There is no upper limit if no branch is beyond the tolerance.
    """
    batches = branch_outcomes(runs)
    definition = DEFINITION.format(tolerance=tolerance)
    losses = {b.batch_size: [run.loss for run in runs if run.batch_size == b.batch_size] for b in batches}
    base, sizes = batches[0], [b.batch_size for b in batches]
    if base.loss is None:
        return CriticalBatchSize(value=None, low=0.0, high=None, basis="sweep", definition=definition)
    half = _half_width(list(losses.values()))
    excess = [math.inf if b.loss is None else b.loss - base.loss - tolerance for b in batches]
    beyond = next((i for i, value in enumerate(excess) if value > 0), None)
    sure = next((i for i, value in enumerate(excess) if value - half > 0), None)
    low = next((i for i, value in enumerate(excess) if value + half > 0), len(sizes)) - 1
    if beyond is None or sure is None:
        return CriticalBatchSize(
            value=None, low=float(sizes[max(low, 0)]), high=None, basis="sweep", definition=definition
        )
    value = float(sizes[beyond])
    if beyond > 0 and math.isfinite(excess[beyond]):
        part = -excess[beyond - 1] / (excess[beyond] - excess[beyond - 1])
        value = float(sizes[beyond - 1] * (sizes[beyond] / sizes[beyond - 1]) ** part)
    return CriticalBatchSize(
        value=value,
        low=min(float(sizes[max(low, 0)]), value),
        high=max(float(sizes[sure]), value),
        basis="sweep",
        definition=definition,
    )


def _half_width(losses: Sequence[Sequence[float | None]]) -> float:
    """Half the interval of the difference of two means over seeds, by the pooled variance; 0 with one seed."""
    from bnoise_cli.maths.intervals import t_quantile

    known = [[value for value in seeds if value is not None] for seeds in losses]
    free = sum(max(len(values) - 1, 0) for values in known)
    if free == 0:
        return 0.0
    means = [math.fsum(values) / len(values) if values else 0.0 for values in known]
    squares = ((value - mean) ** 2 for values, mean in zip(known, means, strict=True) for value in values)
    pooled = math.fsum(squares) / free
    return t_quantile(free + 1) * math.sqrt(2 * pooled / max(map(len, known)))


def branch_doubts(
    run: SweepRun, critical: Estimate, batches: Sequence[BranchOutcome], config: Config
) -> tuple[Doubt, ...]:
    """The doubts about branches from one start."""
    return (*about_the_end(run, len(batches)), *_about_the_branches(critical, batches, config))


def _about_the_branches(
    critical: Estimate, batches: Sequence[BranchOutcome], config: Config
) -> Iterator[Doubt]:
    diverged = [batch.batch_size for batch in batches if batch.loss is None]
    if diverged:
        yield Doubt(
            code="branch_diverged",
            finding=f"branches diverge at batch size {', '.join(map(count, diverged))} with their scaled learning rate",
            remedy="The scaling rule ends there, which is not the same as the batch: compare with a sweep to a goal.",
        )
    if critical.value is None:
        yield Doubt(
            code="unresolved",
            finding="no branch is surely worse than the smallest batch by the tolerance",
            remedy="Name larger sweep.branch.multiples, more sweep.seeds, or a smaller tolerance.",
        )
    if config.sweep.seeds == 1:
        yield one_seed()
    if config.checkpoint is None and not config.sweep.warmup_steps:
        yield Doubt(
            code="at_initialisation",
            finding="the branches begin at initialisation",
            remedy="Start from a checkpoint, or set sweep.warmup_steps: the critical batch size grows along training.",
        )
