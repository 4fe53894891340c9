"""The median error over 20 seeds of probes whose exact answer is known, and how often their intervals cover it."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from bnoise_cli.errors import RunError
from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.task.preconditioner import preconditioner
from bnoise_cli.measurement.task.task import Traits
from bnoise_cli.measurement.training.steps import Trainer
from tests.cases import quadratic_task


def test_groups_of_a_mean_have_its_noise_scale_in_examples() -> None:
    """A loss that is a mean after all, drawn in groups of eight: the exact answer, within intervals that cover."""
    errors, covered = [], 0
    for seed in range(20):
        task = quadratic_task(200.0)
        task.adopt(Traits(stochastic=False, group=8))
        found = probe(task, ProbeSettings(max_examples=60_000, budget_seconds=600, seed=seed))
        assert found.analysis is not None
        assert found.design is not None
        assert all(size % 8 == 0 for size in found.design.batch_sizes)
        assert found.gradient_examples % 8 == 0
        assert found.gradient_examples <= 60_000
        scale, exact = found.analysis.noise_scale, task.model.exact_noise_scale()  # type: ignore[operator]
        assert scale.value is not None
        errors.append(abs(scale.value / exact - 1))
        covered += scale.low <= exact <= (scale.high or math.inf)
    print(f"median error {np.median(errors):.3f}, covered {covered} of 20")
    assert np.median(errors) < 0.15
    assert covered >= 16
    with pytest.raises(RunError, match="Name multiples of 8"):
        probe(task, ProbeSettings(batch_sizes=(4, 16, 64), max_examples=4000))


def test_adamw_is_measured_against_its_exact_noise_scale() -> None:
    """tr(PHPΣ)/(GᵀPHPG) with the P of each warm-up: median error of 20 seeds within 15%, and intervals that cover."""
    errors, covered = [], 0
    for seed in range(20):
        task = quadratic_task(50.0)
        optimizer = torch.optim.AdamW(task.parameters, lr=0.005)
        Trainer(task, optimizer, batch_size=64, max_grad_norm=None, seed=seed).train_until(30, lambda _: None)
        task.preconditioner = preconditioner(optimizer, task.parameters)
        assert task.preconditioner is not None
        model: Any = task.model
        h, noise = model.hessian.double(), model.noise_std.double() ** 2
        p, g = task.preconditioner[0].double(), h * model.theta.detach().double()
        exact = float((p * h * p * noise).sum() / ((p * g) ** 2 * h).sum())
        found = probe(
            task, ProbeSettings(max_examples=30_000, budget_seconds=600, seed=seed), step=30
        ).analysis
        assert found is not None
        assert found.noise_scale.value is not None
        errors.append(abs(found.noise_scale.value / exact - 1))
        covered += found.noise_scale.low <= exact <= (found.noise_scale.high or float("inf"))
    print(f"median error {median(errors):.3f}, covered {covered} of 20")
    assert median(errors) < 0.15
    assert covered >= 16  # of 20 at 95%: fewer would happen once in 380
