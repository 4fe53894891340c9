"""A result of the sweep in words and tables."""

from __future__ import annotations

from bnoise_cli.numbers import count, seconds, significant, within
from bnoise_cli.records import Estimate, SweepResult
from bnoise_cli.report.advice_words import advice_sections, interval, remarks
from bnoise_cli.report.document import Grid, Section, Sentence, Tone


def sweep_sections(result: SweepResult) -> list[Section]:
    """The answer, the advice, what was measured beside what was predicted, the doubts, and what it cost."""
    branched = any(run.outcome == "branch" for run in result.runs)
    sections = [_branch_answer(result) if branched else _answer(result), *advice_sections(result)]
    sections.append(Section(title="Measured", parts=[_branches(result) if branched else _batches(result)]))
    if result.predicted is not None:
        sections.append(Section(title="Along the best run", parts=[_trajectory(result)]))
    if result.doubts:
        sections.append(Section(title="Reasons for doubt", parts=remarks(result.doubts)))
    sections.append(Section(title="Cost", headline=Sentence(_cost(result), Tone.DETAIL)))
    return sections


def _answer(result: SweepResult) -> Section:
    critical, predicted = result.critical_batch_size, result.predicted
    losses = f"{significant(result.start_loss, 4)} to {significant(result.goal, 4)}"
    parts = [
        Sentence("Training at this batch size takes twice the fewest steps and twice the fewest examples."),
        Sentence(
            f"Measured by training from a loss of {losses}: "
            f"fewest steps {_value(result.min_steps)}, fewest examples {_value(result.min_examples)}."
        ),
    ]
    if predicted is not None:
        beside = f" Measured over predicted: {predicted.ratio:.2f}." if predicted.ratio is not None else ""
        parts.append(
            Sentence(
                f"The probe along the best run predicts {interval(predicted.critical_batch_size)}.{beside}"
            )
        )
    headline = Sentence(interval(critical), Tone.GOOD if critical.high else Tone.UNSURE)
    return Section(title="Critical batch size", headline=headline, parts=parts)


def _branch_answer(result: SweepResult) -> Section:
    critical = result.critical_batch_size
    headline = Sentence(interval(critical), Tone.GOOD if critical.high else Tone.UNSURE)
    examples = result.config["sweep"]["branch"]["examples"]
    parts = [
        Sentence(f"Here critical means {critical.definition}."),
        Sentence(
            f"Branches of {count(examples)} examples each, from a loss of {significant(result.start_loss, 4)}; the "
            "learning rate in proportion to the batch for SGD, to its square root otherwise."
        ),
    ]
    return Section(title="Critical batch size", headline=headline, parts=parts)


def _branches(result: SweepResult) -> Grid:
    rows = []
    for batch in result.batches:
        limits = batch.loss_limits
        above = None if batch.loss is None else batch.loss - (result.batches[0].loss or 0.0)
        rows.append(
            (
                count(batch.batch_size),
                significant(batch.learning_rate),
                significant(batch.steps),
                "diverged" if batch.loss is None else significant(batch.loss, 4),
                "" if limits is None else f"{significant(limits.low, 4)}–{significant(limits.high, 4)}",
                "" if above is None else f"{above:+.4f}",
            )
        )
    return Grid(
        columns=(
            "batch\nsize",
            "learning\nrate",
            "steps",
            "loss at\nthe end",
            "of the\nseeds",
            "above the\nsmallest",
        ),
        rows=tuple(rows),
        spare=("of the\nseeds",),
    )


def _value(estimate: Estimate) -> str:
    if estimate.value is None or estimate.high is None:
        return "unknown"
    return within(estimate.value, estimate.low, estimate.high)


def _batches(result: SweepResult) -> Grid:
    rows = []
    for batch in result.batches:
        limits = batch.steps_limits
        rows.append(
            (
                count(batch.batch_size),
                significant(batch.learning_rate),
                "not reached" if batch.steps is None else significant(batch.steps),
                "" if limits is None else f"{significant(limits.low)}–{significant(limits.high)}",
                significant(batch.fitted),
                significant(batch.predicted),
                significant(batch.examples),
            )
        )
    return Grid(
        columns=(
            "batch\nsize", "best\nrate", "steps\nto goal", "of the\nseeds", "fitted", "predicted\nby probe", "examples",
        ),
        rows=tuple(rows),
        spare=("of the\nseeds",),
    )  # fmt: skip


def _trajectory(result: SweepResult) -> Grid:
    assert result.predicted is not None
    return Grid(
        columns=("step", "loss", "noise scale"),
        rows=tuple(
            (count(point.step), significant(point.loss), interval(point.noise_scale))
            for point in result.predicted.trajectory
        ),
        words=frozenset({"noise scale"}),
    )


def _cost(result: SweepResult) -> str:
    cost, made = result.cost, result.provenance
    timing = f" and {seconds(result.throughput.seconds)} of timing steps" if result.throughput else ""
    return (
        f"{seconds(cost.seconds)} of training{timing}; {count(cost.gradient_examples)} examples in {made.replicates} "
        f"runs on {made.device}; dataset of {count(made.dataset_length)}."
    )
