"""What `bnoise check` takes to start, and for many configs.

    python tests/benchmarks/check_speed.py [--configs 200] [--rounds 11]

Processes alternate, and medians are compared: importing the dependencies that the check needs (with what pydantic loads
for its first model), `bnoise --version`, a check of one config, and a check of many with a result for each.

Two shared x86-64 cores, Python 3.11, 2026-11-23: dependencies 0.32 s, --version 1.43 times that, a check of one config
1.64 times, of 200 configs 0.75 s more than of one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bnoise_cli.results.kinds import KINDS
from bnoise_cli.spec.load import load_spec

_DEPENDENCIES = (
    "import typer, typer.main, yaml, rich.console, rich.table\n"
    "from pydantic import BaseModel, TypeAdapter\n"
    "class Model(BaseModel):\n    x: int = 0\n"
)


def seconds(folder: str, command: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def prepare(folder: Path, count: int) -> None:
    """Probe one config, and make of its result one for each of many configs that differ."""
    small = "dataset: {_target_: bnoise_cli.examples.quadratic.unit_noise, dimension: 16, examples: 4096}"
    text = (
        "version: 1\nmodel:\n  _target_: bnoise_cli.examples.quadratic.NoisyQuadratic\n  dimension: 16\n"
        f"{small}\nobjective: {{_target_: bnoise_cli.examples.quadratic.mean_loss}}\n"
        "optimizer: {_target_: torch.optim.SGD, lr: 0.01}\ntraining: {batch_size: 32}\n"
        "probe: {warmup_steps: 3, max_examples: 3000}\n"
    )
    (folder / "c0.yaml").write_text(text)
    call = [sys.executable, "-m", "bnoise_cli", "probe", "c0.yaml", "--quiet"]
    subprocess.run(call, cwd=folder, stdout=subprocess.DEVNULL, check=False)
    stored = folder / ".bnoise" / "c0.probe.json"
    data = json.loads(stored.read_text())
    many = folder / "many"
    (many / ".bnoise").mkdir(parents=True)
    for i in range(count):
        path = many / f"c{i}.yaml"
        path.write_text(text.replace("lr: 0.01", f"lr: {0.01 + i * 1e-5:.5f}"))
        spec = load_spec(path)
        own = {**data, "config": spec.resolved(), "config_hash": KINDS["probe"].hash(spec)}
        (many / ".bnoise" / f"c{i}.probe.json").write_text(json.dumps(own))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), arguments.configs)
        check = ["-m", "bnoise_cli", "check", "--exit-zero"]
        commands = {
            "dependencies": (name, ["-c", _DEPENDENCIES]),
            "bnoise --version": (name, ["-m", "bnoise_cli", "--version"]),
            "check of one": (name, [*check, "c0.yaml"]),
            f"check of {arguments.configs}": (f"{name}/many", [*check, "*.yaml"]),
        }
        times: dict[str, list[float]] = {label: [] for label in commands}
        for _ in range(arguments.rounds):
            for label, (folder, command) in commands.items():
                times[label].append(seconds(folder, command))
    base = median(times["dependencies"])
    for label, values in times.items():
        print(f"{label:>20}  {median(values):6.3f} s  {median(values) / base:5.2f} times the dependencies")


if __name__ == "__main__":
    main()
