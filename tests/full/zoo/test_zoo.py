"""Models and loaders as people have them: the simple noise scale by their own loop, or the doubt that says why not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import bnoise_cli
from tests.full.zoo import libraries, plain, vision
from tests.full.zoo.kind import Kind, simple_noise_scale

#: Doubts about the task: its data, its loss and its model. Others depend on the budget, and on the state of training.
_ABOUT_THE_TASK = {
    "batch_norm", "batch_sampler", "frozen", "held_buffers", "loader_batch_size", "loss_parameters", "not_a_mean",
    "random_masks", "sampler", "small_batches", "stream", "unequal_lengths", "weighted_mean",
}  # fmt: skip


_SLOW = [pytest.param(make, marks=pytest.mark.statistics) for make in vision.SLOW_KINDS]


@pytest.mark.parametrize(
    "make", [*plain.KINDS, *libraries.KINDS, *vision.KINDS, *_SLOW], ids=lambda make: make.__name__
)
def test_the_number_is_that_of_the_users_loop(make: Callable[[], Kind]) -> None:
    kind = make()
    found = bnoise_cli.probe(
        kind.model, kind.data, kind.loss, objective=kind.objective, collate=kind.collate,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        batch_size=kind.batch_size, batch_sizes=kind.batch_sizes, max_examples=kind.max_examples, seed=kind.seed,
        warmup_steps=0, horizon="off", quiet=True,
    )  # fmt: skip
    truth = simple_noise_scale(kind)
    interval = found.simple_noise_scale
    assert interval.high is not None
    assert interval.low / (1 + kind.tolerance) <= truth <= interval.high * (1 + kind.tolerance)
    assert interval.high < 3 * interval.low
    assert {doubt.code for doubt in found.doubts} & _ABOUT_THE_TASK == kind.doubts
