"""The exact answer that the probes of the digits are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bnoise_cli.examples.datasets import Digits
from tests.benchmarks.tasks import exact_of_mlp, train_digits_mlp
from tests.cases import cross_entropy


def test_the_exact_answer_is_that_of_autograd() -> None:
    """The closed form of the digits' answer against a Hessian-vector product for every example."""
    data = Digits()
    data.tensors = tuple(tensor[:40] for tensor in data.tensors)
    model = train_digits_mlp(data, 20)
    exact = exact_of_mlp(model, data)
    twin = train_digits_mlp(data, 20).double()
    inputs, classes = data.tensors[0].double(), data.tensors[1]
    parameters = list(twin.parameters())

    def flat(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([g.flatten() for g in gradients])

    G = flat(torch.autograd.grad(cross_entropy(twin, [inputs, classes]), parameters, create_graph=True))

    def curvature(v: torch.Tensor) -> float:
        return float(v @ flat(torch.autograd.grad(G @ v, parameters, retain_graph=True)))

    each = [
        flat(torch.autograd.grad(cross_entropy(twin, [inputs[i : i + 1], classes[i : i + 1]]), parameters))
        for i in range(40)
    ]
    b = curvature(G.detach())
    c = float(np.mean([curvature(g - G.detach()) for g in each]))
    assert exact.noise_scale == pytest.approx(c / b, rel=1e-6)
    noise = float(np.mean([float(((g - G.detach()) ** 2).sum()) for g in each]))
    assert exact.simple_noise_scale == pytest.approx(noise / float((G.detach() ** 2).sum()), rel=1e-6)
