"""Branched training: the same number of examples from one start at several batch sizes."""

from __future__ import annotations

import math
from collections.abc import Callable

from bnoise_cli import clock
from bnoise_cli.errors import CallError
from bnoise_cli.maths.optimizers import OPTIMIZERS
from bnoise_cli.measurement.sweeping.known_runs import KnownRuns
from bnoise_cli.measurement.sweeping.sweep_task import SweepTask
from bnoise_cli.measurement.task.preconditioner import rule_of
from bnoise_cli.records import BranchRun
from bnoise_cli.spec.schema import Branch

#: The loss of a branch is the mean of about `_EVALUATIONS` evaluations over the last part, `_END`, of its steps.
_EVALUATIONS, _END = 8, 0.1


def train_branches(
    shared: SweepTask, known: KnownRuns, branch: Branch, on_step: Callable[[int, int], None]
) -> None:
    """Train every branch that is not known yet.

    The protocol of Merrill et al. (arXiv:2505.23971): multiples of the planned batch, the learning rate in
    proportion to the batch for SGD and to its square root for adaptive optimizers.

    Raises:
        CallError: no rule is known for the learning rate of this optimizer.

    Args:
        on_step: told the batch size and the step of every step.
    """
    rule = rule_of(shared.optimizer_type)
    if rule is None:
        raise CallError(
            "branches change the learning rate with the batch size by a rule that is known for "
            f"{', '.join(OPTIMIZERS)} and what is derived from them; found {shared.optimizer_type.__name__}. "
            "Use one of these, or leave out sweep.branch: a sweep tunes the learning rate."
        )
    for multiple in branch.multiples:
        size = multiple * shared.config.training.batch_size
        rate = shared.base_rate * multiple**rule.rate_power
        for seed in range(shared.config.sweep.seeds):
            done = [(run.batch_size, run.seed) for run in known.branches]
            if (size, seed) not in done:
                known.add_branch(_train(shared, size, rate, seed, branch.examples, on_step))


def evaluations_of_a_branch(examples: int, size: int) -> int:
    """How often the loss of a branch is evaluated."""
    return len(_evaluated_steps(math.ceil(examples / size)))


def _evaluated_steps(steps: int) -> range:
    """Steps after which the loss is evaluated: even distances over the last part, the last step among them."""
    part = max(1, math.ceil(_END * steps))
    stride = max(1, (part - 1) // _EVALUATIONS)
    return range(steps, steps - part, -stride)


def _train(
    shared: SweepTask,
    size: int,
    rate: float,
    seed: int,
    examples: int,
    on_step: Callable[[int, int], None],
) -> BranchRun:
    begun = clock.monotonic()
    lane = shared.lane(size, rate, seed)
    steps = math.ceil(examples / size)
    evaluated = _evaluated_steps(steps)
    losses = []
    for step in range(1, steps + 1):
        lane.step((0,))
        on_step(size, step)
        if step in evaluated:
            losses += lane.losses((0,))
    return BranchRun(
        batch_size=size,
        learning_rate=rate,
        seed=seed,
        loss=math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else None,
        steps=float(steps),
        examples=steps * size,
        evaluations=len(losses),
        seconds=clock.monotonic() - begun,
    )
