"""A noisy quadratic whose gradient, Hessian and noise are chosen, so that its exact noise scale is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


class NoisyQuadratic(nn.Module):
    """The loss of one example z is ½θᵀHθ − θᵀz. H is diagonal, θ are the parameters and z has mean zero.

    The gradient of one example is Hθ − z, so G = Hθ, Σ = Cov(z) and B_noise = tr(HΣ)/(GᵀHG).

    Args:
        dimension: number of parameters.
        decay: H_i = i^(−decay).
        noise_decay: Σ_i = σ²·i^(−noise_decay), with the axes in another order if `aligned` is false.
        noise_scale: B_noise at the start; it determines σ².
        aligned: True if the noise is large in the directions of large curvature.
    """

    def __init__(
        self,
        dimension: int = 64,
        decay: float = 1.0,
        noise_decay: float = 0.5,
        noise_scale: float = 200.0,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        axes = torch.arange(1, dimension + 1, dtype=torch.float64)
        hessian = axes**-decay
        noise = axes**-noise_decay
        if not aligned:
            noise = noise[torch.randperm(dimension, generator=torch.Generator().manual_seed(1))]
        gradient = hessian * 1.0  # θ = (1, …, 1)
        signal = float((gradient**2 * hessian).sum())
        noise *= noise_scale * signal / float((hessian * noise).sum())
        self.hessian: Tensor
        self.noise_std: Tensor
        self.register_buffer("hessian", hessian.float())
        self.register_buffer("noise_std", noise.sqrt().float())
        self.theta = nn.Parameter(torch.ones(dimension))
        self.dimension = dimension

    def forward(self, z: Tensor) -> Tensor:
        """Loss of each example, shape (batch,), for z of unit covariance, shape (batch, dimension)."""
        return 0.5 * (self.hessian * self.theta**2).sum() - (z * self.noise_std) @ self.theta

    def exact_noise_scale(self) -> float:
        """tr(HΣ)/(GᵀHG) at the present θ, in examples (M18 eq. 2.8)."""
        h, theta = self.hessian.double(), self.theta.detach().double()
        gradient = h * theta
        return float((h * self.noise_std.double() ** 2).sum() / (gradient**2 * h).sum())


def unit_noise(
    dimension: int = 64, examples: int = 65536, degrees_of_freedom: float = math.inf, seed: int = 0
) -> TensorDataset:
    """Examples whose mean is zero and whose covariance is the identity, to rounding.

    Args:
        degrees_of_freedom: degrees of freedom of Student's t; infinite for normal noise, small for heavy tails.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(examples, dimension, generator=generator, dtype=torch.float64)
    if math.isfinite(degrees_of_freedom):
        normals = torch.randn(examples, int(degrees_of_freedom), generator=generator, dtype=torch.float64)
        z /= (normals**2).mean(dim=1, keepdim=True).sqrt()
    z -= z.mean(dim=0)
    covariance = z.T @ z / examples
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), z.T, upper=False).T
    return TensorDataset(z.float())


def mean_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """The objective: mean loss over the examples."""
    losses: Tensor = model(batch)
    return losses.mean()
