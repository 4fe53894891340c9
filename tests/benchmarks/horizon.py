"""The horizon against training: B_crit and the recommendation of a probe, beside a sweep from the same start.

    python -m tests.benchmarks.horizon FOLDER [TASK ...] [--budget 3m] [--plans]

For each task: `bnoise probe`, then `bnoise sweep` from the same weights and optimizer state over the stretch that the
probe's curve ended with. They evaluate on different examples, so the sweep's goal is the same part of its start as the
horizon's last loss of its own. Results stay in FOLDER; what lies there is not measured again.

Regret: what a pair of batch size and learning rate takes over the best pair of the sweep, in time and in time ×
examples. Steps are the sweep's: its law at the batch size, times what the rate costs at the nearest batch size that
was trained; or those of 16 dense runs, if the sweep has none at such a rate. Step times are the probe's,
of the fastest split into micro-batches; with BatchNorm into those that were trained. The rules (one step, B_simple, the
largest) are given the best rate for their batch size, as if it were known; the plan and the probe have their own. Two
more pairs show what can be reached: the fastest one that spends no more examples than `bnoise check` allows, and the
one whose larger regret is least.

`--plans` makes the table of batch sizes and learning rates of the warm-up instead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from bnoise_cli.advice.limits import beyond_the_check
from bnoise_cli.maths.step_time import StepTimes
from bnoise_cli.records import Law
from bnoise_cli.results.result import Result
from bnoise_cli.results.stored import read_result
from tests.benchmarks.dense_runs import dense_steps

ROOT = Path(__file__).resolve().parents[2]
#: Learning rates that differ by less than half the distance of neighbours in the sweep count as the same.
_SAME_RATE = 2 ** (1 / 16)
#: Runs that price a learning rate at which the sweep has none: they know its steps to about 5%.
_DENSE_RUNS = 16


class ResNet(nn.Module):
    """Three residual blocks with BatchNorm on the 8 × 8 digits."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = _convolution(1, channels)
            self.blocks = nn.ModuleList(
                nn.Sequential(_convolution(channels, channels), nn.ReLU(), _convolution(channels, channels))
                for _ in range(3)
            )
            self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.view(-1, 1, 8, 8)).relu()
        for block in self.blocks:
            x = (x + block(x)).relu()
        found: Tensor = self.head(x.mean((2, 3)))
        return found


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))


def _task(
    base: str, warmup_steps: int, batch_size: int, optimizer: str, *, seeds: int = 3, **arguments: float
) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / f"{base}.yaml").read_text())
    config["optimizer"] = {"_target_": f"torch.optim.{optimizer}", **arguments}
    config["training"]["batch_size"] = batch_size
    config["probe"] = {"warmup_steps": warmup_steps, "seed": 0}
    config["sweep"] = {"warmup_steps": warmup_steps, "seeds": seeds}
    return config


def tasks() -> dict[str, dict[str, Any]]:
    """Name → config."""
    resnet = _task("digits", 60, 32, "SGD", lr=0.05, momentum=0.9)
    resnet["model"] = {"_target_": f"{__name__ if __name__ != '__main__' else 'horizon'}.ResNet"}
    gpt = "stdlib_gpt_adamw"
    return {
        "digits MLP, SGD": _task("digits", 100, 64, "SGD", seeds=12, lr=0.2),
        "digits MLP, momentum": _task("digits", 100, 64, "SGD", seeds=12, lr=0.02, momentum=0.9),
        "digits MLP, Adam": _task("digits", 100, 64, "Adam", seeds=12, lr=1e-3),
        "digits CNN, momentum": _task("digits_cnn", 50, 32, "SGD", lr=0.1, momentum=0.9),
        "digits ResNet, BatchNorm": resnet,
        "byte GPT, AdamW, 50 steps": _task(gpt, 50, 32, "AdamW", lr=3e-3, weight_decay=0.01),
        "byte GPT, AdamW, 200 steps": _task(gpt, 200, 32, "AdamW", lr=3e-3, weight_decay=0.01),
        "byte GPT, SGD, 50 steps": _task(gpt, 50, 32, "SGD", lr=0.1, momentum=0.9),
        "byte GPT, SGD, 300 steps": _task(gpt, 300, 32, "SGD", lr=0.1, momentum=0.9),
        "GPT-2, AdamW": _task("gpt2", 100, 32, "AdamW", lr=1e-3),
    }


