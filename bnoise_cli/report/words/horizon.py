"""What training runs from the probed weights showed, in words and two tables."""

from __future__ import annotations

from collections.abc import Iterator

from bnoise_cli.measurement.outcome import HorizonProgress
from bnoise_cli.numbers import count, seconds, significant
from bnoise_cli.records import Horizon, Recommendation
from bnoise_cli.report.document import Grid, Section, Sentence, Tone
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
    takes = _what_it_takes(result, horizon)
    if takes.rows:
        loss = significant(horizon.curve[-1].loss)
        yield Section(title=f"Training to a loss of {loss}", parts=[takes])
    still = Sentence(
        "It stands still within its interval: longer runs did not change it further."
        if horizon.stands_still
        else "It has not stood still: it holds for training to the loss of the last row.",
        Tone.DETAIL,
    )
    yield Section(title="Horizon", parts=[_curve(result, horizon), still])


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


def _what_it_takes(result: ProbeResult, horizon: Horizon) -> Grid:
    """Steps, examples and time to the last loss: as planned, at the best rate, and as recommended."""
    planned, rate = result.plan.training.batch_size, horizon.planned_learning_rate
    rows = []
    as_planned = planned_steps(planned, horizon)
    if as_planned is not None:
        steps, arrived = as_planned
        rows.append(_row(result, "planned", planned, rate, steps, "" if arrived else "over "))
    best = {batch.batch_size: batch for batch in horizon.batches}
    if planned in best:
        found = best[planned]
        rows.append(_row(result, "planned batch, best rate", planned, found.learning_rate, found.steps))
    advised = result.recommendation
    if advised is not None and advised.batch_size != planned and advised.learning_rate is not None:
        rows.append(
            _row(result, "recommended", advised.batch_size, advised.learning_rate, steps_of(horizon, advised))
        )
    return Grid(
        columns=("", "batch\nsize", "learning\nrate", "steps", "examples", "time"),
        rows=tuple(rows),
        words=frozenset({""}),
    ).without_empty("time")


def planned_steps(planned: int, horizon: Horizon) -> tuple[float, bool] | None:
    """Steps at the planned batch size and learning rate, and whether they reached the last loss; None: not trained."""
    run = horizon.run_as_planned(planned)
    if run is None:
        return None
    return (run.steps, False) if run.arrived is None else (run.arrived, True)


def steps_of(horizon: Horizon, advised: Recommendation) -> float:
    """Steps of a run at the recommended batch size: as trained, or by the law through the trained ones."""
    trained = {batch.batch_size: batch.steps for batch in horizon.batches}
    last = horizon.curve[-1]
    law = last.min_steps + last.min_examples / advised.batch_size
    return trained.get(advised.batch_size, law)


def _row(
    result: ProbeResult, name: str, size: int, rate: float, steps: float, more: str = ""
) -> tuple[str, ...]:
    step_seconds = next((row.step_seconds for row in result.tradeoff if row.batch_size == size), None)
    time = f"{more}{seconds(steps * step_seconds)}" if step_seconds is not None else ""
    return (
        name,
        count(size),
        f"{significant(rate)}",
        f"{more}{significant(steps, 2)}",
        f"{more}{significant(steps * size, 2)}",
        time,
    )


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
