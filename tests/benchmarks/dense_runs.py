"""Many runs of one batch size and learning rate from the start of a sweep to a loss: its steps, and how many diverge.

    python -m tests.benchmarks.dense_runs CONFIG GOAL BATCH_SIZE LEARNING_RATE [--runs 64]

The start is that of `bnoise sweep CONFIG`, after `sweep.warmup_steps`, and so are the examples whose loss counts. The
draws begin with those of the sweep. A run has diverged by the rule of the sweep (`maths.crossing.has_diverged`); its
loss is read at a growth of 1.15 in steps, and of 1.03 near the goal.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from bnoise_cli.measurement.sweeping.sweep_task import SweepTask
from bnoise_cli.measurement.sweeping.training_runs import Goal, train_to_goal
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.spec.load import load_spec


def dense_steps(config: Path, goal: float, batch_size: int, rate: float, runs: int = 64) -> tuple[float, int]:
    """(The geometric mean of the steps of the runs that arrive, NaN if none does; how many diverge)."""
    shared = SweepTask(load_spec(config), torch.device("cpu"))
    arrived, diverged = [], 0
    with preserved(shared.task.model, shared.config.probe.seed):
        to = Goal(loss=goal, start_loss=shared.start_loss, max_steps=shared.config.sweep.max_steps)
        for seed in range(runs):
            [found] = train_to_goal(shared.lane(batch_size, rate, seed), 1, to, beaten_at=None)
            diverged += found.outcome == "diverged"
            if found.steps is not None:
                arrived.append(math.log(found.steps))
    return (math.exp(float(np.mean(arrived))) if arrived else math.nan), diverged


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("goal", type=float)
    parser.add_argument("batch_size", type=int)
    parser.add_argument("learning_rate", type=float)
    parser.add_argument("--runs", type=int, default=64)
    asked = parser.parse_args()
    steps, diverged = dense_steps(asked.config, asked.goal, asked.batch_size, asked.learning_rate, asked.runs)
    print(f"{steps:.1f} steps, {diverged} of {asked.runs} runs diverged")


if __name__ == "__main__":
    main()
