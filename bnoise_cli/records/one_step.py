"""What a probe finds of single steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bnoise_cli.records.estimates import Estimate, Limits, NotNegative, Positive, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadratic:
    """The witness: ΔL(ε, B) = ε·a − ½ε²·(b + c/B), arXiv:1812.06162 eq. 2.5 and 2.8."""

    #: b = GᵀPHPG.
    curvature: float
    #: c = tr(PHPΣ).
    noise: float
    #: c/b; None if b is not positive.
    noise_scale: float | None
    #: `noise_scale` over the fitted one.
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What the best step at one batch size gains, averaged over draws."""

    #: None: the gradient of the whole dataset.
    batch_size: Size | None
    #: In nats, or the loss's unit.
    improvement: float
    std_error: NotNegative
    #: The learning rate of that best step.
    step_size: float
    #: The improvement that the law gives at this batch size.
    fitted: float | None
    #: sqrt(B_simple/B), eq. 2.10.
    gradient_error: float | None
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well the law describes the points."""

    #: Hotelling's T² of the residuals; None with too few replicates or points.
    chi2: float | None
    dof: int
    r_squared: float | None
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryPoint:
    """One probed point of training."""

    step: int
    loss: float | None
    noise_scale: Estimate
    simple_noise_scale: Estimate
    #: The batch size that the schedule takes here; None if there is no schedule, because a noise scale is unresolved.
    batch_size: Positive | None = None
    #: Its range over the interval of this point's noise scale, with the exchange rate held.
    batch_size_limits: Limits | None = None
    #: B_crit that short training runs from this point show; None if there is no horizon here.
    critical_batch_size: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What a batch size that follows the noise scale would take: B(s) = sqrt(r·B_noise(s)), M18 appendix D."""

    #: r, the number of examples that one step is worth: B_crit of the stretch.
    exchange_rate: float
    #: (S/S_min − 1)(E/E_min − 1), which is 1 for any fixed batch size.
    gamma: Annotated[float, Field(gt=0, le=1)]
    #: Steps over the fewest; a fixed batch of B_crit takes 2.
    steps_ratio: Annotated[float, Field(gt=1, le=2)]
    #: Examples over the fewest.
    examples_ratio: Annotated[float, Field(gt=1, le=2)]