def plans() -> dict[str, dict[str, Any]]:
    """Plans for one task, the digits MLP under SGD: batch size and learning rate of the warm-up."""
    pairs = [
        (16, 0.2),
        (64, 0.2),
        (256, 0.2),
        (512, 0.2),
        (1024, 0.2),
        (64, 0.05),
        (64, 0.1),
        (64, 0.4),
        (64, 0.8),
    ]
    return {f"{size} at {rate}": _task("digits", 100, size, "SGD", lr=rate) for size, rate in pairs}


def measure(folder: Path, name: str, config: Mapping[str, Any], budget: str, *, sweep: bool) -> None:
    """Probe and sweep one task; what lies in the folder stays."""
    stem = name.replace(",", "").replace(" ", "-")
    file = folder / f"{stem}.yaml"
    file.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    probed, swept = folder / f"{stem}.probe.json", folder / f"{stem}.sweep.json"
    if not probed.exists():
        _bnoise(folder, "probe", file.name, "--budget", budget, "--out", probed.name)
    result = json.loads(probed.read_text())
    print(f"\n{name}\n  {_told(result)}", flush=True)
    horizon = result["horizon"]
    if horizon is None or not sweep:
        return
    if not swept.exists():
        goal = _start_of_sweep(folder, file.name) * horizon["curve"][-1]["loss"] / horizon["start_loss"]
        _bnoise(folder, "sweep", file.name, "--out", swept.name, "--set", f"sweep.goal={goal:.5g}")
    trained = json.loads(swept.read_text())
    print(
        f"  trained {_interval(trained['critical_batch_size'])} to {trained['goal']:.3g} from "
        f"{trained['start_loss']:.3g}; examples {trained['cost']['gradient_examples']:,}; "
        f"horizon / trained {_ratio(result, trained):.2f}"
    )
    for who, regret in regrets(result, trained, read_result(probed), file):
        print(f"  {who:28} {regret}")


