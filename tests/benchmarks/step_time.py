"""How well the advice predicts a training step, and what it costs, on the byte-level GPT.

    python tests/benchmarks/step_time.py [--config CONFIG] [--device auto]

Probes the config, times steps and advises as `bnoise probe` does. Then a plain training loop, which shares no code
with the timing, takes steps at the recommended split, at the planned batch and at the largest micro-batch that
was found (50 steps, with the real learning rate), and the median of each is set beside the prediction.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from bnoise_cli.advice.advise import advise
from bnoise_cli.measurement.building.build import build_optimizer, build_task, choose_device, device_name
from bnoise_cli.measurement.probing.session import Session
from bnoise_cli.results.probe import ProbeResult, probe_result
from bnoise_cli.spec.load import Spec, load_spec

_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "stdlib_gpt.yaml"
_STEPS, _WARM = 50, 5


def plain_step_seconds(spec: Spec, device: torch.device, micro_batch: int, accumulation: int) -> float:
    """Median seconds of a training step as anybody would write it, reading of examples left out."""
    task = build_task(spec, device)
    model, optimizer = task.model.train(), build_optimizer(spec, task)
    criterion = torch.nn.CrossEntropyLoss()
    generator, times = torch.Generator().manual_seed(1), []
    for _ in range(_STEPS):
        batches = [
            task.batches.fetch(
                torch.randint(task.batches.length, (micro_batch,), generator=generator).numpy()
            )
            for _ in range(accumulation)
        ]
        wait(device)
        begun = time.perf_counter()
        optimizer.zero_grad()
        for x, y in batches:
            (criterion(model(x), y) / accumulation).backward()
        optimizer.step()
        wait(device)
        times.append(time.perf_counter() - begun)
    return median(times[_WARM:])


def wait(device: torch.device) -> None:
    """Let the device finish what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(spec: Spec, device: torch.device) -> ProbeResult:
    """A probe with its advice; prints what each part cost."""
    session = Session(spec, device)
    run = session.run(lambda _: None)
    begun = time.perf_counter()
    found = probe_result(run, spec)
    advised = advise(replace(found, throughput=session.time_steps(run, found.critical_batch_size.known)))
    cost = time.perf_counter() - begun
    print(
        f"probe {found.cost.seconds:.1f} s, advice {cost:.2f} s: {cost / found.cost.seconds:.1%} of the probe's time"
    )
    return advised


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=_CONFIG)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    spec, device = load_spec(arguments.config), choose_device(arguments.device)
    print(f"torch {torch.__version__}, {device_name(device)}")
    for _ in range(arguments.rounds):
        result = measured(spec, device)
        best, throughput = result.recommendation, result.throughput
        assert best is not None
        assert throughput is not None
        [planned] = [row for row in result.tradeoff if row.batch_size == spec.config.training.batch_size]
        largest = throughput.step_times[-1]
        for name, micro_batch, accumulation, predicted in (
            ("recommended", best.micro_batch_size, best.accumulation_steps, best.row.step_seconds),
            ("planned", planned.micro_batch_size, planned.accumulation_steps, planned.step_seconds),
            ("two of the largest", largest.micro_batch_size, 2, None),
            (f"largest ({throughput.limited_by})", largest.micro_batch_size, 1, largest.seconds),
        ):
            fresh = plain_step_seconds(spec, device, micro_batch or 1, accumulation or 1)
            if predicted is None:
                once = largest.seconds - throughput.optimizer_seconds
                predicted = throughput.optimizer_seconds + 2 * once
            print(
                f"  {name:<24}{micro_batch:>6} x {accumulation}: predicted {1e3 * predicted:8.2f} ms, "
                f"fresh {1e3 * fresh:8.2f} ms, ratio {predicted / fresh:.3f}"
            )


if __name__ == "__main__":
    main()
