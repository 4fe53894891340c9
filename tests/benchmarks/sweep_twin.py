"""The sweep on the digits against a plain loop over a dense grid of learning rates, its naive twin.

    python tests/benchmarks/sweep_twin.py [--goals 0.5 0.2 0.1] [--sizes 8 16 32 64 128 256] [--seeds 5]

The twin writes forward and backward of the MLP by hand and trains every learning rate of a grid 2^(1/4) apart, from
the config's / 11 to 23 times it (0.018 to 4.5), with the seeds and draws of the sweep. Its steps to a goal are the
least over the grid of the geometric mean over seeds. It looks at the loss over the whole dataset every step, or
every 2% of its growth, and trains on to 1.5 times the crossing. It shares `maths.crossing` and `fit_seeds` with
the sweep, nothing else; E[L] is where the mean loss over seeds crosses the goal at the twin's best rate, smoothed by
isotonic regression, which shares nothing.

Examples are those trained on. A run of the twin is charged up to 1.3 times its crossing, to where it diverges, or for
twice the fewest steps: whoever runs a grid does not know those before, so a real loop spends more.

B_crit is printed once more for the first step at which the loss, not smoothed, dips below the goal: smaller, as small
batches dip early, the more often one looks.

One core of a shared x86-64 machine, torch 2.13.0, 2026-11-23, steps of the sweep over the twin's, and its part of
the twin's examples:

    goal  B = 8    16     32     64    128    256   part   B_crit: sweep        twin                 first dip
    0.5   1.023  1.020  1.000  1.000  0.988  0.986  0.150  19.8 (15.4 to 25.3)  18.6 (14.5 to 23.8)  13.6
    0.2   0.985  0.955  0.974  0.975  0.983  1.005  0.139  34.0 (30.1 to 38.4)  35.3 (31.4 to 39.6)  21.7
    0.1   1.043  0.995  0.977  0.974  0.996  1.003  0.184  48.0 (41.0 to 56.1)  46.3 (40.8 to 52.4)  28.3

Mostly seeds differ: log S of one seed scatters by 0.1 to 0.25 here, so three seeds tell S to 10%, and the draws
are shared to take a part of that out of the comparison. `--twin-seeds` gives the twin more of them.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from bnoise_cli.examples.datasets import Digits
from bnoise_cli.ledger import Ledger
from bnoise_cli.maths.crossing import crossing
from bnoise_cli.maths.steps_fit import fit_seeds
from bnoise_cli.measurement.building.build import build_task
from bnoise_cli.measurement.sweeping.sweep import SweepSession
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.records import Estimate
from bnoise_cli.results.sweep import SweepResult, sweep_result
from bnoise_cli.spec.load import Spec, load_spec

_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "digits.yaml"
_CPU = torch.device("cpu")
#: Points of the twin's grid for a factor of two, and its ends in factors of two from the config's rate.
_PER_DOUBLING, _LOWEST, _HIGHEST = 4, -3.5, 4.5
#: Growth of the step from one evaluation to the next.
_EVALUATE = 1.02
#: A run trains on to so many times its crossing before that is read off, and is charged for the smaller part.
_ONWARD, _CHARGED = 1.5, 1.3
#: A run ends after so many times the fewest steps, or at so many times the loss at the start.
_GIVE_UP, _DIVERGED = 2.0, 2.0
#: Distance between the seeds of repetitions.
_NEXT_SEED = 1_000_003


@dataclass
class Curve:
    """The loss along one run."""

    steps: list[int] = field(default_factory=lambda: [0])
    losses: list[float] = field(default_factory=list)

    def reaches(self, goal: float) -> float | None:
        return crossing(self.steps, self.losses, goal)

    def dips(self, goal: float) -> float | None:
        return next((step for step, loss in zip(self.steps, self.losses, strict=True) if loss <= goal), None)


def train_grid(
    start: Sequence[Tensor],
    data: tuple[Tensor, Tensor],
    rates: Sequence[float],
    batch_size: int,
    seed: int,
    goal: float,
) -> list[Curve]:
    """Plain SGD at every rate on the same draws, until each has reached `goal`, diverged or been left behind."""
    x, y = data
    weights = [value.expand(len(rates), *value.shape).clone() for value in start]
    draws, alive = Draws(seed, Stream.TRAINING_RUN), list(range(len(rates)))
    curves = [Curve(losses=[loss]) for loss in evaluate(weights, x, y)]
    step, look, fewest = 0, 1, math.inf
    while alive:
        chosen = torch.from_numpy(draws.indices(batch_size, len(x)))
        epsilon = torch.tensor([rates[i] for i in alive])
        for weight, gradient in zip(weights, gradients(weights, x[chosen], y[chosen]), strict=True):
            weight -= epsilon.view(-1, *[1] * (weight.ndim - 1)) * gradient
        step += 1
        if step < look:
            continue
        look = max(step + 1, math.floor(_EVALUATE * step))
        kept = []
        for row, (i, loss) in enumerate(zip(alive, evaluate(weights, x, y), strict=True)):
            if not loss < _DIVERGED * curves[i].losses[0]:
                continue
            curves[i].steps.append(step)
            curves[i].losses.append(loss)
            at = curves[i].reaches(goal)
            fewest = min(fewest, math.inf if at is None else at)
            if step < (_GIVE_UP * fewest if at is None else _ONWARD * at):
                kept.append(row)
        if len(kept) < len(alive):
            alive, weights = [alive[row] for row in kept], [weight[kept] for weight in weights]
    return curves


def logits(weights: Sequence[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """(Hidden units, logits) of every run, shapes (runs, examples, ·)."""
    w1, b1, w2, b2 = weights
    runs, width, inputs = w1.shape
    hidden = (x @ w1.reshape(runs * width, inputs).T).view(len(x), runs, width).transpose(0, 1)
    hidden = (hidden + b1[:, None]).relu()
    return hidden, torch.baddbmm(b2[:, None], hidden, w2.transpose(1, 2))


def gradients(weights: Sequence[Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    """Of the mean cross-entropy of each run, by hand."""
    hidden, output = logits(weights, x)
    error = output.softmax(dim=2)
    error[:, torch.arange(len(y)), y] -= 1
    error /= len(y)
    error_1 = torch.bmm(error, weights[2]) * (hidden > 0)
    w1 = (error_1.transpose(1, 2).reshape(-1, len(x)) @ x).view_as(weights[0])
    return [w1, error_1.sum(1), torch.bmm(error.transpose(1, 2), hidden), error.sum(1)]


def evaluate(weights: Sequence[Tensor], x: Tensor, y: Tensor) -> list[float]:
    """The mean loss of each run over the whole dataset."""
    _, output = logits(weights, x)
    losses: list[float] = (output.logsumexp(2) - output[:, torch.arange(len(y)), y]).mean(1).tolist()
    return losses


@dataclass
class Outcome:
    """The twin at one batch size and goal."""

    rate: float
    steps: list[float]  # of every seed at the best rate
    expected: float  # where E[L] over the seeds arrives at that rate
    examples: int

    @property
    def mean(self) -> float:
        return geometric_mean(self.steps)


def outcome(
    curves: Sequence[Sequence[Curve]],
    rates: Sequence[float],
    batch_size: int,
    goal: float,
    arrive: Callable[[Curve, float], float | None] = Curve.reaches,
) -> Outcome:
    """The best rate of a grid of runs: `curves` of every seed, each at every rate."""
    found = [[arrive(curves[seed][i], goal) for seed in range(len(curves))] for i in range(len(rates))]
    arrived = {
        i: [at for at in steps if at is not None] for i, steps in enumerate(found) if None not in steps
    }
    best = min(arrived, key=lambda i: geometric_mean(arrived[i]))
    most = _GIVE_UP * geometric_mean(arrived[best])
    spent = 0.0
    for i in range(len(rates)):
        for seed, at in enumerate(found[i]):
            spent += min(most, _CHARGED * at if at is not None else curves[seed][i].steps[-1])
    return Outcome(
        rate=rates[best],
        steps=arrived[best],
        expected=expected_arrival([curves[seed][best] for seed in range(len(curves))], goal),
        examples=round(spent * batch_size),
    )


def expected_arrival(curves: Sequence[Curve], goal: float) -> float:
    """The first step at which the mean over seeds, made monotone, is at most `goal`; NaN: the curves end before."""
    length = min(len(curve.steps) for curve in curves)
    mean = np.mean([curve.losses[:length] for curve in curves], axis=0)
    below = np.nonzero(isotonic_regression(mean, increasing=False).x <= goal)[0]
    return curves[0].steps[int(below[0])] if len(below) else math.nan


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def swept(spec: Spec) -> SweepResult:
    """The sweep from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        run = SweepSession(spec, _CPU, Ledger(Path(folder) / "runs.jsonl", "")).run(lambda _: None)
    return sweep_result(run, spec)


