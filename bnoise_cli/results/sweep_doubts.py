"""Every reason to trust a sweep less."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from bnoise_cli.numbers import count, percent, significant
from bnoise_cli.records import BatchOutcome, Doubt, Estimate, Prediction
from bnoise_cli.results.task_doubts import about_a_stream
from bnoise_cli.spec.schema import Config

if TYPE_CHECKING:
    from bnoise_cli.maths.steps_fit import StepsFit
    from bnoise_cli.measurement.outcome import SweepRun

#: With fewer batch sizes than this on one side of B_crit, that side of the law rests on the fit alone.
_EACH_SIDE = 2
#: A rise of the steps with the batch size by more than this is not explained by noise; merely chosen.
_RISE = 1.15
#: A root mean square of log S around the law above this is a misfit.
_SCATTER = 0.15
#: A goal that a large batch reaches in fewer steps than this is too near: the first steps fall along sharp directions
#: and by annealing, and later steps cannot repeat that.
_FEWEST_STEPS = 16.0
#: A prediction and a measurement that differ by more than this factor disagree.
_DISAGREE = 2.0


def sweep_doubts(
    run: SweepRun,
    critical: Estimate,
    fit: StepsFit | None,
    batches: Sequence[BatchOutcome],
    predicted: Prediction | None,
    config: Config,
) -> tuple[Doubt, ...]:
    """The doubts about a sweep, the gravest first."""
    return (
        *about_the_end(run, len(batches)),
        *_about_the_range(run, critical, batches),
        *_about_the_goal(run, fit),
        *_about_the_law(critical, fit, batches),
        *about_a_stream(run.findings),
        *_about_the_rest(run, predicted, config),
    )


def one_seed() -> Doubt:
    """The doubt about a single seed."""
    return Doubt(
        code="one_seed",
        finding="one seed at each batch size cannot tell noise from the law",
        remedy="Set sweep.seeds to 3 or more.",
    )


def about_the_end(run: SweepRun, batch_sizes: int) -> Iterator[Doubt]:
    """The doubt that a sweep ended early."""
    go_on = "The same command goes on where it stopped."
    if run.failure is not None:
        found = f"the sweep ended early: {str(run.failure).removesuffix('.')}"
        yield Doubt(code="failed", finding=found, remedy=f"Mend the cause. {go_on}")
    elif run.interrupted:
        yield Doubt(code="interrupted", finding="the sweep was interrupted", remedy=go_on)
    elif not run.complete:
        finding = f"the budget was spent after {count(batch_sizes)} batch sizes"
        yield Doubt(code="budget", finding=finding, remedy=go_on)


def _about_the_range(run: SweepRun, critical: Estimate, batches: Sequence[BatchOutcome]) -> Iterator[Doubt]:
    missed = [batch.batch_size for batch in batches if batch.steps is None]
    if missed:
        lowest = min(r.lowest_loss for r in run.runs if r.batch_size in missed and r.lowest_loss is not None)
        yield Doubt(
            code="goal_not_reached",
            finding=f"no learning rate reached the loss of {significant(run.goal)} at batch size "
            f"{', '.join(map(count, missed))}; the lowest was {significant(lowest, 5)}",
            remedy="Raise sweep.max_steps, or name a goal that is nearer.",
        )
    sizes = [batch.batch_size for batch in batches if batch.steps is not None]
    if critical.value is None:
        yield Doubt(
            code="unresolved",
            finding=f"the runs at {count(len(sizes))} batch sizes cannot tell the critical batch size",
            remedy="Name sweep.batch_sizes that reach further, or more sweep.seeds.",
        )
        return
    below = sum(size < critical.value for size in sizes)
    above = sum(size > critical.value for size in sizes)
    if min(below, above) < _EACH_SIDE:
        side, most = ("below", "smaller") if below < above else ("above", "larger")
        few = "one batch size lies" if min(below, above) == 1 else "no batch size lies"
        yield Doubt(
            code="one_sided",
            finding=f"{'only ' if min(below, above) else ''}{few} {side} the critical one",
            remedy=f"Name {most} sweep.batch_sizes, if there are any to train with.",
        )


def _about_the_goal(run: SweepRun, fit: StepsFit | None) -> Iterator[Doubt]:
    steps = fit.min_steps.value if fit is not None else None
    if steps is not None and steps < _FEWEST_STEPS:
        yield Doubt(
            code="goal_near",
            finding=f"a large batch reaches the goal, a loss of {significant(run.goal)}, in {significant(steps, 2)} "
            f"steps; the first {_FEWEST_STEPS:.0f} steps say little of the training after them",
            remedy="Name a lower sweep.goal, or raise sweep.steps if the goal is `auto`.",
        )


def _about_the_law(
    critical: Estimate, fit: StepsFit | None, batches: Sequence[BatchOutcome]
) -> Iterator[Doubt]:
    if fit is not None and fit.scatter > _SCATTER:
        yield Doubt(
            code="law",
            finding=f"steps scatter around the law of steps by {percent(fit.scatter)}",
            remedy="Read the measured steps instead of the fit; more sweep.seeds tell noise from a misfit.",
        )
    arrived = [batch for batch in batches if batch.steps is not None]
    rises = [
        (one.batch_size, other.batch_size)
        for one, other in pairwise(arrived)
        if (other.steps or 0.0) > _RISE * (one.steps or 0.0)
    ]
    if rises:
        yield Doubt(
            code="not_monotone",
            finding=f"from batch size {count(rises[0][0])} to {count(rises[0][1])} the steps rise",
            remedy="A larger batch never needs more steps at its best learning rate: add sweep.seeds.",
        )
    if critical.value is not None and critical.high is not None and critical.high > 4 * critical.low:
        yield Doubt(
            code="imprecise",
            finding=f"the limits of B_crit are {significant(critical.high / critical.low, 2)} times apart",
            remedy="Add sweep.seeds, or name more sweep.batch_sizes.",
        )


def _about_the_rest(run: SweepRun, predicted: Prediction | None, config: Config) -> Iterator[Doubt]:
    if config.sweep.seeds == 1:
        yield one_seed()
    if predicted is None or predicted.critical_batch_size.value is None:
        if run.complete:
            yield Doubt(
                code="no_prediction",
                finding="the probe could not tell the noise scale along the best run",
                remedy="The measurement stands by itself.",
            )
    elif predicted.ratio is not None and not 1 / _DISAGREE <= predicted.ratio <= _DISAGREE:
        yield Doubt(
            code="prediction",
            finding=f"training gives {predicted.ratio:.2g} times the B_crit that one step alone predicts",
            remedy="Rely on the sweep: one step leaves out momentum and the course of training.",
        )
