"""A result of branches in words and tables."""

from __future__ import annotations

from bnoise_cli.numbers import count, significant
from bnoise_cli.report.document import Grid, Section, Sentence, Tone
from bnoise_cli.report.kinds import Curves, ReportKind, Stretch
from bnoise_cli.report.plots.branch import BRANCHES
from bnoise_cli.report.words.advice import closing_sections
from bnoise_cli.report.words.sweep import after_warm_up, sweep_progress, training_cost
from bnoise_cli.results.branch import BranchResult


def branch_sections(result: BranchResult) -> list[Section]:
    """The answer with its own definition, what was measured, the doubts, and what it cost."""
    measured = Section(title="Measured", parts=[_batches(result)])
    return [_answer(result), measured, *closing_sections(result, training_cost(result))]


def _answer(result: BranchResult) -> Section:
    critical = result.critical_batch_size
    start, amounts = significant(result.start_loss, 4), result.amounts
    headline = Sentence(_bracket(result), Tone.GOOD if critical.high else Tone.UNSURE)
    parts = [
        Sentence(f"Here critical means {critical.definition}."),
        Sentence(
            f"Branches of {amounts.examples(result.examples)} each, from a loss of {start}; "
            "the learning rate in proportion to the batch or, for optimizers that adapt it, to its square root."
        ),
    ]
    return Section(title="Critical batch size", headline=headline, parts=parts)


def _bracket(result: BranchResult) -> str:
    """The two branches between which the answer lies. They are not a confidence interval."""
    critical, amounts = result.critical_batch_size, result.amounts
    low = amounts.count(round(critical.low))
    if critical.value is not None and critical.high is not None:
        high = amounts.count(round(critical.high))
        return f"{amounts.examples(critical.value)}, between the branches of {low} and {high}"
    if critical.low > 0:
        largest = result.batches[-1].batch_size
        beyond = "no larger branch was trained" if critical.low >= largest else "no branch surely loses more"
        return f"at least {low} examples; {beyond}"
    return "cannot tell: the branches of the smallest batch diverged"


def _batches(result: BranchResult) -> Grid:
    rows, amounts = [], result.amounts
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


def _curves(result: BranchResult) -> Curves:
    for batch in result.batches:
        names = ("steps", "examples", "learning_rate", "loss")
        yield batch.batch_size, {f"batches/{name}": getattr(batch, name) for name in names}


def _stretch(result: BranchResult) -> Stretch:
    amount = f"trains branches of {count(result.examples)} examples"
    return Stretch(amount, after_warm_up(result), ", at learning rates scaled with the batch size")


REPORT = ReportKind[BranchResult](
    sections=branch_sections,
    stretch=_stretch,
    panels=(BRANCHES,),
    curves=_curves,
    missing="run arrived",
    progress=sweep_progress,
)
