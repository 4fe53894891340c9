"""The examples that a sampler draws."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnoise_cli.measurement.task.draws import Indices
from bnoise_cli.numbers import count, counted

#: Points on the line of the sums of weights, which keep the weights to 1e-12.
_POINTS = 1 << 40


@dataclass(frozen=True, slots=True)
class Population:
    """The examples that a sampler draws, with their probabilities.

    An index stands for the example at that place; with weights, for a point on the line of their sums.
    """

    #: The class of the sampler.
    sampler: str
    #: The number of examples that can be drawn, and of the dataset.
    size: int
    of: int
    #: The number of indices.
    length: int
    #: Whether the sampler puts batches together, which are not independent draws.
    structured: bool = False
    #: Examples to draw from, with repeats.
    indices: Indices | None = None
    #: Sums of probabilities up to each example.
    sums: NDArray[np.float64] | None = None

    @classmethod
    def by_weights(cls, weights: NDArray[np.float64], *, sampler: str) -> Population:
        """Example i is drawn with probability wᵢ/Σw."""
        sums = np.cumsum(weights)
        size = int(np.count_nonzero(weights))
        return cls(sampler, size, len(weights), _POINTS, sums=sums / sums[-1])

    @classmethod
    def of_indices(cls, indices: Indices, *, of: int, sampler: str, structured: bool) -> Population:
        """All of these are drawn equally often; an example may be among them several times."""
        return cls(sampler, len(np.unique(indices)), of, len(indices), structured, indices=indices)

    def examples(self, indices: Indices) -> Indices:
        """The dataset's numbers of the examples that indices stand for."""
        if self.indices is not None:
            return self.indices[indices]
        assert self.sums is not None
        return np.searchsorted(self.sums, (indices + 0.5) / _POINTS).astype(np.int64)

    def __str__(self) -> str:
        return f"{count(self.size)} of {counted(self.of)} by its {self.sampler}"

    @property
    def digest(self) -> str:
        """Hash of what is drawn and how often."""
        kept = self.indices if self.indices is not None else self.sums
        assert kept is not None
        return hashlib.sha256(kept.tobytes()).hexdigest()
