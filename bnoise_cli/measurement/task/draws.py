"""Random draws: every use of random numbers has a stream of its own."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Stream(IntEnum):
    """The register of random streams: every use of random numbers has one, with the words that follow the seed.

    A new use gets a new number. A number that is given to another use changes what is drawn.
    """

    # Probe. The first word is the training step of the probed point.
    PROBE_LOSS = 1  # step: the examples of the reported loss
    WHOLE_DATASET = 2  # step: dropout masks for the gradient of the whole dataset
    PILOT = 3  # step
    REPLICATE = 4  # step, replans before it, number of the replicate
    PROBE_SPEED = 5  # step: time of a gradient example
    PASS_SIZE = 6  # step: memory of a pass
    LINE_PRECISION = 7  # step: lines computed in both precisions
    COMPARED_LINE = 8  # number of the line; the seed is drawn from LINE_PRECISION
    ROUNDING_FLOOR = 9  # step
    # Checks before any measurement, and estimates.
    CHECKS = 10
    CHECK_MEMORY = 11  # memory of the largest micro-batch
    DRY_RUN = 12  # time of a gradient example
    STEP_TIMES = 13  # rank: the batches of timed training steps
    # Training.
    WARM_UP = 14
    TRAINING_RUN = 15  # runs of a sweep: one stream a seed, the same for every batch size and learning rate
    RUN_EVALUATION = 16  # the evaluation loss of a run
    EVALUATION_EXAMPLES = 17  # the examples of that loss
    HORIZON_RUN = 18  # step, batch size, number of the run's stream (`trained.stream_of`)
    HORIZON_EVALUATION = 19  # step: the examples on which the horizon's runs are evaluated
    # Comparisons in tests/benchmarks.
    BENCHMARK = 20
    # Losses of the same examples before and after the warm-up.
    WARM_UP_LOSS = 21
    HORIZON_MEMORY = 22  # step: memory of a pass of the horizon's runs
    PACE = 23  # time of the smallest passes


class Draws:
    """One stream of random choices, independent of the streams of all other keys.

    Examples and dropout masks come from two generators, so that the examples drawn do not depend on the number of
    micro-batches that the memory allows.

    Args:
        seed: of the whole measurement, -2¹²⁷ to 2¹²⁷ - 1.
        stream: what the numbers are for.
        which: up to three further words from 0 to 2⁶⁴ - 1, as the register names them.

    Raises:
        ValueError: there are more words, or one is out of range.
    """

    def __init__(self, seed: int, stream: Stream, *which: int) -> None:
        examples, masks = np.random.SeedSequence(_key(seed, stream, *which)).spawn(2)
        self._examples, self._masks = np.random.default_rng(examples), np.random.default_rng(masks)

    def indices(self, count: int, length: int) -> Indices:
        """`count` independent uniform draws from `length` examples, with replacement."""
        return self._examples.integers(length, size=count)

    def seed(self) -> int:
        """A seed for torch's own stream: the dropout masks of one batch."""
        # The same number as `integers(2**63)`, in a tenth of the time.
        return int(self._masks.bit_generator.random_raw()) >> 1


def _key(seed: int, stream: Stream, *which: int) -> NDArray[np.uint32]:
    """The key as eleven 32-bit words: stream and number of further words, seed, three further words.

    The length is fixed because `SeedSequence` fills short keys up with zeros: it takes (seed, stream) for
    (seed, stream, 0).
    """
    if len(which) > 3:
        raise ValueError(f"a random stream has at most three words after its seed; found {which}")
    try:
        packed = b"".join(
            [
                int(stream).to_bytes(2, "little"),
                len(which).to_bytes(2, "little"),
                seed.to_bytes(16, "little", signed=True),
                *(word.to_bytes(8, "little") for word in (*which, 0, 0, 0)[:3]),
            ]
        )
    except OverflowError:
        raise ValueError(
            f"a seed needs -2^127 to 2^127 - 1 and the words after it 0 to 2^64 - 1; found {seed} and {which}"
        ) from None
    return np.frombuffer(packed, "<u4")
