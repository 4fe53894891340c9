"""The loss of a training step: what a training script calls backward() of."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

from bnoise_cli.spec.script.calls import Target
from bnoise_cli.spec.script.reading import Reading
from bnoise_cli.spec.script.tree import Function, calls_in, own_calls, scopes

_FUNCTIONAL = "torch.nn.functional."
_WRAP = "write f(model, batch) around it{more}, and name that as objective"


def find_loss(reading: Reading) -> None:
    """Take the loss, unless the model computes its own."""
    if reading.found.own_loss:
        return
    for scope in scopes(reading.script.tree):
        for value in _descended(scope):
            if _loss_of(reading, value, scope, set()):
                return


def _descended(scope: ast.AST) -> Iterator[ast.expr]:
    """What a scope calls backward() of; of Lightning's `training_step`, what it returns."""
    for call in own_calls(scope):
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("backward", "manual_backward"):
            yield call.args[0] if call.args and not isinstance(call.args[0], ast.Starred) else call.func.value
    if isinstance(scope, Function) and scope.name == "training_step":
        yield from (node.value for node in ast.walk(scope) if isinstance(node, ast.Return) and node.value)


def _loss_of(reading: Reading, node: ast.expr, scope: ast.AST, seen: set[int]) -> bool:
    """Whether the loss of a step is found in an expression."""
    if id(node) in seen:
        return False
    seen.add(id(node))
    found, script = reading.found, reading.script
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Mult):
        return _loss_of(reading, node.left, scope, seen)
    if isinstance(node, ast.Subscript):
        return _loss_of(reading, node.value, scope, seen)
    unpacks = isinstance(node, ast.Call) and any(k.arg is None for k in node.keywords)
    if unpacks or (isinstance(node, ast.Attribute) and node.attr == "loss"):
        found.own_loss = True
        return True
    if isinstance(node, ast.Name):
        return any(_loss_of(reading, value, scope, seen) for value in script.assigned(node.id, scope))
    if not isinstance(node, ast.Call):
        return False
    name = script.dotted(node.func)
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("mean", "sum", "scale", "to", "float"):
        inner = node.args[0] if node.func.attr == "scale" else node.func.value
        return _loss_of(reading, inner, scope, seen)
    if (defined := script.definition(name)) is not None and isinstance(defined[1], Function):
        _take_function(reading, node, scope, defined[1])
        return True
    if (inputs := _other_inputs(reading, node, scope)) is not None:
        wrap = _WRAP.format(more=" and the loss")
        found.notes["loss"] = f"line {inputs.lineno} calls {ast.unparse(inputs)}: {wrap}"
        return True
    if name.startswith(_FUNCTIONAL):
        found.targets["loss"] = _with_keywords(reading, node, scope)
        return True
    if reading.is_model(node.func):
        found.targets["objective"] = Target(name="bnoise_cli.data.returned_loss", line=node.lineno)
        return True
    return reading.take("loss", node.func, scope)


def _with_keywords(reading: Reading, call: ast.Call, scope: ast.AST) -> Target:
    """The function of a call with its named arguments; the others are the model's output and the batch."""
    kept = copy.copy(call)
    kept.args = []
    return reading.calls.target(kept, reading.script, scope)


def _other_inputs(reading: Reading, call: ast.Call, scope: ast.AST) -> ast.Call | None:
    """The model's call whose output a criterion takes, if the model takes other than one input."""
    first = call.args[0] if call.args else None
    nodes = [first] if first is not None else []
    nodes += reading.script.assigned(first.id, scope) if isinstance(first, ast.Name) else []
    for node in nodes:
        for inner in calls_in(node):
            if reading.is_model(inner.func):
                return inner if len(inner.args) != 1 or inner.keywords else None
    return None


def _take_function(
    reading: Reading, call: ast.Call, scope: ast.AST, function: ast.FunctionDef | ast.AsyncFunctionDef
) -> None:
    """Take a function of the script's own as the objective or the loss, by the arguments that it takes."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    target = _with_keywords(reading, call, scope)
    if names[:1] == ["model"] and len(call.args) == 2:
        reading.found.targets["objective"] = target
    elif len(call.args) == 2 and len(names) - len(function.args.defaults) <= 2:
        reading.found.targets["loss"] = target
    else:
        wrap = _WRAP.format(more="")
        reading.found.notes["loss"] = f"line {call.lineno} calls {ast.unparse(call)}: {wrap}"
