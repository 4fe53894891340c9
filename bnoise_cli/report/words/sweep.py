"""A result of the sweep in words and tables."""

from __future__ import annotations

from bnoise_cli.advice.reason import at_critical
from bnoise_cli.amounts import EXAMPLES, Amounts
from bnoise_cli.measurement.outcome import SweepProgress
from bnoise_cli.numbers import count, seconds, significant
from bnoise_cli.records import Estimate
from bnoise_cli.report.document import Grid, Section, Sentence
from bnoise_cli.report.kinds import Curves, ReportKind, Stretch
from bnoise_cli.report.plots.sweep import RATES, STEPS
from bnoise_cli.report.plots.tradeoff import TRADEOFF
from bnoise_cli.report.words.advice import advice_sections, closing_sections
from bnoise_cli.report.words.probe import along_training
from bnoise_cli.report.words.related import AT_BEST_RATES, after
from bnoise_cli.report.words.runs import Run, runs_section
from bnoise_cli.report.words.verdict import answer_tone, verdict_section
from bnoise_cli.results.result import Result
from bnoise_cli.results.sweep import SweepResult


def sweep_sections(result: SweepResult) -> list[Section]:
    """The verdict, the answer, the advice, what was measured beside the prediction, the doubts, and the cost."""
    measured = Section(title="Measured", parts=[_batches(result)], detail=True)
    runs = _runs(result)
    taken = [runs] if runs is not None else []
    sections = [verdict_section(result), _answer(result), *taken, *advice_sections(result), measured]
    if result.predicted is not None:
        along = along_training(result.predicted.trajectory, result.amounts)
        sections.append(Section(title="Along the best run", parts=[along], detail=True))
    return sections + closing_sections(result, training_cost(result))


def _answer(result: SweepResult) -> Section:
    critical, predicted, amounts = result.critical_batch_size, result.predicted, result.amounts
    losses = f"{significant(result.start_loss, 4)} to {significant(result.goal, 4)}"
    known = critical.known
    parts = [
        *(
            [Sentence(f"Training at this batch size takes {at_critical(known)}.")]
            if known is not None
            else []
        ),
        Sentence(
            f"Measured by training from a loss of {losses}: "
            f"fewest steps {_value(result.min_steps)}, fewest examples {_value(result.min_examples, amounts)}."
        ),
    ]
    if predicted is not None:
        beside = f" Measured over predicted: {predicted.ratio:.2f}." if predicted.ratio is not None else ""
        parts.append(
            Sentence(
                f"The probe along the best run predicts {amounts.interval(predicted.critical_batch_size)}.{beside}"
            )
        )
    if (ahead := result.predicted_by_horizon) is not None:
        parts.append(
            Sentence(
                f"Short runs from the same start (the horizon) predict {amounts.interval(ahead.critical_batch_size)}, "
                f"to a loss of {significant(ahead.loss)}."
            )
        )
    headline = Sentence(amounts.interval(critical), answer_tone(result))
    return Section(title="Critical batch size", headline=headline, parts=parts, detail=True)


def _runs(result: SweepResult) -> Section | None:
    """What training to the goal takes."""
    ratio, steps, law = result.planned_steps_ratio, result.min_steps.value, result.critical_batch_size.known
    planned = None
    if runs := result.planned_runs():
        size, rate = runs[0].batch_size, runs[0].learning_rate
        if ratio is not None and steps is not None:
            planned = Run(size, rate, ratio * steps)
        elif all(run.steps is None for run in runs):
            planned = Run(size, rate, max(run.examples for run in runs) / size, arrived=False)
    return runs_section(
        result,
        result.goal,
        planned=planned,
        trained={batch.batch_size: batch.steps for batch in result.batches if batch.steps is not None},
        by_law=(lambda size: steps * law.steps(size)) if steps is not None and law is not None else None,
    )


def _value(estimate: Estimate, amounts: Amounts = EXAMPLES) -> str:
    if estimate.value is None or estimate.high is None:
        return "unknown"
    return amounts.within(estimate.value, estimate.low, estimate.high)


def _batches(result: SweepResult) -> Grid:
    rows, amounts = [], result.amounts
    for batch in result.batches:
        limits = batch.steps_limits
        rows.append(
            (
                count(batch.batch_size),
                amounts.tokens(batch.batch_size),
                significant(batch.learning_rate),
                "not reached" if batch.steps is None else significant(batch.steps),
                "" if limits is None else f"{significant(limits.low)}–{significant(limits.high)}",
                significant(batch.fitted),
                significant(batch.predicted),
                significant(batch.examples),
                amounts.tokens(batch.examples),
            )
        )
    return Grid(
        columns=(
            "batch\nsize", "tokens", "best\nrate", "steps\nto goal", "of the\nseeds", "fitted",
            "predicted\nby probe", "examples", "in\ntokens",
        ),
        rows=tuple(rows),
        spare=("of the\nseeds", "in\ntokens"),
    ).without_empty("tokens", "in\ntokens")  # fmt: skip


def training_cost(result: Result) -> str:
    """What runs of training took."""
    cost, made, amounts = result.cost, result.provenance, result.amounts
    timing = f" and {seconds(result.throughput.seconds)} of timing steps" if result.throughput else ""
    return (
        f"{seconds(cost.seconds)} of training{timing}; {amounts.count(cost.gradient_examples)} examples in "
        f"{made.replicates} runs on {made.device}; dataset of {amounts.count(made.dataset_length)}."
    )


def sweep_progress(progress: SweepProgress) -> str:
    """How far a sweep has come."""
    doing = {
        "warm-up": "training to the common start",
        "goal": "looking where the planned run arrives",
        "training": f"batch size {count(progress.batch_size or 0)}",
        "probe": "probing along the best run",
        "branch": f"branch of batch size {count(progress.batch_size or 0)}",
    }[progress.phase]
    step = f", step {count(progress.step)}" if progress.step else ""
    done = f"{progress.sizes_done} of about {progress.sizes_planned} batch sizes, {count(progress.runs)} runs"
    left = ""
    if progress.sizes_done:
        each = progress.seconds / progress.sizes_done
        left = f", about {seconds(each * (progress.sizes_planned - progress.sizes_done))} left"
    return f"{doing}{step}; {done}, {seconds(progress.seconds)}{left}"


def _curves(result: SweepResult) -> Curves:
    for batch in result.batches:
        names = ("steps", "examples", "fitted", "predicted", "learning_rate")
        yield batch.batch_size, {f"batches/{name}": getattr(batch, name) for name in names}


def after_warm_up(result: Result) -> str:
    """The training before the runs of a sweep."""
    section = result.config.get("sweep")
    steps = section.get("warmup_steps") if isinstance(section, dict) else None
    return after(steps if isinstance(steps, int) else None)


def _stretch(result: SweepResult) -> Stretch:
    return Stretch(f"trains to a loss of {significant(result.goal)}", after_warm_up(result), AT_BEST_RATES)


REPORT = ReportKind[SweepResult](
    sections=sweep_sections,
    stretch=_stretch,
    panels=(STEPS, RATES, TRADEOFF),
    curves=_curves,
    missing="run arrived",
    progress=sweep_progress,
)
