"""How much faster runs of a sweep go side by side than one after another, on the digits.

    python tests/benchmarks/stacking.py [--config CONFIG] [--sizes 8 32 128] [--runs 3 9 15] [--device cpu]

Trains the same steps both ways, alternating, and prints the ratio of the medians and the largest relative difference
of the weights afterwards. The sweep itself tries as many runs as there are seeds, and stacks where that
saves a fifth of the time.

Digits (MLP), one thread of a busy CPU core, torch 2.13.0, 2026-11-23: at batch sizes of 8, 32, 128 0.8, 0.9, 0.9 times
as fast with 3 runs, 1.8, 1.4, 1.3 with 9 and 2.0, 1.8, 1.6 with 15, the weights equal to the bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch

from bnoise_cli.measurement.building.build import choose_device
from bnoise_cli.measurement.sweeping.sweep_task import SweepTask
from bnoise_cli.measurement.training.lanes import Lanes
from bnoise_cli.measurement.training.stacking import stacking_pays
from bnoise_cli.spec.load import load_spec

_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "digits.yaml"
_STEPS, _ROUNDS = 20, 7


def seconds(work: Callable[[], None], device: torch.device) -> float:
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def compare(shared: SweepTask, batch_size: int, runs: int) -> tuple[float, float]:
    """(Seconds one by one over seconds side by side, the largest relative difference of weights)."""
    rates, seeds = [shared.base_rate] * runs, list(range(runs))
    alone, together, difference = [], [], 0.0
    for _ in range(_ROUNDS):
        stacked = shared.stack(batch_size, rates, seeds)
        together.append(seconds(partial(train, stacked, range(runs)), shared.device))
        whole = 0.0
        for lane in range(runs):
            single = shared.lane(batch_size, rates[lane], seeds[lane])
            whole += seconds(partial(train, single, (0,)), shared.device)
            for one, other in zip(shared.task.parameters, stacked.weights(lane), strict=True):
                scale = float(one.detach().abs().max())
                difference = max(difference, float((one.detach() - other).abs().max()) / scale)
        alone.append(whole)
    return median(alone) / median(together), difference


def train(lanes: Lanes, chosen: Sequence[int]) -> None:
    for _ in range(_STEPS):
        lanes.step(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=_CONFIG)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--runs", type=int, nargs="+", default=[3, 9, 15])
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    spec = load_spec(arguments.config)
    shared = SweepTask(spec, choose_device(arguments.device))
    print(f"{'B':>6}{'runs':>6}{'speed-up':>10}{'weights differ':>16}  the sweep would stack")
    for size in arguments.sizes:
        for runs in arguments.runs:
            ratio, difference = compare(shared, size, runs)
            used = stacking_pays(shared.runner, size, runs, lambda: shared.draws(0))
            print(f"{size:>6}{runs:>6}{ratio:>10.2f}{difference:>16.1e}  {used}")


if __name__ == "__main__":
    main()
