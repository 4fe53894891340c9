"""A result of the sweep in words and tables."""

from __future__ import annotations

from bnoise_cli.amounts import EXAMPLES, Amounts
from bnoise_cli.numbers import count, seconds, significant
from bnoise_cli.records import Estimate, SweepResult
from bnoise_cli.report.document import Grid, Section, Sentence, Tone
from bnoise_cli.report.words.advice import advice_sections, remarks
from bnoise_cli.report.words.probe import along_training


def sweep_sections(result: SweepResult) -> list[Section]:
    """The answer, the advice, what was measured beside what was predicted, the doubts, and what it cost."""
    branched = any(run.outcome == "branch" for run in result.runs)
    sections = [_branch_answer(result) if branched else _answer(result), *advice_sections(result)]
    sections.append(Section(title="Measured", parts=[_branches(result) if branched else _batches(result)]))
    if result.predicted is not None:
        along = along_training(result.predicted.trajectory, Amounts.of(result))
        sections.append(Section(title="Along the best run", parts=[along]))
    if result.doubts:
        sections.append(Section(title="Reasons for doubt", parts=remarks(result.doubts)))
    sections.append(Section(title="Cost", headline=Sentence(_cost(result), Tone.DETAIL)))
    return sections


def _answer(result: SweepResult) -> Section:
    critical, predicted, amounts = result.critical_batch_size, result.predicted, Amounts.of(result)
    losses = f"{significant(result.start_loss, 4)} to {significant(result.goal, 4)}"
    known = "Training at this batch size takes twice the fewest steps and twice the fewest examples."
    parts = [
        *([Sentence(known)] if critical.value is not None else []),
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
    headline = Sentence(amounts.interval(critical), Tone.GOOD if critical.high else Tone.UNSURE)
    return Section(title="Critical batch size", headline=headline, parts=parts)


def _branch_answer(result: SweepResult) -> Section:
    critical, amounts = result.critical_batch_size, Amounts.of(result)
    headline = Sentence(amounts.interval(critical), Tone.GOOD if critical.high else Tone.UNSURE)
    examples = result.config["sweep"]["branch"]["examples"]
    parts = [
        Sentence(f"Here critical means {critical.definition}."),
        Sentence(
            f"Branches of {amounts.examples(examples)} each, from a loss of {significant(result.start_loss, 4)}; the "
            "learning rate in proportion to the batch or, for optimizers that adapt it, to its square root."
        ),
    ]
    return Section(title="Critical batch size", headline=headline, parts=parts)


def _branches(result: SweepResult) -> Grid:
    rows, amounts = [], Amounts.of(result)
    for batch in result.batches:
        limits = batch.loss_limits
        above = None if batch.loss is None else batch.loss - (result.batches[0].loss or 0.0)
        rows.append(
            (
                count(batch.batch_size),
                amounts.tokens(batch.batch_size),
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
            "tokens",
            "learning\nrate",
            "steps",
            "loss at\nthe end",
            "of the\nseeds",
            "above the\nsmallest",
        ),
        rows=tuple(rows),
        spare=("of the\nseeds",),
    ).without_empty("tokens")


def _value(estimate: Estimate, amounts: Amounts = EXAMPLES) -> str:
    if estimate.value is None or estimate.high is None:
        return "unknown"
    return amounts.within(estimate.value, estimate.low, estimate.high)


def _batches(result: SweepResult) -> Grid:
    rows, amounts = [], Amounts.of(result)
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


def _cost(result: SweepResult) -> str:
    cost, made, amounts = result.cost, result.provenance, Amounts.of(result)
    timing = f" and {seconds(result.throughput.seconds)} of timing steps" if result.throughput else ""
    return (
        f"{seconds(cost.seconds)} of training{timing}; {amounts.count(cost.gradient_examples)} examples in "
        f"{made.replicates} runs on {made.device}; dataset of {amounts.count(made.dataset_length)}."
    )