def interval(found: Estimate) -> str:
    if found.value is None or found.high is None:
        return f"at least {found.low:.1f}"
    return f"{found.value:.1f} ({found.low:.1f} to {found.high:.1f})"


def compare(
    spec: Spec, twin: Sequence[Outcome], dips: Sequence[Outcome], sizes: Sequence[int], goal: float
) -> None:
    """Print sweep and twin side by side."""
    begun = time.monotonic()
    result = swept(spec)
    seconds = time.monotonic() - begun
    fit, first = (fit_seeds(sizes, [own.steps for own in found]) for found in (twin, dips))
    assert fit is not None
    assert first is not None
    print(f"\ngoal {goal}: sweep of {len(result.runs)} runs in {seconds:.0f} s")
    print(
        f"{'B':>6}{'rate':>8}{'steps':>9}{'rate':>10}{'steps':>9}{'ratio':>8}{'E[L]':>8}{'examples':>12}{'twin':>12}{'part':>7}"
    )
    total, everything = 0, 0
    for batch, own in zip(result.batches, twin, strict=True):
        spent = sum(run.examples for run in result.runs if run.batch_size == batch.batch_size)
        total, everything = total + spent, everything + own.examples
        assert batch.steps is not None
        print(
            f"{batch.batch_size:>6}{batch.learning_rate:>8.3f}{batch.steps:>9.1f}{own.rate:>10.3f}{own.mean:>9.1f}"
            f"{batch.steps / own.mean:>8.3f}{own.expected:>8.0f}"
            f"{spent:>12,}{own.examples:>12,}{spent / own.examples:>7.3f}"
        )
    print(
        f"  B_crit: sweep {interval(result.critical_batch_size)}, twin {interval(fit.critical)}, "
        f"first dip {interval(first.critical)}"
    )
    print(f"  examples: sweep {total:,}, twin {everything:,}: {total / everything:.3f} of the twin's")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--goals", type=float, nargs="+", default=[0.5, 0.2, 0.1])
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--twin-seeds", type=int, help="as the sweep's unless given")
    arguments = parser.parse_args()
    plain, sizes = load_spec(_CONFIG), arguments.sizes
    start = [value.detach() for value in build_task(plain, _CPU).parameters]
    images, labels = Digits().tensors
    rate = float(plain.config.optimizer["lr"])
    powers = range(round(_PER_DOUBLING * _LOWEST), round(_PER_DOUBLING * _HIGHEST) + 1)
    rates = [rate * 2 ** (power / _PER_DOUBLING) for power in powers]
    seeds = [
        plain.config.probe.seed + _NEXT_SEED * seed for seed in range(arguments.twin_seeds or arguments.seeds)
    ]
    begun = time.monotonic()
    curves = {
        size: [train_grid(start, (images, labels), rates, size, seed, min(arguments.goals)) for seed in seeds]
        for size in sizes
    }
    print(f"twin: {len(rates)} rates x {len(seeds)} seeds in {time.monotonic() - begun:.0f} s for all goals")
    for goal in arguments.goals:
        settings = (f"goal={goal}", f"seeds={arguments.seeds}", f"batch_sizes={sizes}")
        spec = load_spec(_CONFIG, [f"sweep.{setting}" for setting in settings])
        twin, dips = (
            [outcome(curves[size], rates, size, goal, arrive) for size in sizes]
            for arrive in (Curve.reaches, Curve.dips)
        )
        compare(spec, twin, dips, sizes, goal)


if __name__ == "__main__":
    main()
