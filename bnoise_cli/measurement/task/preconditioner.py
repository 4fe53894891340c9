"""P: what an optimizer multiplies a gradient with, frozen from its own state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnoise_cli.errors import CallError
from bnoise_cli.measurement.task.sharding import local_part

#: Optimizers whose update is ε·P·g for a diagonal P that moves slowly.
KNOWN = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
)


def require_known(optimizer: torch.optim.Optimizer) -> None:
    """
    Raises:
        CallError: it is none whose preconditioner is known here.
    """
    if type(optimizer) not in KNOWN or optimizer.param_groups[0].get("centered"):
        names = ", ".join(known.__name__ for known in KNOWN)
        raise CallError(
            f"the probe needs an optimizer whose preconditioner is known: {names}, not centered; "
            f"found {type(optimizer).__name__}. Probe with SGD at a learning rate that trains: the noise scale of "
            "another optimizer differs from it."
        )


def preconditioner(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[Tensor] | None:
    """P at the optimizer's present state; None for P = 1.

    Adam and AdamW (arXiv:1412.6980, 1711.05101): 1/(√v̂ + ε), v̂ = v/(1 − β₂ᵗ); RMSprop: 1/(√v + ε); Adagrad:
    1/(√Σg² + ε). Zero where nothing has had a gradient yet, as rare tokens: there 1/ε would be no step that training
    takes. Never built from the gradients that are probed. Where groups have learning rates of their own, P has each
    over the highest. Of sharded parameters it is this rank's part.

    Raises:
        CallError: it has no state yet, or none is known.
    """
    require_known(optimizer)
    if is_identity(optimizer, parameters):
        return None
    relative = _relative_rates(optimizer, parameters)
    if isinstance(optimizer, torch.optim.SGD):
        return [torch.full_like(local_part(p), rate) for p, rate in zip(parameters, relative, strict=True)]
    groups = _groups(optimizer)
    own = [_of_one(optimizer, p, groups[id(p)]) for p in parameters]
    torch._foreach_mul_(own, relative)
    return own


def is_identity(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> bool:
    """Whether P = 1, which takes no memory: SGD with one learning rate."""
    return isinstance(optimizer, torch.optim.SGD) and set(_relative_rates(optimizer, parameters)) == {1.0}


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
        if isinstance(optimizer, torch.optim.Adagrad):
            second = state["sum"]
        elif isinstance(optimizer, torch.optim.RMSprop):
            second = state["square_avg"]
        else:
            second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
            second = second / (1 - float(group["betas"][1]) ** step)
        second = local_part(second)
        scale: Tensor = torch.where(second > 0, 1 / (second.sqrt() + group["eps"]), 0.0)
    return scale
