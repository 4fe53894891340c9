"""Whether a budget holds a probe at all: found from a few passes, before anything else is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bnoise_cli import clock
from bnoise_cli.errors import OutOfTimeError
from bnoise_cli.measurement.outcome import TaskFindings
from bnoise_cli.measurement.probing.checks import EXAMPLES, FEW_EXAMPLES, check_task, refusal
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.task import Task, Traits
from bnoise_cli.numbers import counted

#: Forward passes, and examples in them, of the smallest probe: checks, a pilot that finds one curvature, and two
#: replicates of 16; and its passes if each is a group. Counted with micro-batches of 8. A gradient counts three times.
_FEWEST_PASSES, _FEWEST_EXAMPLES, _FEWEST_GROUPS = 350, 700, 480
#: That count is rough: a probe is refused only if it needs this many times its budget.
_ROUGH = 1.5
#: Forward passes of the checks, and their examples over the number of examples that are looked at.
_CHECK_PASSES, _CHECK_COST = 20, 12
#: The checks look at fewer examples if they would take the first part of the budget, and may take the second.
_CHECKS, _MOST_CHECKS = 0.1, 0.5
#: A forward and backward pass of a micro-batch may take this fraction of the budget.
_PASS = 0.02
_BACKWARD_COST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds of forward passes: each takes `per_pass`, and `per_example` for each of its examples."""

    per_pass: float
    per_example: float

    def seconds(self, passes: float, examples: float) -> float:
        """Seconds of `passes` forward passes with `examples` examples in all."""
        return passes * self.per_pass + examples * self.per_example

    def of_probe(self, group: int) -> float:
        """Seconds of the smallest probe if examples go through the model in groups."""
        if group > 1:
            return self.seconds(_FEWEST_GROUPS, _FEWEST_GROUPS * group)
        return self.seconds(_FEWEST_PASSES, _FEWEST_EXAMPLES)

    def require(self, budget_seconds: float, group: int = 1) -> None:
        """
        Raises:
            OutOfTimeError: the smallest probe needs far more than the budget.
        """
        if self.of_probe(group) <= _ROUGH * budget_seconds:
            return
        enough = int(
            (_ROUGH * budget_seconds / _FEWEST_GROUPS - self.per_pass) / max(self.per_example, 1e-12)
        )
        other = (
            f", or lower training.batch_size (over world_size) to {enough}, so that passes are shorter"
            if group > 1 and enough > 1
            else ""
        )
        raise OutOfTimeError(
            f"the budget of {budget_seconds:.3g} s cannot tell the noise scale of a model this slow: a forward pass of "
            f"{counted(group)} takes {self.seconds(1, group):.2g} s, and the smallest probe about "
            f"{self.of_probe(group):.0f} s. Raise --budget to that or more{other}."
        )

    def largest_pass(self, seconds: float) -> int:
        """The examples of a forward and backward pass of this time; or as many as take as long as the pass itself.

        The examples are a power of two.
        """
        in_time = seconds / _BACKWARD_COST - self.per_pass
        examples = max(in_time, self.per_pass) / max(self.per_example, 1e-12)
        return 1 << max(int(math.log2(max(examples, 1.0))), 0)


def check_in_time(task: Task, seed: int, budget_seconds: float, pace: Pace) -> TaskFindings:
    """`check_task` on fewer examples if the model is slow; micro-batches become small enough for the budget.

    Raises:
        OutOfTimeError: the budget holds no probe of this task. Found before the checks, and again after them, because
            they show whether examples go through the model in groups.
        RunError: as of `check_task`.
    """
    pace.require(budget_seconds)
    usual = pace.seconds(_CHECK_PASSES, _CHECK_COST * EXAMPLES) <= _CHECKS * budget_seconds
    try:
        with task.within(_MOST_CHECKS * budget_seconds):
            findings = check_task(task, seed, examples=EXAMPLES if usual else FEW_EXAMPLES)
    except OutOfTimeError:
        raise OutOfTimeError(
            f"the checks of the loss take more than {_MOST_CHECKS:.0%} of the budget of {budget_seconds:.3g} s. Raise "
            "--budget; or lower training.batch_size (over world_size) if the loss of a few examples fails."
        ) from None
    pace.require(budget_seconds, findings.group)
    largest = pace.largest_pass(_PASS * budget_seconds)
    if findings.group == 1 and largest < task.micro_batch_size:
        task.plan_micro_batch(largest)
    return findings


def find_pace(task: Task, seed: int) -> Pace | None:
    """Time the smallest batch that works and its double, each the shorter of two times, as rank 0 sees it.

    Returns:
        None if no batch up to the micro-batch works.
    """
    task.adopt(Traits())
    draws, size = Draws(seed, Stream.PACE), 1
    with preserved(task.model, seed):
        while (shorter := _seconds(task, draws, size)) is None:
            size *= 2
            if size > task.micro_batch_size:
                return None
        longer = _seconds(task, draws, 2 * size)
    if longer is None:
        return None
    per_example = max(longer - shorter, 0.0) / size
    found = Pace(per_pass=max(shorter - size * per_example, 0.0), per_example=per_example)
    return task.ranks.broadcast(found)


def _seconds(task: Task, draws: Draws, size: int) -> float | None:
    """The shorter of two times of a forward pass; None if it fails or does not fit."""
    indices, seconds = draws.indices(size, task.batches.length), []
    for _ in range(2):
        begun = clock.monotonic()
        if refusal(task, indices, draws) is not None:
            return None
        seconds.append(clock.monotonic() - begun)
    return min(seconds)
