"""What an answer to ±15% costs, beside other ways to one, and how that grows.

    python -m tests.benchmarks.cost [--seeds 6] [--only digits] [--world-sizes 1,2,4] [--widths 32,316,1000,3162]

A cost is in forward passes of one example: a gradient counts 3, an evaluation 1. Seconds are of the processor, which
others on the machine disturb less; with several processes, of the clock. Both stand as median (lowest to highest) of
the seeds. All tasks have known answers, and all but the digits have datasets too large to be read whole, as most are
in practice. Everything took six minutes of the processor on a busy machine; a width of 3162 takes four more a seed.

probe        Default precision, without a limit of time. Error: root mean square of log(value/exact). Its passes: the
             same forward and backward passes alone, on batches fetched before; the ratio of the two times.
naive twin   The textbook procedure of naive_twin.py with the probe's budget of the same seed. Its cost to the probe's
             error is that budget times (error ratio)², as if its error fell as 1/sqrt(cost), which flatters it: a bias
             does not fall. In brackets what 90% of resamplings of the seeds give. "no number": the fit failed at the
             probe's cost; such seeds are left out of its error, and errors above a hundred times count as a hundred.
logged       B_simple from two norms of each training step (logged_b_simple.py), on 4 devices that together take the
             power of two nearest to B_noise, at fixed weights, on half of the seeds: until it stays within ±15% of
             the exact B_simple to the end of 1,000 steps, and in all the second half of these at least; with an
             exponential moving average, and with the plain mean of all steps. A training run makes these passes
             anyway, but its weights move. Exact B_simple over exact B_noise is what no averaging mends.

Then the probe as parameters (least squares with as many inputs as outputs, B_noise 64) and B_noise (quadratic) grow, on
half of the seeds; and `bnoise probe` of configs/stdlib_gpt.yaml under torchrun with a fixed number of examples.

One core of a shared x86-64 machine, torch 2.13.0, 2026-11-23, 6 seeds: the probe takes 100,000 to 565,000 forward
passes and 0.6 to 4.5 s, 3 to 4 times its passes' seconds (10 where examples are made when they are read); the twin 79
to 3,038 times as many. B_simple as the plain mean takes 23,000 to 63,000 on three tasks; where it is 49 times
B_noise it does not stay in the second half of 384,000. With decay 0.99 it never stays: within ±15% in 14% to 91% of the
later steps. From 1,024 to 9,998,244 parameters the same 110,000 forward passes in 1.2 to 112 s, 8.2 to 1.5 times its
passes' seconds. Two processes on two free cores were 1.58 times as fast as one, four 1.06 times.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.task import Task
from tests.benchmarks.accuracy import squared_log_error
from tests.benchmarks.logged_b_simple import (
    Array,
    exponential_average,
    signals_and_noises,
    steps_until_it_stays,
)
from tests.benchmarks.naive_twin import naive_noise_scale
from tests.benchmarks.overhead import Recorder, batches_of, replay, timed
from tests.benchmarks.tasks import Exact, digits_mlp, linear_regression, noisy_quadratic

Build = Callable[[], tuple[Task, Exact]]

_TOLERANCE = 0.15
#: More than four times as many gradient examples as this would let the probe read a whole dataset.
_QUADRATIC_EXAMPLES = 2**18
_MOST_EXAMPLES = 1_000_000
_GRADIENT_COST = 3
_DEVICES, _LOGGED_STEPS = 4, 1000
_RESAMPLINGS, _PERCENTILES = 2000, (5, 95)
_ROOT = Path(__file__).resolve().parents[2]
#: Rounds take turns. The precision is out of reach, so that the number of examples ends the measurement.
_WORLD_ROUNDS = 2
_WORLD_SETTINGS = (
    "probe.max_examples=1024",
    "probe.precision=0.01",
    "probe.budget=1h",
    "probe.warmup_steps=50",
)


def _quadratic(noise_scale: float, decay: float = 1.0, aligned: bool = True) -> Build:
    return lambda: noisy_quadratic(noise_scale, decay, 0.5, aligned, math.inf, _QUADRATIC_EXAMPLES)


TASKS: dict[str, Build] = {
    "quadratic": _quadratic(100.0),
    "quadratic, B_simple far off": _quadratic(100.0, decay=2.0, aligned=False),
    "linear regression": lambda: linear_regression(inputs=256),
    "digits MLP, read whole": digits_mlp,
}
NOISE_SCALES = (16, 64, 256, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The probe of one seed and its bare passes."""

    value: float | None
    cost: int  # in forward passes
    seconds: float
    bare_seconds: float


