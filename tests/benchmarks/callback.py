"""What a callback costs a run: training steps with and without it, in turn, in one process.

    python -m tests.benchmarks.callback [SECONDS] [PAIRS] [SHARE]

Prints, for each pair, the seconds of the same number of steps without and with probes, what the probes themselves took,
and whether the weights are equal to the bit. Run it on a machine that is otherwise idle.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.utils.data import DataLoader

from bnoise_cli import load
from bnoise_cli.callbacks import TrainingProbe
from bnoise_cli.examples.datasets import Digits
from bnoise_cli.examples.models import DigitsCNN


def run(
    steps: int, out: Path | None, share: float = 0.01
) -> tuple[float, float, int, dict[str, torch.Tensor]]:
    """Seconds of all steps, seconds of the probes, their number, and the weights at the end."""
    torch.manual_seed(0)
    model = DigitsCNN(channels=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    data, loss = Digits(), nn.CrossEntropyLoss()
    begun = time.perf_counter()
    probe = None
    if out is not None:
        at_steps = list(range(steps // 8, steps, steps // 8))
        probe = TrainingProbe(
            model, data, loss, optimizer=optimizer, batch_size=32, at_steps=at_steps, out=out, share=share
        )
    step = 0
    while step < steps:
        for x, y in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            step += 1
            if probe is not None:
                probe.after_step(step)
            if step == steps:
                break
    seconds = time.perf_counter() - begun
    kept = load(out) if out is not None and out.exists() else None
    probes = 0 if kept is None else max(len(kept.trajectory), 1)  # a single one has no trajectory
    return seconds, probe.seconds if probe is not None else 0.0, probes, model.state_dict()


def main() -> None:
    given = [float(word) for word in sys.argv[1:]]
    seconds, pairs, share = given + [240.0, 3.0, 0.01][len(given) :]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    steps = int(500 * seconds / run(500, None)[0])
    ratios = []
    for pair in range(int(pairs)):
        with TemporaryDirectory() as folder:
            arms = [None, Path(folder) / "r.json"][:: 1 if pair % 2 == 0 else -1]
            found = {arm is not None: run(steps, arm, share) for arm in arms}
        plain, probed = found[False], found[True]
        equal = all(torch.equal(plain[3][name], probed[3][name]) for name in plain[3])
        ratios.append(probed[0] / plain[0])
        print(
            f"{steps} steps: {plain[0]:.1f} s without, {probed[0]:.1f} s with {probed[2]} probes of {probed[1]:.1f} s "
            f"({probed[1] / probed[0]:.2%}), ratio {ratios[-1]:.4f}, same weights {equal}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.4f}")


if __name__ == "__main__":
    main()
