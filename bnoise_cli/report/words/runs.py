"""What runs to one loss take: the run as planned, the planned batch at its best rate, and the recommended batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from bnoise_cli.numbers import count, seconds, significant
from bnoise_cli.report.document import Grid, Section
from bnoise_cli.results.result import Result


class Run(NamedTuple):
    """A training run to the loss of the table."""

    batch_size: int
    learning_rate: float
    #: The steps that it took, or more than these if it did not arrive.
    steps: float
    arrived: bool = True


def runs_section(
    result: Result,
    loss: float,
    *,
    planned: Run | None,
    trained: Mapping[int, float],
    by_law: Callable[[int], float] | None,
) -> Section | None:
    """A table of steps, examples and time; None if there is no such run.

    Args:
        planned: at the planned batch size and learning rate.
        trained: batch size → steps at its best learning rate.
        by_law: batch size → the steps that the law through the trained ones gives; None without a law.
    """
    size, rates, advised = result.plan.training.batch_size, result.best_rates, result.recommendation
    named = [("planned", planned)] if planned is not None else []
    if size in trained:
        kept = advised.learning_rate if advised is not None and advised.batch_size == size else None
        named.append(("planned batch, best rate", Run(size, kept or rates[size], trained[size])))
    if (
        advised is not None
        and advised.batch_size != size
        and advised.learning_rate is not None
        and (steps := steps_at(advised.batch_size, trained, by_law)) is not None
    ):
        named.append(("recommended", Run(advised.batch_size, advised.learning_rate, steps)))
    if not named:
        return None
    grid = Grid(
        columns=("", "batch\nsize", "learning\nrate", "steps", "examples", "time"),
        rows=tuple(_row(result, name, run) for name, run in named),
        words=frozenset({""}),
    )
    return Section(title=f"Training to a loss of {significant(loss)}", parts=[grid.without_empty("time")])


def steps_at(
    batch_size: int, trained: Mapping[int, float], by_law: Callable[[int], float] | None
) -> float | None:
    """Steps at a batch size: as trained, or by the law; arguments as `runs_section`."""
    return trained.get(batch_size, by_law(batch_size) if by_law is not None else None)


def _row(result: Result, name: str, run: Run) -> tuple[str, ...]:
    step_seconds = next(
        (row.step_seconds for row in result.tradeoff if row.batch_size == run.batch_size), None
    )
    more = "" if run.arrived else "over "
    return (
        name,
        count(run.batch_size),
        significant(run.learning_rate),
        f"{more}{significant(run.steps, 2)}",
        f"{more}{significant(run.steps * run.batch_size, 2)}",
        f"{more}{seconds(run.steps * step_seconds)}" if step_seconds is not None else "",
    )
