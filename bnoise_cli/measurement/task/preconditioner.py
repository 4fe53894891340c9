"""P: the diagonal by which an optimizer multiplies a gradient, read from the optimizer's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bnoise_cli.errors import CallError
from bnoise_cli.maths.optimizers import OPTIMIZERS, OptimizerRule
from bnoise_cli.measurement.task.sharding import local_part

#: Optimizers whose update is ε·P·g for a diagonal P that moves slowly.
KNOWN: dict[type[torch.optim.Optimizer], OptimizerRule] = {
    getattr(torch.optim, name): rule for name, rule in OPTIMIZERS.items()
}


def is_known(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the preconditioner of this optimizer is known. A subclass may do anything, so its own is not."""
    return type(optimizer) in KNOWN and not optimizer.param_groups[0].get("centered")


def require_known(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer whose preconditioner is not known.

    Raises:
        CallError: the preconditioner is not known.
    """
    if not is_known(optimizer):
        raise CallError(
            "the one-step measurement needs an optimizer whose preconditioner is known: "
            f"{', '.join(OPTIMIZERS)}, not centered; found {type(optimizer).__name__}. Set probe.horizon to auto: "
            "training runs show the critical batch size of any optimizer."
        )


def rule_of(kind: type[torch.optim.Optimizer]) -> OptimizerRule | None:
    """The rule of an optimizer or of the nearest class that it is derived from; None if none of them is known."""
    return next((KNOWN[base] for base in kind.__mro__ if base in KNOWN), None)


def momentum_of(optimizer: torch.optim.Optimizer) -> float:
    """The momentum, or the decay rate of the first moment, of a known optimizer; 0 if it has none or is not known."""
    rule = KNOWN.get(type(optimizer))
    key = rule.momentum if rule is not None else None
    value = optimizer.param_groups[0][key] if key is not None else 0.0
    return float(value[0] if isinstance(value, tuple | list) else value)


def preconditioner(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[Tensor] | None:
    """P at the optimizer's present state; None if P = 1.

    Adam and AdamW (arXiv:1412.6980, 1711.05101): 1/(√v̂ + ε), v̂ = v/(1 − β₂ᵗ); RMSprop: 1/(√v + ε); Adagrad:
    1/(√Σg² + ε). P is zero for weights that have not had a gradient yet, such as those of rare tokens: training would
    not take the step 1/ε there. P is never built from the gradients that are probed. If groups have learning rates of
    their own, P contains each rate over the highest one.

    Args:
        parameters: the trainable parameters. For sharded ones P is this rank's part.

    Raises:
        CallError: the optimizer has no state yet, or its preconditioner is not known.
    """
    require_known(optimizer)
    if is_identity(optimizer, parameters):
        return None
    relative = _relative_rates(optimizer, parameters)
    if KNOWN[type(optimizer)].second_moment is None:
        return [torch.full_like(local_part(p), rate) for p, rate in zip(parameters, relative, strict=True)]
    groups = _groups(optimizer)
    own = [_of_one(optimizer, p, groups[id(p)]) for p in parameters]
    torch._foreach_mul_(own, relative)
    return own


def is_identity(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> bool:
    """Whether P = 1, which takes no memory: SGD with one learning rate."""
    plain = KNOWN[type(optimizer)].second_moment is None
    return plain and set(_relative_rates(optimizer, parameters)) == {1.0}


def _groups(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    return {id(p): group for group in optimizer.param_groups for p in group["params"]}


def _relative_rates(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[float]:
    """The learning rate of each parameter over the highest."""
    groups = _groups(optimizer)
    rates = [float(groups[id(p)]["lr"]) for p in parameters]
    highest = max(rates)
    return [rate / highest if highest > 0 else 1.0 for rate in rates]


def _of_one(optimizer: torch.optim.Optimizer, parameter: Tensor, group: dict[str, Any]) -> Tensor:
    state = optimizer.state.get(parameter, {})
    step = float(state.get("step", 0))
    if step < 1:
        raise CallError(
            f"the preconditioner of {type(optimizer).__name__} is its own state after some training, and there is none "
            "yet. Set probe.warmup_steps, or the first of probe.at_steps, to 1 or more; 100 is usual."
        )
    with torch.no_grad():
        second = local_part(_second_moment(optimizer, state, group, step))
        scale: Tensor = torch.where(second > 0, 1 / (second.sqrt() + group["eps"]), 0.0)
    return scale


def _second_moment(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], group: Mapping[str, Any], step: float
) -> Tensor:
    """v, whose root the optimizer divides by. Adam corrects it for its start; amsgrad takes the largest so far."""
    key = str(KNOWN[type(optimizer)].second_moment)
    second: Tensor = state[f"max_{key}" if group.get("amsgrad") else key]
    return second / (1 - float(group["betas"][1]) ** step) if "betas" in group else second
