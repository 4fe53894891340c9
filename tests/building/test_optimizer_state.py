"""An optimizer continues in the state of a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bnoise_cli.measurement.building.optimizer_state import load_optimizer_state
from bnoise_cli.measurement.task.preconditioner import preconditioner
from tests.building.checkpoints import Net, decay_groups, holds, trained

KINDS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {"amsgrad": True}),
    (torch.optim.RMSprop, {"momentum": 0.9}),
    (torch.optim.Adagrad, {}),
    (torch.optim.SGD, {"momentum": 0.9}),
]


@pytest.mark.parametrize("groups", [lambda model: list(model.parameters()), decay_groups])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_state_goes_on_as_where_it_was_saved(kind: Any, options: dict[str, Any], groups: Any) -> None:
    """Same P, and the same next step, bit for bit."""
    model, other = Net(), Net()
    saved = trained(model, kind(groups(model), lr=0.01, **options))
    for group in saved.param_groups:
        group["weight_decay"] = 0.0
    other.load_state_dict(model.state_dict())
    fresh = kind(other.parameters(), lr=0.01, **{**options, "weight_decay": 0.0})
    state = torch.load(_saved(saved.state_dict()), weights_only=True)
    assert load_optimizer_state(fresh, list(other.parameters()), state) is None
    for one, same in zip(
        preconditioner(saved, list(model.parameters())) or [],
        preconditioner(fresh, list(other.parameters())) or [],
        strict=True,
    ):
        assert torch.equal(one, same)
    for optimizer, of_it in ((saved, model), (fresh, other)):
        trained(of_it, optimizer, steps=1)
    assert holds(other, model.state_dict())


def _saved(content: Any) -> Any:
    import io

    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


def test_a_state_in_half_precision_becomes_float32(saved: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = saved
    state = optimizer.state_dict()
    entries = {
        number: {key: value if key == "step" else value.bfloat16() for key, value in entry.items()}
        for number, entry in state["state"].items()
    }
    entries[0]["step"] = 4  # as before torch 1.12
    fresh = torch.optim.AdamW(model.parameters(), lr=1e-3)
    assert load_optimizer_state(fresh, list(model.parameters()), {**state, "state": entries}) is None
    kept = fresh.state[model.first.weight]
    assert kept["exp_avg_sq"].dtype == torch.float32
    assert torch.equal(
        kept["exp_avg_sq"], optimizer.state[model.first.weight]["exp_avg_sq"].bfloat16().float()
    )
    assert float(kept["step"]) == 4
    trained(model, fresh, steps=1)


@pytest.mark.parametrize(("change", "why"), [
    (lambda s: "adamw", "it is not the state_dict of one torch optimizer"),
    (lambda s: {**s, "param_groups": 3}, "it is not the state_dict of one torch optimizer"),
    (lambda s: {**s, "state": {0: 3}}, "it is not the state_dict of one torch optimizer"),
    (lambda s: {**s, "param_groups": [{"params": [0, 1]}]}, "it is of 2 parameters and the model trains 6"),
    (lambda s: {**s, "state": {0: {"momentum_buffer": torch.zeros(5, 3)}}},
     "AdamW keeps exp_avg, exp_avg_sq, step of each parameter, and it has momentum_buffer"),
    (lambda s: {**s, "state": {0: {**s["state"][0], "mu_product": torch.ones(1)}}},
     "AdamW keeps exp_avg, exp_avg_sq, step of each parameter, and it has exp_avg, exp_avg_sq, mu_product, step"),
    (lambda s: {**s, "state": dict(enumerate(reversed(s["state"].values())))}, "neither in the model's order nor with"),
    (lambda s: {**s, "state": {0: {**s["state"][0], "step": torch.ones(2)}}}, "neither in the model's order nor with"),
])  # fmt: skip
def test_a_state_that_does_not_fit_changes_nothing(
    saved: tuple[Net, torch.optim.Optimizer], change: Any, why: str
) -> None:
    model, optimizer = saved
    fresh = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = load_optimizer_state(fresh, list(model.parameters()), change(optimizer.state_dict()))
    assert found is not None
    assert why in found
    assert not fresh.state


def test_amsgrad_needs_its_own_maximum(saved: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = saved
    fresh = torch.optim.AdamW(model.parameters(), lr=1e-3, amsgrad=True)
    why = load_optimizer_state(fresh, list(model.parameters()), optimizer.state_dict())
    assert why is not None
    assert why.startswith("AdamW keeps exp_avg, exp_avg_sq, max_exp_avg_sq, step")
