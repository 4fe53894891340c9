"""Models that cannot be trained side by side."""

from torch import nn

from bnoise_cli.examples.quadratic import NoisyQuadratic


class Branching(NoisyQuadratic):
    """Its forward pass reads a number out of a tensor, which torch.func cannot do for many runs at once."""

    def forward(self, z):
        losses = super().forward(z)
        return losses if losses.sum().item() < 1e30 else 2 * losses


class Masked(NoisyQuadratic):
    def forward(self, z):
        return super().forward(nn.functional.dropout(z, 0.1, self.training))


class Normed(nn.Module):
    def __init__(self, dimension):
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(dimension), nn.Linear(dimension, 1)

    def forward(self, z):
        return (self.out(self.norm(z)) - 1).square()
