"""What training runs from the probed weights showed, in words and two tables."""

from __future__ import annotations

from collections.abc import Iterator

from bnoise_cli.measurement.outcome import HorizonProgress
from bnoise_cli.numbers import count, significant
from bnoise_cli.records import Horizon
from bnoise_cli.report.document import Grid, Section, Sentence, Tone
from bnoise_cli.report.words.runs import Run, runs_section, steps_at
from bnoise_cli.results.probe import ProbeResult


def stretch(horizon: Horizon) -> str:
    """How far the training runs went."""
    last = horizon.curve[-1]
    return (
        f"Over the next {count(last.steps)} steps of a large batch, from a loss of "
        f"{significant(horizon.start_loss)} to {significant(last.loss)}."
    )


def horizon_sections(result: ProbeResult, horizon: Horizon) -> Iterator[Section]:
    """What the same progress takes, and how the critical batch size changes with the length of training."""
    if (runs := _runs(result, horizon)) is not None:
        yield runs
    still = Sentence(
        "It stands still within its interval: longer runs did not change it further."
        if horizon.stands_still
        else "It has not stood still: it holds for training to the loss of the last row.",
        Tone.DETAIL,
    )
    yield Section(title="Horizon", parts=[_curve(result, horizon), still], detail=True)


def _curve(result: ProbeResult, horizon: Horizon) -> Grid:
    amounts = result.amounts
    return Grid(
        columns=("steps\nahead", "loss", "critical batch size"),
        rows=(
            *(
                [("1", significant(horizon.start_loss), f"{amounts.interval(result.noise_scale)}, one step")]
                if result.points
                else []
            ),
            *(
                (count(point.steps), significant(point.loss), amounts.interval(point.critical_batch_size))
                for point in horizon.curve
            ),
        ),
        words=frozenset({"critical batch size"}),
    )


def _runs(result: ProbeResult, horizon: Horizon) -> Section | None:
    """What training to the last loss takes."""
    size, rate = result.plan.training.batch_size, horizon.planned_learning_rate
    as_planned = planned_steps(size, horizon)
    return runs_section(
        result,
        horizon.curve[-1].loss,
        planned=Run(size, rate, *as_planned) if as_planned is not None else None,
        trained=_trained(horizon),
        by_law=horizon.curve[-1].steps_at,
    )


def planned_steps(planned: int, horizon: Horizon) -> tuple[float, bool] | None:
    """Steps at the planned batch size and learning rate, and whether they reached the last loss; None: not trained."""
    run = horizon.run_as_planned(planned)
    if run is None:
        return None
    return (run.steps, False) if run.arrived is None else (run.arrived, True)


def steps_of(horizon: Horizon, batch_size: int) -> float:
    """Steps to the last loss at the best learning rate of a batch size."""
    steps = steps_at(batch_size, _trained(horizon), horizon.curve[-1].steps_at)
    assert steps is not None
    return steps


def _trained(horizon: Horizon) -> dict[int, float]:
    return {batch.batch_size: batch.steps for batch in horizon.batches}


def below_the_headline(result: ProbeResult, horizon: Horizon) -> Iterator[Sentence]:
    """What stands directly below the critical batch size."""
    yield Sentence(stretch(horizon))
    if not result.points:
        return
    yield Sentence(
        f"The noise scale of one step alone would say {result.amounts.interval(result.noise_scale)}.",
        Tone.DETAIL,
    )


def horizon_progress(progress: HorizonProgress) -> str:
    """How far the training runs have come, and what they have shown."""
    clock = f"{progress.seconds:.0f} s of at most {progress.budget_seconds:.0f} s"
    doing = f"training short runs, batch size {count(progress.batch_size)}, step {count(progress.step)}"
    if not progress.levels:
        return f"{doing}; {clock}"
    last = progress.levels[-1]
    found = last.fit.critical
    known = significant(found.value if found.value is not None else found.low)
    return f"critical batch size about {known} over {count(last.steps)} steps; {doing}; {clock}"
