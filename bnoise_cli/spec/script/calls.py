"""Calls in a script as targets of a config."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bnoise_cli.spec.script.syntax import SAME_OBJECT, WRAPPERS, Script, UnknownError
from bnoise_cli.spec.script.tree import Function, scopes

#: Classes that models and datasets derive from, by the last part of their names.
MODULES = ("Module", "LightningModule", "PreTrainedModel", "Sequential")
DATASETS = ("Dataset", "IterableDataset", "VisionDataset", "ImageFolder", "TensorDataset")
#: What a split or a part is made of is its first argument.
_PARTS_OF = ("Subset", "random_split")
#: Arguments that are about the machine and not about the training.
MACHINE = ("device", "fused", "foreach", "num_workers", "pin_memory", "download")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Code that a config can name, as the script calls it.

    Attributes:
        open: arguments that the text does not say: their name and the expression.
        line: where the script has it.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    positional: Sequence[Any] = ()
    open: tuple[tuple[str, str], ...] = ()
    line: int | None = None

    def as_value(self) -> dict[str, Any]:
        """As a value inside another target."""
        args = {"_args_": list(self.positional)} if self.positional else {}
        return {"_target_": self.name, **args, **self.arguments}


class Calls:
    """What expressions of a script stand for."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def object(self, node: ast.expr, scope: ast.AST, seen: set[int]) -> Target | None:
        """The call that makes what an expression stands for."""
        if id(node) in seen:
            return None
        seen.add(id(node))
        if isinstance(node, ast.IfExp):
            return self.object(node.body, scope, seen) or self.object(node.orelse, scope, seen)
        if isinstance(node, ast.Name | ast.Attribute) and not self.is_code(node):
            text = ast.unparse(node)
            places = [scope, *(other for other in scopes(self._script.tree) if other is not scope)]
            values = [value for place in places for value in self._script.assigned(text, place)]
            return next((found for value in values if (found := self.object(value, scope, seen))), None)
        if isinstance(node, ast.Name | ast.Attribute):
            defined = self._script.definition(self._script.dotted(node))
            if defined is not None and isinstance(defined[1], Function):
                return Target(name=f"{defined[0].path}:{defined[1].name}", line=node.lineno)
            return None
        if not isinstance(node, ast.Call):
            return None
        name = self._script.dotted(node.func)
        last = name.rpartition(".")[2] or (node.func.attr if isinstance(node.func, ast.Attribute) else "")
        if isinstance(node.func, ast.Attribute) and last in SAME_OBJECT:
            return self.object(node.func.value, scope, seen)
        if last in (*WRAPPERS, *_PARTS_OF) and node.args:
            return self.object(node.args[0], scope, seen)
        return self.target(node, self._script, scope) if self.is_code(node.func) else None

    def is_code(self, node: ast.expr) -> bool:
        """Whether a name is of code: imported, or defined here or beside."""
        name = self._script.dotted(node)
        top = node
        while isinstance(top, ast.Attribute):
            top = top.value
        imported = isinstance(top, ast.Name) and top.id in self._script.imports
        return bool(name) and (
            (imported and "." in name) or (self._script.definition(name) is not None and "." not in name)
        )

    def target(self, call: ast.Call, script: Script, scope: ast.AST) -> Target:
        """A call as a target; what the text does not say of its arguments is open."""
        name = script.dotted(call.func)
        defined = script.definition(name)
        parameters: list[str] = []
        if defined is not None:
            name, parameters = f"{defined[0].path}:{name.rpartition('.')[2]}", parameters_of(defined[1])
        arguments: dict[str, Any] = {}
        positional: list[Any] = []
        still: list[tuple[str, str]] = []
        for number, argument in enumerate(call.args):
            known = parameters[number] if number < len(parameters) else None
            try:
                value = self.value(argument, script, scope)
            except UnknownError:
                still.append((known or f"_args_[{number}]", ast.unparse(argument)))
                continue
            if known is not None:
                arguments[known] = value
            elif any(name.startswith("_args_") for name, _ in still):
                still.append((f"_args_[{number}]", ast.unparse(argument)))
            else:
                positional.append(value)
        for key, node in self.keywords(call, scope).items():
            try:
                arguments[key] = self.value(node, script, scope)
            except UnknownError:
                if key not in MACHINE:
                    still.append((key, ast.unparse(node)))
        return Target(
            name=name,
            arguments=arguments,
            positional=positional,
            open=tuple(still),
            line=getattr(call, "lineno", None),
        )

    def value(self, node: ast.expr, script: Script, scope: ast.AST) -> Any:
        """A constant, a target, or a list with both.

        Raises:
            UnknownError: it is neither.
        """
        try:
            return script.constant(node, scope)
        except UnknownError:
            pass
        if isinstance(node, ast.List | ast.Tuple):
            return [self.value(item, script, scope) for item in node.elts]
        found = self.object(node, scope, set())
        if found is None or found.open:
            raise UnknownError(ast.unparse(node))
        if isinstance(node, ast.Name | ast.Attribute) and self.is_code(node):
            return {"_target_": found.name, "_partial_": True}
        return found.as_value()

    def constant(self, node: ast.expr | None, scope: ast.AST) -> Any:
        try:
            return None if node is None else self._script.constant(node, scope)
        except UnknownError:
            return None

    def keywords(self, call: ast.Call, scope: ast.AST) -> dict[str, ast.expr]:
        """Keyword arguments, with those of `**settings` if the script writes them out."""
        found: dict[str, ast.expr] = {}
        for keyword in call.keywords:
            if keyword.arg is not None:
                found[keyword.arg] = keyword.value
                continue
            named = (
                self._script.assigned(keyword.value.id, scope)
                if isinstance(keyword.value, ast.Name)
                else [keyword.value]
            )
            for value in named:
                if isinstance(value, ast.Dict):
                    pairs = zip(value.keys, value.values, strict=True)
                    found |= {str(k.value): v for k, v in pairs if isinstance(k, ast.Constant)}
                elif isinstance(value, ast.Call) and self._script.dotted(value.func) == "dict":
                    found |= {k.arg: k.value for k in value.keywords if k.arg}
        return found

    def is_a(self, name: str, kinds: Sequence[str], script: Script) -> bool:
        """Whether a class of the script derives from one of these."""
        above = [name]  # classes of a text may derive from one another in a circle
        for each in above:  # it grows
            node = script.classes.get(each)
            bases = (
                [script.dotted(base).rpartition(".")[2] for base in node.bases] if node is not None else []
            )
            if any(base in kinds for base in bases):
                return True
            above += [base for base in dict.fromkeys(bases) if base not in above]
        return False

    def makes_a_module(self, node: ast.expr, scope: ast.AST) -> bool:
        found = self.object(node, scope, set())
        if found is None:
            return False
        last = found.name.rpartition(":")[2].rpartition(".")[2]
        return last in MODULES or last == "from_pretrained" or self.is_a(last, MODULES, self._script)

    def of_definition(self, name: str, script: Script, node: ast.AST) -> Target:
        """A class or function by itself: all its arguments without a default are open."""
        needed = [(each, "") for each in parameters_of(node, needed=True)]
        return Target(name=f"{script.path}:{name}", open=tuple(needed), line=getattr(node, "lineno", None))


def parameters_of(node: ast.AST, *, needed: bool = False) -> list[str]:
    """The parameters of a function, or of a class's `__init__`; those without a default if `needed`."""
    if isinstance(node, ast.ClassDef):
        starts = [part for part in node.body if isinstance(part, Function) and part.name == "__init__"]
        return parameters_of(starts[0], needed=needed)[0 if needed else 1 :] if starts else []
    assert isinstance(node, Function)
    every = [*node.args.posonlyargs, *node.args.args]
    if needed:
        every = every[: len(every) - len(node.args.defaults)]
    names = [argument.arg for argument in every]
    return [name for name in names if name != "self"] if needed else names
