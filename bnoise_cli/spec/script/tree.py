"""Walks over the syntax of a script: its calls, its functions, and what names are given."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

Function = ast.FunctionDef | ast.AsyncFunctionDef
#: Scopes whose calls and assignments are remembered: all of a script and of what it imports.
_SCOPES = 1 << 14


@lru_cache(_SCOPES)
def calls_in(scope: ast.AST) -> Sequence[ast.Call]:
    """Every call, in the order of the text."""
    return _in_order(node for node in ast.walk(scope) if isinstance(node, ast.Call))


@lru_cache(_SCOPES)
def own_calls(scope: ast.AST) -> Sequence[ast.Call]:
    """Calls of a scope without those of functions inside it."""
    nodes = [scope]
    for node in nodes:  # it grows
        nodes += [part for part in ast.iter_child_nodes(node) if not isinstance(part, Function)]
    return _in_order(node for node in nodes if isinstance(node, ast.Call))


def _in_order(calls: Iterable[ast.Call]) -> Sequence[ast.Call]:
    return tuple(sorted(calls, key=lambda call: (call.lineno, call.col_offset)))


def scopes(tree: ast.Module) -> Iterator[ast.AST]:
    """Every function, methods among them, and then the file itself."""
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))
    yield tree


@lru_cache(_SCOPES)
def assignments(scope: ast.AST) -> Mapping[str, Sequence[ast.expr]]:
    """By name what it is given inside a scope, in the order of the text."""
    found: dict[str, list[ast.expr]] = {}
    for name, value in _assignments(scope):
        found.setdefault(name, []).append(value)
    return found


def _assignments(scope: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names and what they are given inside a scope, without the functions and classes in it."""
    left = list(ast.iter_child_nodes(scope))[::-1]
    while left:
        node = left.pop()
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _pairs(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _pairs(node.target, node.value)
        elif isinstance(node, ast.With):
            for item in node.items:
                if item.optional_vars is not None:
                    yield from _pairs(item.optional_vars, item.context_expr)
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            left += list(ast.iter_child_nodes(node))[::-1]


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name | ast.Attribute):
        yield ast.unparse(target), value
    elif isinstance(target, ast.Tuple | ast.List):
        several = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        for i, part in enumerate(target.elts):
            if len(several) == len(target.elts):
                yield from _pairs(part, several[i])
            elif isinstance(part, ast.Name | ast.Attribute):
                yield ast.unparse(part), value