def _bnoise(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "bnoise_cli", *arguments]
    paths = os.pathsep.join([str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def _start_of_sweep(folder: Path, file: str) -> float:
    told = _bnoise(folder, "sweep", file, "--dry-run")
    return float(told.split("a loss of")[1].split()[0])


def _interval(estimate: Mapping[str, float | None]) -> str:
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    numbers = ["?" if number is None else f"{number:.3g}" for number in (value, low, high)]
    return f"{numbers[0]} ({numbers[1]} to {numbers[2]})"


def _told(result: Mapping[str, Any]) -> str:
    horizon = result["horizon"]
    one_step = (
        f"one step {_interval(result['noise_scale'])}, B_simple {_interval(result['simple_noise_scale'])}"
    )
    if horizon is None:
        return f"{one_step}; no horizon"
    curve = ", ".join(
        f"{p['steps']}: {p['critical_batch_size']['value'] or math.nan:.3g}" for p in horizon["curve"]
    )
    return (
        f"{one_step}; horizon {_interval(result['critical_batch_size'])} to {horizon['curve'][-1]['loss']:.3g} from "
        f"{horizon['start_loss']:.3g} ({curve}){'' if horizon['stands_still'] else ', moves'}\n  cost: one step "
        f"{result['cost']['gradient_examples'] - horizon['gradient_examples']:,}, horizon "
        f"{horizon['gradient_examples']:,} gradient examples, {horizon['seconds']:.0f} s"
    )


def _ratio(result: Mapping[str, Any], trained: Mapping[str, Any]) -> float:
    values = result["critical_batch_size"]["value"], trained["critical_batch_size"]["value"]
    return math.nan if None in values else float(values[0] / values[1])


def regrets(
    result: Mapping[str, Any], trained: Mapping[str, Any], probed: Result, config: Path
) -> Iterator[tuple[str, str]]:
    """Who recommends → time, and time × examples, over the best that the sweep found.

    Args:
        result: the probe's, as it is stored.
        probed: the same, read.
        config: of both.
    """
    found, throughput = trained["critical_batch_size"], probed.throughput
    if found["value"] is None or throughput is None:
        return
    law = Law(found["value"], found["sharpness"])
    fewest, times, group = trained["min_steps"]["value"], StepTimes(throughput), probed.provenance.group

    def price(size: float, rate: float | None) -> tuple[float, float]:
        size = max(1, round(size / group)) * group
        steps = fewest * law.steps(size) * _rate_costs(trained, size, rate)
        if math.isnan(steps) and rate is not None:
            steps, diverged = dense_steps(config, trained["goal"], size, rate, _DENSE_RUNS)
            print(f"  of {_DENSE_RUNS} dense runs of {size:.3g} at {rate:.3g} {diverged} diverged")
        seconds = steps * times.best_split(size, group=group).seconds
        return seconds, seconds * steps * size

    grid = sorted({float(round(size)) for size in np.geomspace(group, 4096, 97)})
    prices = {size: price(size, None) for size in grid}
    least_time, least_product = (min(pair[i] for pair in prices.values()) for i in (0, 1))
    allowed = [size for size in grid if not beyond_the_check(round(size), law, probed.plan.check)]
    plan = result["config"]["training"]["batch_size"], result["config"]["optimizer"]["lr"]
    told: dict[str, tuple[float, float | None]] = {"the plan": plan}
    if result["recommendation"] is not None:
        advice = result["recommendation"]
        told = {"the probe": (advice["batch_size"], advice["learning_rate"]), **told}
    told["fastest within the limit"] = min(allowed, key=lambda size: prices[size][0]), None
    told["best compromise"] = (
        min(grid, key=lambda size: max(prices[size][0] / least_time, prices[size][1] / least_product)),
        None,
    )
    told["one step, best rate"] = result["noise_scale"]["value"], None
    told["B_simple, best rate"] = result["simple_noise_scale"]["value"], None
    told["the largest, best rate"] = float(throughput.largest_micro_batch_size), None
    for who, (size, rate) in told.items():
        if size is not None:
            time, product = price(size, rate)
            yield (
                who,
                f"{size:.3g} at {f'{rate:.3g}' if rate else 'its best'}: time {time / least_time - 1:+.0%}, "
                f"time × examples {product / least_product - 1:+.0%}",
            )


def _rate_costs(trained: Mapping[str, Any], size: float, rate: float | None) -> float:
    """Steps at a rate over those at the best one, at the trained batch size nearest to `size`.

    The best rate is one that all seeds have trained at, and at which none diverged. A rate of which at most an eighth
    of the seeds did has the price of the others. NaN: the sweep has given up or not tried rates so high or so low.
    """
    if rate is None:
        return 1.0
    arrived: dict[int, dict[float, list[float]]] = {}
    seeds = trained["config"]["sweep"]["seeds"]
    diverged = Counter(
        (run["batch_size"], run["learning_rate"]) for run in trained["runs"] if run["outcome"] == "diverged"
    )
    for run in trained["runs"]:
        if run["steps"] is not None and diverged[run["batch_size"], run["learning_rate"]] <= seeds / 8:
            rates = arrived.setdefault(run["batch_size"], {})
            rates.setdefault(run["learning_rate"], []).append(math.log(run["steps"]))
    means = {
        of: {x: float(np.mean(steps)) for x, steps in sorted(rates.items())} for of, rates in arrived.items()
    }
    whole = {of: [x for x in rates if len(rates[x]) >= seeds] for of, rates in arrived.items()}
    best_of = {of: min(rates, key=means[of].__getitem__) for of, rates in whole.items() if rates}
    sizes, known = np.log(np.array(sorted(best_of.items()), dtype=float)).T
    nearest = min(best_of, key=lambda other: abs(math.log(other / size)))
    rate *= best_of[nearest] / math.exp(float(np.interp(math.log(size), sizes, known)))
    near, best = means[nearest], means[nearest][best_of[nearest]]
    low, high = min(near), max(near)
    if not low / _SAME_RATE <= rate <= high * _SAME_RATE:
        return math.nan
    return math.exp(float(np.interp(math.log(rate), np.log(list(near)), list(near.values()))) - best)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--plans", action="store_true")
    asked = parser.parse_args()
    sys.path.append(str(Path(__file__).parent))  # dense runs import the model of a config here
    asked.folder.mkdir(parents=True, exist_ok=True)
    chosen = plans() if asked.plans else tasks()
    for name in asked.tasks or chosen:
        measure(asked.folder, name, chosen[name], asked.budget, sweep=not asked.plans)


if __name__ == "__main__":
    main()
