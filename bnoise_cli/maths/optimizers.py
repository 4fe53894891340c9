"""The table of optimizers that bnoise knows, by their names in torch.optim."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRule:
    """The state that an optimizer keeps for each parameter, and the power of its learning rate in the batch size."""

    name: str
    # Keys of what it always keeps of each parameter once it has taken a step.
    kept: tuple[str, ...]
    # The key of the squared gradients that it divides by; None if it does not divide.
    second_moment: str | None
    # Power p in ε ∝ (1 + B_noise/B)⁻ᵖ, and in ε ∝ Bᵖ for small B. 1: M18 eq. 2.6; 1/2 for optimizers that divide by
    # the size of the noisy gradient: Malladi et al. (arXiv:2205.10287).
    rate_power: float
    # The setting that holds its momentum, a number or the first of several; None if it has no momentum.
    momentum: str | None


_ADAM = ("step", "exp_avg", "exp_avg_sq")
_ROWS = (
    OptimizerRule(name="SGD", kept=(), second_moment=None, rate_power=1.0, momentum="momentum"),
    OptimizerRule(name="Adam", kept=_ADAM, second_moment="exp_avg_sq", rate_power=0.5, momentum="betas"),
    OptimizerRule(name="AdamW", kept=_ADAM, second_moment="exp_avg_sq", rate_power=0.5, momentum="betas"),
    OptimizerRule(
        name="RMSprop",
        kept=("step", "square_avg"),
        second_moment="square_avg",
        rate_power=0.5,
        momentum="momentum",
    ),
    OptimizerRule(name="Adagrad", kept=("step", "sum"), second_moment="sum", rate_power=0.5, momentum=None),
)
OPTIMIZERS = {row.name: row for row in _ROWS}
