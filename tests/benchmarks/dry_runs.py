"""The time that a dry run of a sweep announces over the time that the sweep takes.

    python -m tests.benchmarks.dry_runs [--only digits]

Both run in the same process, one after the other, so that other programs slow down both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from bnoise_cli.ledger import Ledger
from bnoise_cli.measurement.building.build import choose_device
from bnoise_cli.measurement.sweeping.dry_run import plan_sweep
from bnoise_cli.measurement.sweeping.sweep import SweepSession
from bnoise_cli.spec.load import load_spec

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Config and settings of each sweep.
_SWEEPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "digits, named goal": ("digits", ("sweep.goal=0.5", "sweep.batch_sizes=[8,32,128]", "sweep.seeds=2")),
    "digits, automatic goal": ("digits", ("sweep.steps=30", "sweep.batch_sizes=[16,64,256]", "sweep.seeds=1")),
    "digits, slow planned rate": (
        "digits", ("sweep.goal=0.6", "sweep.batch_sizes=[16,64,256]", "sweep.seeds=1", "optimizer.lr=0.02"),
    ),
    "digits, range found": ("digits", ("sweep.goal=0.6", "sweep.seeds=1")),
    "digits, branches": ("digits", ("sweep.branch={multiples: [1, 2, 4, 8], examples: 20000}",)),
    "quadratic": (
        "noisy_quadratic", ("sweep.steps=30", "sweep.batch_sizes=[64,256,1024]", "sweep.seeds=1"),
    ),
    "digits_cnn": ("digits_cnn", ("sweep.goal=1.0", "sweep.batch_sizes=[16,64,256]", "sweep.seeds=1")),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, (config, settings) in _SWEEPS.items():
        if arguments.only not in name:
            continue
        spec, device = load_spec(_CONFIGS / f"{config}.yaml", settings), choose_device("cpu")
        with tempfile.TemporaryDirectory() as folder:
            plan = plan_sweep(SweepSession(spec, device, Ledger(Path(folder) / "plan", "")))
            begun = time.monotonic()
            session = SweepSession(spec, device, Ledger(Path(folder) / "runs", ""))
            found = session.run(lambda _: None)
            seconds = time.monotonic() - begun
        print(
            f"{name}: announced {plan.seconds:.1f} s ({plan.runs} runs, {plan.steps} steps), taken {seconds:.1f} s "
            f"({len(found.runs) or len(found.branches)} runs): {plan.seconds / seconds:.2f} times",
            flush=True,
        )


if __name__ == "__main__":
    main()
