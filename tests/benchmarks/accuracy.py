"""How near the probe comes to known noise scales, how often its intervals hold, against a naive twin.

    python -m tests.benchmarks.accuracy [--seeds 20] [--only digits]

A row is one task over many seeds. |error| is the median of |value/exact − 1|; cover, how often the 95%
interval holds the exact value, open ones included; lost, the runs without a value. The errors of both
methods are root mean squares of log(value/exact) over the runs that gave a value, each capped at log 100;
× is the ratio of the mean squares, naive over probe, where the naive twin spends as many passes on the
same task. Examples and seconds are means of the probe's.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.task.task import Task
from tests.benchmarks.naive_twin import naive_noise_scale
from tests.benchmarks.tasks import Exact, digits_mlp, linear_regression, noisy_quadratic

_PROCESSES = 2
#: An estimate that is wrong by more than a hundred times counts as wrong by a hundred.
_LARGEST_LOG_ERROR = math.log(100)
#: Cost of a gradient in forward passes.
_GRADIENT_COST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A task and the limit of its probe."""

    build: Callable[[], tuple[Task, Exact]]
    max_examples: int | None  # None: the default budget and precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One seed of one row."""

    exact: float
    value: float | None
    covered: bool
    naive: float | None
    gradient_examples: int
    evaluation_examples: int
    seconds: float


def _quadratic(
    noise_scale: float,
    *,
    decay: float = 1.0,
    noise_decay: float = 0.5,
    aligned: bool = True,
    degrees_of_freedom: float = math.inf,
    max_examples: int | None = None,
) -> Row:
    def build() -> tuple[Task, Exact]:
        return noisy_quadratic(noise_scale, decay, noise_decay, aligned, degrees_of_freedom)

    return Row(build=build, max_examples=max_examples)


#: With max_examples the quadratics' datasets are too large to be read whole, as most are in practice.
ROWS = {
    "linear regression, 8192 examples": Row(build=linear_regression, max_examples=8192),
    "digits MLP, 8192 examples": Row(build=digits_mlp, max_examples=8192),
    "quadratic": _quadratic(10.0),
    "quadratic, aligned": _quadratic(100.0),
    "quadratic, not aligned": _quadratic(100.0, aligned=False),
    "quadratic, heavy tails (5 d.o.f.)": _quadratic(100.0, degrees_of_freedom=5),
    "quadratic, B_simple 49 times": _quadratic(100.0, decay=2.0, aligned=False),
    "quadratic, large": _quadratic(1000.0),
    "quadratic, large, not aligned": _quadratic(1000.0, aligned=False),
    "quadratic, larger": _quadratic(3000.0),
    "quadratic, 8192 examples": _quadratic(100.0, max_examples=8192),
    "quadratic, B_simple 49 times, 8192": _quadratic(100.0, decay=2.0, aligned=False, max_examples=8192),
    "quadratic, heavy tails, 8192": _quadratic(100.0, degrees_of_freedom=5, max_examples=8192),
}
_HEADINGS = (
    "B_noise  |error|  cover  lost     probe RMS  naive RMS (lost)       ×    gradients  evaluations  seconds"
)


def measure(name: str, seed: int) -> Outcome:
    """Probe one task with one seed, then give the naive twin what that cost."""
    row = ROWS[name]
    task, exact = row.build()
    found = probe(task, ProbeSettings(seed=seed, max_examples=row.max_examples))
    budget = _GRADIENT_COST * found.gradient_examples + found.evaluation_examples
    estimate = found.analysis.noise_scale if found.analysis is not None else None
    return Outcome(
        exact=exact.noise_scale,
        value=estimate.value if estimate is not None else None,
        covered=estimate is None
        or (estimate.low <= exact.noise_scale <= (math.inf if estimate.high is None else estimate.high)),
        naive=naive_noise_scale(task, exact, budget, seed),
        gradient_examples=found.gradient_examples,
        evaluation_examples=found.evaluation_examples,
        seconds=found.seconds,
    )


def squared_log_error(values: Sequence[float | None], exact: float) -> float:
    """Mean of log(value/exact)², capped, over the values there are; NaN without any."""
    logs = [math.log(value / exact) for value in values if value is not None]
    return float(np.mean(np.minimum(np.abs(logs), _LARGEST_LOG_ERROR) ** 2)) if logs else math.nan


def table_line(name: str, outcomes: Sequence[Outcome]) -> str:
    """The row of the table."""
    exact, count = outcomes[0].exact, len(outcomes)
    errors = [abs(o.value / exact - 1) for o in outcomes if o.value is not None]
    error = float(np.median(errors)) if errors else math.nan
    ours = squared_log_error([o.value for o in outcomes], exact)
    theirs = squared_log_error([o.naive for o in outcomes], exact)
    lost, naive_lost = (
        sum(v is None for v in values) for values in zip(*((o.value, o.naive) for o in outcomes), strict=True)
    )
    return (
        f"{name:<36}{exact:>7.0f}{error:>9.1%}{sum(o.covered for o in outcomes) / count:>7.0%}"
        f"{f'{lost}/{count}':>7}{math.sqrt(ours):>13.3f}{math.sqrt(theirs):>11.3f}{f'({naive_lost})':>7}"
        f"{theirs / ours:>9.1f}"
        f"{np.mean([o.gradient_examples for o in outcomes]):>12.0f}"
        f"{np.mean([o.evaluation_examples for o in outcomes]):>13.0f}"
        f"{np.mean([o.seconds for o in outcomes]):>9.1f}"
    )


def main() -> None:
    """Print the table, a row as soon as its seeds are done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    arguments = parser.parse_args()
    names = [name for name in ROWS if arguments.only in name]
    print(f"{'task':<36}{_HEADINGS}", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, context, torch.set_num_threads, (1,)) as pool:
        futures: dict[str, list[Future[Outcome]]] = {
            name: [pool.submit(measure, name, seed) for seed in range(arguments.seeds)] for name in names
        }
        for name in names:
            print(table_line(name, [future.result() for future in futures[name]]), flush=True)


if __name__ == "__main__":
    main()