def measure(build: Build, seed: int) -> Probed:
    """Probe to the default precision, then make the same passes alone."""
    task, _ = build()
    with Recorder(task.model) as passes:
        begun = time.process_time()
        found = probe(task, ProbeSettings(seed=seed, max_examples=_MOST_EXAMPLES, budget_seconds=1e6))
        seconds = time.process_time() - begun
    batches = batches_of(task, passes)
    return Probed(
        value=found.analysis.noise_scale.value if found.analysis is not None else None,
        cost=_GRADIENT_COST * found.gradient_examples + found.evaluation_examples,
        seconds=seconds,
        bare_seconds=timed(lambda: replay(task, passes, batches))[1],
    )


def print_line(name: str, cost: str, seconds: str, note: str) -> None:
    print(f"{name:<30}{cost:>36}{seconds:>27}   {note}", flush=True)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median (lowest to highest)."""
    middle, low, high = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def print_probe(name: str, found: Sequence[Probed], exact: Exact) -> None:
    """The line of the probe."""
    error = math.sqrt(squared_log_error([one.value for one in found], exact.noise_scale))
    bare = median(one.seconds / one.bare_seconds for one in found)
    per_example = median(one.cost for one in found) / exact.noise_scale
    print_line(
        name,
        spread([one.cost for one in found]),
        spread([one.seconds for one in found], 2),
        f"error {error:.3f}, {bare:.1f} times its passes' seconds, {per_example:,.0f}·B_noise",
    )


def print_naive(build: Build, found: Sequence[Probed]) -> None:
    """The line of the naive twin at the probe's cost, scaled to the probe's error."""
    task, exact = build()
    values, seconds = [], []
    for seed, one in enumerate(found):
        begun = time.process_time()
        values.append(naive_noise_scale(task, exact, one.cost, seed))
        seconds.append(time.process_time() - begun)
    ours, theirs = (np.array([one.value for one in found]), np.array(values))
    times = _error_ratio(ours, theirs, exact)
    generator = np.random.default_rng(0)
    chosen = [generator.integers(len(found), size=len(found)) for _ in range(_RESAMPLINGS)]
    low, high = np.nanpercentile([_error_ratio(ours[i], theirs[i], exact) for i in chosen], _PERCENTILES)
    cost = median(one.cost for one in found)
    error = math.sqrt(squared_log_error(values, exact.noise_scale))
    lost = sum(value is None for value in values)
    print_line(
        "  naive twin",
        f"{times * cost:.1e} ({low * cost:.1e} to {high * cost:.1e})",
        f"{times * median(seconds):,.0f} ({low * median(seconds):,.0f} to {high * median(seconds):,.0f})",
        f"{times:,.0f} times the probe; at its cost error {error:.2f}, no number in {lost} of {len(found)}",
    )


def _error_ratio(ours: Any, theirs: Any, exact: Exact) -> float:
    return squared_log_error(theirs, exact.noise_scale) / squared_log_error(ours, exact.noise_scale)


def print_logged(build: Build, seeds: int, decay: float) -> None:
    """The lines of B_simple as frameworks log it, with a moving average and with the mean of all steps."""
    task, exact = build()
    micro_batch = max(1, 2 ** round(math.log2(exact.noise_scale)) // _DEVICES)
    begun = time.process_time()
    runs = [
        signals_and_noises(task, micro_batch, _DEVICES, _LOGGED_STEPS, Draws(seed, Stream.BENCHMARK))
        for seed in range(seeds)
    ]
    seconds = (time.process_time() - begun) / seeds / _LOGGED_STEPS
    examples = micro_batch * _DEVICES
    far = exact.simple_noise_scale / exact.noise_scale
    for name, each in ((f"  logged, average of {decay}", decay), ("  logged, plain mean", 1.0)):
        within = [_is_near(signal, noise, each, exact) for signal, noise in runs]
        found = [steps_until_it_stays(run) for run in within]
        stayed = sorted(math.inf if steps is None else float(steps) for steps in found)
        share = np.mean([run[_LOGGED_STEPS // 2 :] for run in within])
        print_line(
            name,
            _until([steps * examples * _GRADIENT_COST for steps in stayed], 0),
            _until([steps * seconds for steps in stayed], 2),
            f"within ±15% in {share:.0%} of the later steps; exact B_simple is {far:.1f} times B_noise",
        )


def _is_near(signal: Array, noise: Array, decay: float, exact: Exact) -> Any:
    value = exponential_average(noise, decay) / exponential_average(signal, decay)
    return np.abs(value / exact.simple_noise_scale - 1) <= _TOLERANCE


def _until(values: Sequence[float], digits: int) -> str:
    """As `spread`, where infinity means that it does not stay."""
    if math.isinf(median(values)):
        return f"never in {sum(map(math.isinf, values))} of {len(values)}"
    return spread(values, digits).replace("inf", "never")


def run_world(size: int) -> dict[str, Any]:
    """The result of `bnoise probe` under torchrun with so many processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        torchrun = [
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={size}",
            "-m",
            "bnoise_cli",
        ]
        settings = [part for setting in _WORLD_SETTINGS for part in ("--set", setting)]
        call = ["probe", "configs/stdlib_gpt.yaml", *settings, "--json", "--quiet", "--out", str(out)]
        done = subprocess.run(
            [sys.executable, "-m", *torchrun, *call, "--device", "cpu"],
            cwd=_ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if not out.exists():
            raise RuntimeError(f"{size} processes left no result: {done.stderr[-2000:]}")
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def print_worlds(sizes: Sequence[int]) -> None:
    """A line for each number of processes."""
    found = [[run_world(size) for size in sizes] for _ in range(_WORLD_ROUNDS)]
    first = found[0][0]
    for i, size in enumerate(sizes):
        results = [results[i] for results in found]
        cost = results[0]["cost"]
        against = median(results[0]["cost"]["seconds"] / results[i]["cost"]["seconds"] for results in found)
        ratio = results[0]["noise_scale"]["value"] / first["noise_scale"]["value"]
        same = "equal" if results[0]["noise_scale"] == first["noise_scale"] else f"{ratio - 1:+.1e} of it"
        print_line(
            f"processes: {size}",
            f"{_GRADIENT_COST * cost['gradient_examples'] + cost['evaluation_examples']:,}",
            spread([result["cost"]["seconds"] for result in results], 2),
            f"{against:.2f} times as fast as with {sizes[0]}; noise_scale {same}",
        )


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--decay", type=float, default=0.99, help="of the moving average")
    parser.add_argument(
        "--widths", type=_numbers, default=[32, 316, 1000], help="square roots of the parameters"
    )
    parser.add_argument("--world-sizes", type=_numbers, default=[1, 2], help="processes of torchrun")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    few = max(1, arguments.seeds // 2)
    print(f"one thread, torch {torch.__version__}, {date.today()}, seeds: {arguments.seeds}")
    print_line("", "forward passes", "seconds", "")
    for name, build in TASKS.items():
        if arguments.only in name:
            found = [measure(build, seed) for seed in range(arguments.seeds)]
            print_probe(name, found, build()[1])
            print_naive(build, found)
            print_logged(build, few, arguments.decay)
    rows: dict[str, Build] = {}
    for width in arguments.widths:
        rows[f"parameters: {width**2:,}"] = partial(linear_regression, width, width, 64.0)
    for noise_scale in NOISE_SCALES:
        rows[f"B_noise: {noise_scale:,}"] = _quadratic(noise_scale)
    for name, build in rows.items():
        if arguments.only in name:
            print_probe(name, [measure(build, seed) for seed in range(few)], build()[1])
    if arguments.only in "processes":
        print_worlds(arguments.world_sizes)


if __name__ == "__main__":
    main()
