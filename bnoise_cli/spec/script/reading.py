"""A training script that is being read: what has been found in it so far."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from bnoise_cli.spec.script.calls import Calls, Target
from bnoise_cli.spec.script.syntax import Script


@dataclass(kw_only=True)
class Found:
    """What a script says about a config.

    Attributes:
        targets: by key; a key that is missing was not found.
        own_loss: whether the model computes its own loss, as in transformers.
        notes: by key, what to do about what was not found or is different.
        trains_on_import: whether importing the script trains.
    """

    script: Script
    targets: dict[str, Target] = field(default_factory=dict)
    own_loss: bool = False
    batch_size: int | None = None
    max_grad_norm: float | None = None
    scheduler: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    trains_on_import: bool = False

    @property
    def missing(self) -> list[str]:
        """The needed pieces that were not found."""
        needed = {key: key in self.targets for key in ("model", "dataset", "optimizer")}
        needed["loss"] = self.own_loss or bool({"loss", "objective"} & self.targets.keys())
        needed["training.batch_size"] = self.batch_size is not None
        return [key for key, there in needed.items() if not there]


class Reading:
    """What the finders of the pieces share; each adds to `found`.

    Attributes:
        model_names: names whose parameters an optimizer trains.
    """

    def __init__(self, script: Script) -> None:
        self.script, self.found, self.calls = script, Found(script=script), Calls(script)
        self.model_names: set[str] = set()

    def take(self, key: str, node: ast.expr | None, scope: ast.AST) -> bool:
        """Find the target of a key in an expression; whether it is known now."""
        targets = self.found.targets
        if node is not None and key not in targets:
            found = self.calls.object(node, scope, set())
            if found is not None:
                targets[key] = found
            elif key == "dataset" and isinstance(node, ast.Name) and self._at_the_top(node.id):
                names = (n for n in ast.walk(self.script.tree) if isinstance(n, ast.Name))
                line = next(name.lineno for name in names if name.id == node.id)
                targets[key] = Target(name=f"{self.script.path}:{node.id}", line=line)
        return key in targets

    def take_class(self, key: str, name: str) -> None:
        """Take a class of the script as the target of a key."""
        self.found.targets[key] = self.calls.of_definition(name, self.script, self.script.classes[name])

    def is_model(self, node: ast.expr) -> bool:
        """Whether a name is the model's."""
        return isinstance(node, ast.Name) and (node.id in self.model_names or node.id in ("model", "net"))

    def _at_the_top(self, name: str) -> bool:
        return any(
            isinstance(target, ast.Name) and target.id == name
            for node in self.script.tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
        )
