"""Optimizers of a user's own: Lion (arXiv:2302.06675), and one that averages weights as schedule-free ones do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lion(torch.optim.Optimizer):
    """Steps along the sign of a mean of gradients."""

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.sub_(mean.lerp(p.grad, 0.1).sign(), alpha=group["lr"])
                mean.lerp_(p.grad, 0.01)


class Averaging(torch.optim.Optimizer):
    """Schedule-free SGD (arXiv:2405.15682): trains at y between z and the average x, and is to be evaluated at x."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "steps": 0, "training": False})

    def eval(self) -> None:
        self._move(False, lambda beta: 1 - 1 / beta)

    def train(self) -> None:
        self._move(True, lambda beta: 1 - beta)

    @torch.no_grad()
    def _move(self, training: bool, towards_z: Callable[[float], float]) -> None:
        for group in self.param_groups:
            if group["training"] != training:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(self.state[p]["z"], towards_z(group["beta"]))
                group["training"] = training

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if not group["training"]:
                raise RuntimeError("call train() before step()")
            group["steps"] += 1
            part = 1 / group["steps"]
            for p in group["params"]:
                z: Any = self.state[p].setdefault("z", p.clone())
                p.lerp_(z, part).add_(p.grad, alpha=group["lr"] * (group["beta"] * (1 - part) - 1))
                z.sub_(p.grad, alpha=group["lr"])
