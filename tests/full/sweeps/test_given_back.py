"""Whatever ends a sweep, the model and the random streams are given back."""

from __future__ import annotations

import copy
import dataclasses
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnoise_cli.errors import RunError
from bnoise_cli.ledger import Ledger
from bnoise_cli.measurement.sweeping.dry_run import plan_sweep
from bnoise_cli.measurement.sweeping.sweep import SweepSession
from bnoise_cli.spec.identity import ledger_hash
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.user_files import user_module
from tests.cases import CPU, TINY_SWEEP, Write, user_code
from tests.sweeps import silent, stop_at


@dataclasses.dataclass
class State:
    """All that a sweep must give back."""

    weights: dict[str, Tensor]
    gradients: list[Tensor | None]
    modes: list[bool]
    streams: tuple[Any, ...]

    @classmethod
    def of(cls, model: nn.Module) -> State:
        return cls(
            weights=copy.deepcopy(model.state_dict()),
            gradients=[p.grad for p in model.parameters()],
            modes=[module.training for module in model.modules()],
            streams=(random.getstate(), np.random.get_state(), torch.get_rng_state()),
        )

    def assert_same(self, other: State) -> None:
        assert self.weights.keys() == other.weights.keys()
        assert all(torch.equal(value, other.weights[name]) for name, value in self.weights.items())
        assert all(one is two for one, two in zip(self.gradients, other.gradients, strict=True))
        assert self.modes == other.modes
        assert self.streams[0] == other.streams[0]
        assert all(np.array_equal(a, b) for a, b in zip(self.streams[1], other.streams[1], strict=True))
        assert torch.equal(self.streams[2], other.streams[2])


@pytest.mark.parametrize("name", ["NoisyQuadratic", "Normed", "Masked"])
@pytest.mark.parametrize(
    ("phase", "error"),
    [
        (None, None), ("warm-up", ZeroDivisionError()), ("goal", ZeroDivisionError()),
        ("training", ZeroDivisionError()), ("training", RunError("the disk fell out")),
        ("training", KeyboardInterrupt()), ("probe", ZeroDivisionError()),
    ],
)  # fmt: skip
def test_model_and_random_streams_are_given_back_bit_for_bit(
    write: Write, name: str, phase: str | None, error: BaseException | None
) -> None:
    sys.modules.pop(user_module(Path("user.py")), None)
    write("user.py", user_code("refusing"))
    write("q.yaml", TINY_SWEEP)
    target = "bnoise_cli.examples.quadratic.NoisyQuadratic" if name == "NoisyQuadratic" else f"user.py:{name}"
    spec = load_spec(
        Path("q.yaml"),
        [f"model={{_target_: {target}, dimension: 32}}", "sweep.goal=auto", "sweep.steps=8", "sweep.warmup_steps=5",
         "optimizer.lr=0.05", "sweep.seeds=1", "sweep.batch_sizes=[16,64,256]"],
    )  # fmt: skip
    session = SweepSession(spec, CPU, Ledger(Path("runs.jsonl"), ledger_hash(spec)))
    model = session.task.model
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    random.seed(5), np.random.seed(6), torch.manual_seed(7)
    before = State.of(model)
    if error is None or phase is None:
        session.run(silent)
        plan_sweep(session)
    else:
        # What was finished before an interrupt or a failure that was foreseen is a result, not an exception.
        caught: list[BaseException] = []
        try:
            session.run(stop_at(phase, error, after={"training": 40, "probe": 1}.get(phase, 3)))
        except type(error) as raised:
            caught.append(raised)
        assert caught or not isinstance(error, ZeroDivisionError)
    before.assert_same(State.of(model))
