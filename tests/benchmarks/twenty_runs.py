"""Whether the README's first command gives the same advice every time, also beside a load.

    python tests/benchmarks/twenty_runs.py [--runs 20] [--budget 120s] [--load 2]

Probes configs/digits.yaml in processes of their own, in turns alone and beside busy processes, on torch's own number of
threads. Recommended sizes are compared on the scale of usual sizes (2ⁿ and 3·2ⁿ), on which neighbours are one step
apart, and B_crit by whether the intervals of all pairs of runs overlap.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from bnoise_cli.maths.tradeoff import usual_batch_sizes

_ROOT = Path(__file__).resolve().parents[2]
_BUSY = "while True: sum(range(100_000))"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processes at work beside what follows."""
    started = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def probe(folder: str, budget: str) -> dict[str, Any]:
    """The result of one run of the command."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "bnoise_cli", "probe", str(_ROOT / "configs" / "digits.yaml")]
    ran = subprocess.run(
        [*command, "--budget", budget, "--json", "--quiet"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not ran.stdout:
        raise SystemExit(f"the probe ended with {ran.returncode}: {ran.stderr}")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def told(found: dict[str, Any], seconds: float, load: int) -> str:
    """One line for one run."""
    critical, advised, timed = (
        found["critical_batch_size"],
        found["recommendation"],
        found["throughput"] or {},
    )
    size = "withheld" if advised is None else f"{advised['batch_size']:>4} ({', '.join(advised['roles'])})"
    threads = (timed.get("threads") or {}).get("number", "torch's own")
    limits = f"{critical['low']:.1f} to {critical['high']:.1f}" if critical["high"] else "open"
    return (
        f"load {load}: {size:<36} B_crit {critical['value'] or float('nan'):6.1f} ({limits}), {seconds:5.1f} s, "
        f"timing {timed.get('seconds', 0):4.1f} s, threads: {threads}"
    )


def compare(results: list[dict[str, Any]]) -> None:
    """How far the recommendations and the intervals of B_crit are from one another."""
    usual = usual_batch_sizes(1 << 20)
    by_time = [
        usual.index(found["recommendation"]["batch_size"])
        for found in results
        if found["recommendation"] is not None and found["recommendation"]["roles"] != ["balanced"]
    ]
    spread = f"within {max(by_time) - min(by_time)} steps of the usual sizes" if by_time else "none by time"
    print(f"{len(by_time)} of {len(results)} runs recommend a size by time: {spread}")
    known = [found["critical_batch_size"] for found in results if found["critical_batch_size"]["high"]]
    pairs = list(combinations(known, 2))
    apart = sum(one["low"] > other["high"] or other["low"] > one["high"] for one, other in pairs)
    print(f"B_crit: the intervals of {len(pairs) - apart} of {len(pairs)} pairs of runs overlap")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--budget", default="120s")
    parser.add_argument("--load", type=int, default=2)
    arguments = parser.parse_args()
    results = []
    for run in range(arguments.runs):
        load = arguments.load * (run % 2)
        with busy(load), tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            results.append(probe(folder, arguments.budget))
        print(told(results[-1], time.perf_counter() - begun, load), flush=True)
    compare(results)


if __name__ == "__main__":
    main()
