"""The optimizer of a training script, and the names of the models whose parameters it trains."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace

from bnoise_cli.spec.script.calls import MACHINE, Target
from bnoise_cli.spec.script.reading import Reading
from bnoise_cli.spec.script.syntax import Script
from bnoise_cli.spec.script.tree import Function, calls_in, own_calls, scopes

_OPTIM = "torch.optim."


def find_optimizer(reading: Reading) -> None:
    """Take the first call that makes an optimizer, in the script or in a file beside it."""
    made = next(_optimizers(reading.script), None)
    if made is None:
        return
    call, script, scope = made
    groups = bool(call.args) and _has_groups(call.args[0], script, scope)
    if script is not reading.script:
        call, script, scope = _called_from(reading, call, script, scope)
    if call.args:
        reading.model_names |= _owners_of_parameters(call.args[0], script, scope)
    reading.found.targets["optimizer"] = _target(reading, call, script, scope)
    condition = _condition(call, scope)
    if groups:
        reading.found.notes["optimizer"] = "the script has groups of parameters; here all have one setting"
    elif condition is not None:
        reading.found.notes["optimizer"] = f"the script makes it only if {condition}"


def _optimizers(script: Script) -> Iterator[tuple[ast.Call, Script, ast.AST]]:
    """Every call that makes an optimizer, the script that has it and its scope."""
    for each in (script, *script.beside):
        for scope in scopes(each.tree):
            for call in own_calls(scope):
                if _is_optimizer(call, each):
                    yield call, each, scope


def _is_optimizer(call: ast.Call, script: Script) -> bool:
    name = script.dotted(call.func)
    last = name.rpartition(".")[2]
    if "scheduler" in name or not last[:1].isupper():
        return False
    if name.startswith(_OPTIM):
        return True
    has_rate = any(k.arg == "lr" for k in call.keywords)
    return has_rate and bool(call.args) and ".parameters()" in ast.unparse(call.args[0])


def _target(reading: Reading, call: ast.Call, script: Script, scope: ast.AST) -> Target:
    """The call without the parameters that it is given; a rate without a name gets its name."""
    taken = copy.copy(call)
    taken.args = call.args[1:]
    taken.keywords = [k for k in call.keywords if k.arg not in ("params", "parameters", *MACHINE)]
    target = reading.calls.target(taken, script, scope)
    if not target.positional:
        return target
    return replace(target, arguments={"lr": target.positional[0], **target.arguments}, positional=())


def _called_from(
    reading: Reading, call: ast.Call, script: Script, scope: ast.AST
) -> tuple[ast.Call, Script, ast.AST]:
    """The call with the function's parameters replaced by what the script gives for them."""
    if not isinstance(scope, Function):
        return call, script, scope
    names = [a.arg for a in (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs)]
    names = names[1:] if names[:1] == ["self"] else names
    own = reading.script
    for outer in scopes(own.tree):
        for made in own_calls(outer):
            if own.dotted(made.func).rpartition(".")[2] != scope.name:
                continue
            given = dict(zip(names, made.args, strict=False))
            given |= {k.arg: k.value for k in made.keywords if k.arg}
            replaced = _Replace(given).visit(copy.deepcopy(call))
            owner = made.func.value if isinstance(made.func, ast.Attribute) else None
            if isinstance(owner, ast.Name):
                reading.model_names.add(owner.id)
            name = script.dotted(call.func)
            own.imports.setdefault(name.split(".")[0], name.split(".")[0])
            replaced.func = ast.parse(name, mode="eval").body
            return replaced, own, outer
    return call, script, scope


class _Replace(ast.NodeTransformer):
    def __init__(self, given: Mapping[str, ast.expr]) -> None:
        self._given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._given.get(node.id, node)


def _owners_of_parameters(node: ast.expr, script: Script, scope: ast.AST) -> set[str]:
    """The names in `name.parameters()`, also if the parameters were put into a variable first."""
    found: set[str] = set()
    nodes: list[ast.expr] = [node]
    if isinstance(node, ast.Name):
        nodes += script.assigned(node.id, scope)
    for each in nodes:
        for call in calls_in(each):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("parameters", "named_parameters"):
                found.add(ast.unparse(call.func.value))
    return {name for name in found if name.isidentifier()}


def _condition(call: ast.Call, scope: ast.AST) -> str | None:
    """The innermost condition that a call depends on; None if there is none."""
    found = None
    for node in ast.walk(scope):
        if isinstance(node, ast.If) and any(call in ast.walk(each) for each in node.body):
            found = ast.unparse(node.test)
    return None if found is None or "__name__" in found else found


def _has_groups(node: ast.expr, script: Script, scope: ast.AST) -> bool:
    """Whether an optimizer is given groups of parameters, which may have settings of their own."""
    values = [node, *(script.assigned(node.id, scope) if isinstance(node, ast.Name) else [])]
    return any(
        isinstance(value, ast.List) and any(isinstance(i, ast.Dict) for i in value.elts) for value in values
    )
