"""Where a result comes from, what it cost, and why to doubt it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bnoise_cli.records.estimates import NotNegative, Positive, Size

SCHEMA_VERSION = 1
#: A doubt about the advice is made anew whenever the advice is.
Subject = Literal["measurement", "advice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One reason to trust a result less."""

    code: str
    finding: str
    remedy: str
    about: Subject = "measurement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the measurement spent; the training before it is counted apart."""

    seconds: NotNegative
    gradient_examples: int
    #: Forward passes; every step size of a line counts.
    evaluation_examples: int
    warmup_seconds: NotNegative = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where, when and with what a result was made."""

    bnoise: str
    python: str
    torch: str
    device: str
    dtype: str
    seed: int
    #: UTC, ISO 8601.
    time: str
    dataset_length: int
    #: None if the dataset offers no hash.
    dataset_hash: str | None = None
    #: sha256 of each of the user's files of code that the config names or that these import.
    code: dict[str, str] = field(default_factory=dict)
    #: sha256 of size and samples of each file and folder that an argument of the config names.
    data: dict[str, str] = field(default_factory=dict)
    #: sha256 of size and samples of the checkpoint.
    weights: str | None = None
    micro_batch_size: int | None = None
    replicates: int = 0
    #: The number of examples that a device takes at once, if the loss is not a mean over them.
    group: Size = 1
    #: As the config says, or as found; None: not known.
    tokens_per_example: Positive | None = None
