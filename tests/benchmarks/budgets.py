"""Seconds that probes of slow models take beyond their budgets.

    python -m tests.benchmarks.budgets [NUMBER...]

The models sleep, so that their slowness needs no CPU. Each line gives the budget, the times of checks, of the
measurement (pilot, replicates and horizon) and of timing, the sum over the budget, and what the probe can tell; the
target is a sum of at most 1.25 budgets. Numbers choose lines. No figure is asserted.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from bnoise_cli.errors import BnoiseError
from bnoise_cli.measurement.probing.session import Session
from bnoise_cli.results.probe import probe_result
from bnoise_cli.spec.load import load_spec
from tests.cases import CPU
from tests.sleeping import CONFIG

#: A probe is given up after this many budgets.
_GIVEN_UP = 6
#: Budget in seconds, and the changes of the config.
_CASES = [
    (5, "model.per_example=0.001"),
    (5, "model.per_example=0.005"),
    (5, "model.per_example=0.02"),
    (10, "model.per_example=0.06"),
    (10, "model.per_example=0.2"),
    (5, "model.per_pass=0.01"),
    (10, "model.per_pass=0.1"),
    (10, "model.per_pass=0.5"),
    (5, "model.per_example=0.01 model.dropout=0.1"),
    (5, "model.per_example=0.01 training.batch_size=4 probe.horizon=off"),
]


def main() -> None:
    def give_up(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, give_up)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "c.yaml"
        config.write_text(CONFIG, encoding="utf-8")
        _probe(config, 1, ["probe.max_examples=300", "probe.horizon=off"])  # loads what is loaded once
        print(f"{'model':58} budget  checks measure  timing    over")
        numbers = [int(number) for number in sys.argv[1:]] or range(len(_CASES))
        for budget, changes in [_CASES[number] for number in numbers]:
            seconds, said = _probe(config, budget, changes.split())
            parts = " ".join(f"{part:7.2f}" for part in (*seconds, *[0.0] * (3 - len(seconds))))
            print(f"{changes:58} {budget:6d} {parts} {sum(seconds) - budget:+7.2f}  {said}", flush=True)


def _probe(config: Path, budget: int, changes: list[str]) -> tuple[list[float], str]:
    """Seconds of checks, measurement and timing as far as they came, and how it ended."""
    spec = load_spec(config, [f"probe.budget={budget}s", *changes])
    seconds: list[float] = []
    begun = time.monotonic()

    def lap() -> None:
        seconds.append(time.monotonic() - begun - sum(seconds))

    signal.alarm(_GIVEN_UP * budget)
    try:
        session = Session(spec, CPU)
        lap()
        run = session.run(lambda _: None)
        lap()
        law = probe_result(run, spec).critical_batch_size.known
        point = run.points[-1]
        if run.interrupted:
            raise KeyboardInterrupt
        said = f"{point.replicates} replicates, B_crit {'unknown' if law is None else f'{law.critical:.0f}'}"
        session.time_steps(run, law)
    except KeyboardInterrupt:
        said = "given up"
    except BnoiseError as error:
        said = f"exit code {error.exit_code:d}: {error}"
    finally:
        signal.alarm(0)
    lap()
    return seconds, said


if __name__ == "__main__":
    main()
