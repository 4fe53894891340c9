"""Time of `bnoise check` on hostile configs of 100 KB, over its time on an ordinary one.

    python -m tests.benchmarks.hostile_check

Each line gives the extra seconds; the target is at most two. No figure is asserted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cases import QUADRATIC_CONFIG

_BYTES = 100_000


def _attacks() -> dict[str, str]:
    """Texts of about `_BYTES` that take a careless reader long."""
    loss, size = "bnoise_cli.examples.quadratic.mean_loss", "batch_size: 32"
    return {
        "dotted target": QUADRATIC_CONFIG.replace(loss, ".".join(["a"] * (_BYTES // 2))),
        "digits and a letter": QUADRATIC_CONFIG + "  budget: " + "1" * _BYTES + "s\n",
        "digits of tokens": QUADRATIC_CONFIG.replace(size, f"batch_size: {'1' * _BYTES}x tokens"),
        "unknown keys": QUADRATIC_CONFIG + "".join(f"k{i}: 1\n" for i in range(_BYTES // 9)),
        "unknown keys below the limit": QUADRATIC_CONFIG + "".join(f"k{i}: 1\n" for i in range(7000)),
        "list": QUADRATIC_CONFIG + "x: [" + "1," * (_BYTES // 2) + "1]\n",
        "list below the limit": QUADRATIC_CONFIG + "x: [" + "1," * 15_000 + "1]\n",
        "brackets": QUADRATIC_CONFIG + "x: " + "[" * _BYTES + "\n",
        "aliases": QUADRATIC_CONFIG
        + "x0: &a0 [1]\n"
        + "".join(f"x{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 9)),
        "one key": QUADRATIC_CONFIG + "k" * 60_000 + ": 1\n",
        "wrong values": QUADRATIC_CONFIG.replace(
            "  max_examples: 3000", "  batch_sizes: [" + "x," * 9_000 + "x]"
        ),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        usual = min(_seconds(Path(folder), QUADRATIC_CONFIG) for _ in range(3))
        print(f"ordinary config: {usual:.2f} s")
        for name, text in _attacks().items():
            print(f"{name}: {_seconds(Path(folder), text) - usual:+.2f} s")


def _seconds(folder: Path, text: str) -> float:
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "bnoise_cli", "check", "c.yaml"], cwd=folder, capture_output=True, check=False
    )
    return time.monotonic() - start


if __name__ == "__main__":
    main()
