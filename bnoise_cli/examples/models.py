"""Small models for the example configs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class MLP(nn.Sequential):
    """Fully connected layers with ReLU between them.

    Args:
        widths: input, hidden and output widths, two or more.
        seed: seed of the initial weights.
    """

    def __init__(self, widths: Sequence[int], seed: int = 0) -> None:
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for inputs, outputs in pairwise(widths):
                layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*layers[:-1])


class DigitsCNN(nn.Sequential):
    """Two convolutions and a linear layer. Input: 8 × 8 images as rows of 64 numbers; output: logits of ten classes.

    Args:
        channels: output channels of the first convolution; the second has twice as many.
        seed: seed of the initial weights.
    """

    def __init__(self, channels: int = 8, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                nn.Unflatten(1, (1, 8, 8)),
                nn.Conv2d(1, channels, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(2 * channels * 16, 10),
            )


class ByteGPT(nn.Module):
    """A decoder-only transformer over bytes, with pre-norm blocks and tied embeddings.

    Args:
        layers, width, heads: its size.
        context: the longest sequence, in bytes.
        seed: seed of the initial weights.
    """

    def __init__(
        self, layers: int = 2, width: int = 64, heads: int = 4, context: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tokens = nn.Embedding(256, width)
            self.positions = nn.Parameter(torch.zeros(context, width))
            self.blocks = nn.ModuleList(_Block(width, heads, layers) for _ in range(layers))
            self.norm = nn.LayerNorm(width)
            nn.init.normal_(self.tokens.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next byte, shape (batch, 256, length), which is the shape that cross-entropy takes."""
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.norm(x) @ self.tokens.weight.T
        return logits.transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for last in (self.out, self.down):
            nn.init.normal_(last.weight, std=(width * 2 * layers) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        y: Tensor = x + self.down(functional.gelu(self.up(self.norm_2(x))))
        return y
