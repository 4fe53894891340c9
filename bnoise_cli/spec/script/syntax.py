"""The syntax of a script, read without running it: what its names stand for, as far as the text says so."""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bnoise_cli.errors import CallError, reason
from bnoise_cli.spec.check_targets import MOST_PARSED
from bnoise_cli.spec.script.tree import Function, assignments, calls_in, scopes
from bnoise_cli.spec.source import is_file
from bnoise_cli.storage import read_plain, real

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
#: Names that stand for names that stand for names.
_DEEPEST = 20
#: Expressions whose values are looked for in one script; names that stand for several names double them.
_MOST_EXPRESSIONS = 20_000
#: Digits of a whole number. A float has 17 that count.
_LARGEST = 10**100
#: Methods that give the object back, and wrappers of a model; a model is looked for inside them.
SAME_OBJECT = ("to", "cuda", "cpu", "train", "eval", "float", "double", "half", "bfloat16", "requires_grad_")
WRAPPERS = ("DataParallel", "DistributedDataParallel", "DDP", "compile", "script")


class UnknownError(Exception):
    """The text does not say what an expression is."""


@dataclass
class Script:
    """A file of Python by its definitions.

    Attributes:
        path: as the config names it, relative to its folder.
        tree: its syntax tree.
    """

    path: str
    folder: Path
    tree: ast.Module
    _depth: int = field(default=0, repr=False)
    _expressions: int = field(default=0, repr=False)

    @classmethod
    def read(cls, path: Path, folder: Path, depth: int = 0) -> Script:
        """
        Raises:
            CallError: it cannot be read, or is not Python.
        """
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(read_plain(path, MOST_PARSED))
        except OSError as error:
            raise CallError(f"a Python script is needed; {path} cannot be read ({reason(error)}).") from None
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise CallError(f"a Python script is needed; {path} cannot be parsed ({error}).") from None
        name = real(path)
        base = real(folder)
        shown = name.relative_to(base).as_posix() if name.is_relative_to(base) else str(name)
        return cls(shown, folder, tree, depth)

    @cached_property
    def imports(self) -> dict[str, str]:
        """Local name → dotted name."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        """Classes of the file itself, at its top."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    @cached_property
    def functions(self) -> dict[str, Function]:
        """Functions of the file itself, at its top."""
        return {node.name: node for node in self.tree.body if isinstance(node, Function)}

    @cached_property
    def beside(self) -> list[Script]:
        """Files in the folder of the script that it imports from, and what those import."""
        if self._depth > 2:
            return []
        found: dict[Path, Script] = {}
        here = (self.folder / self.path).parent
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                parts = [part for part in (node.module or "").split(".") if part]
                above = [here, *here.parents]
                if node.level > len(above):
                    continue
                levels = above[max(node.level - 1, 0)]
                names = [[], *[[alias.name] for alias in node.names if alias.name != "*"]]
            elif isinstance(node, ast.Import):
                parts, levels, names = [], here, [alias.name.split(".") for alias in node.names]
            else:
                continue
            for more in names:
                place = levels.joinpath(*parts, *more)
                for path in (place.with_suffix(".py"), place / "__init__.py"):
                    if place != levels and is_file(path) and path not in found:
                        found[path] = Script.read(path, self.folder, self._depth + 1)
        return [script for each in found.values() for script in (each, *each.beside)]

    @cached_property
    def options(self) -> dict[str, ast.expr]:
        """Options of argparse or click by the name that the script reads, with their defaults."""
        found = {}
        for call in calls_in(self.tree):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            if name in ("add_argument", "option"):
                flags = [str(a.value) for a in call.args if isinstance(a, ast.Constant)]
                long = next((flag for flag in flags if flag.startswith("--")), flags[0] if flags else "")
                keywords = {k.arg: k.value for k in call.keywords}
                default = keywords.get("default")
                named = keywords.get("dest")
                dest = (
                    str(named.value)
                    if isinstance(named, ast.Constant)
                    else long.lstrip("-").replace("-", "_")
                )
                action = keywords.get("action")
                kind = action.value if isinstance(action, ast.Constant) else None
                if default is None and kind in ("store_true", "store_false"):
                    default = ast.Constant(kind == "store_false")
                if default is not None:
                    found[dest] = default
        return found

    def definition(self, name: str) -> tuple[Script, ast.ClassDef | Function] | None:
        """The class or function of a name, here or in a file beside."""
        own = name.rpartition(".")[2]
        for script in (self, *self.beside):
            node = script.classes.get(own) or script.functions.get(own)
            if node is not None:
                return script, node
        return None

    def dotted(self, node: ast.expr) -> str:
        """The dotted name of an expression, its first part as imported; empty if it is none."""
        if isinstance(node, ast.Name):
            return self.imports.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            outer = self.dotted(node.value)
            return f"{outer}.{node.attr}" if outer else ""
        return ""

    def assigned(self, name: str, scope: ast.AST) -> list[ast.expr]:
        """What a name was given: in a function first, then at the top of the file; the latest first."""
        found: dict[ast.expr, None] = {}
        for place in (scope, self.tree):
            found |= dict.fromkeys(reversed(assignments(place).get(name, ())))
        return list(found)

    def constant(self, node: ast.expr, scope: ast.AST, within: tuple[ast.AST, ...] = ()) -> Any:
        """The value of an expression of literals, names of such, and defaults of options.

        Args:
            within: the expressions whose values are being found, which this one cannot be.

        Raises:
            UnknownError: the text does not say it.
        """
        self._expressions += 1
        if len(within) > _DEEPEST or node in within or self._expressions > _MOST_EXPRESSIONS:
            raise UnknownError
        try:
            return self._constant(node, scope, (*within, node))
        except (ArithmeticError, ValueError):  # int() of an infinite number, say
            raise UnknownError from None

    def _constant(self, node: ast.expr, scope: ast.AST, deeper: tuple[ast.AST, ...]) -> Any:
        inner: Callable[[ast.expr], Any] = lambda each: self.constant(each, scope, deeper)  # noqa: E731
        match node:
            case ast.Constant(value=bool() | str() | None):
                return node.value
            case ast.Constant(value=int() | float() as number):
                return _usual(number)
            case ast.List() | ast.Tuple():
                return [inner(item) for item in node.elts]
            case ast.Dict() if all(isinstance(key, ast.Constant) for key in node.keys):
                pairs = zip(node.keys, node.values, strict=True)
                return {str(key.value): inner(value) for key, value in pairs if isinstance(key, ast.Constant)}
            case ast.UnaryOp(op=ast.USub()):
                value = inner(node.operand)
                if isinstance(value, int | float):
                    return -value
            case ast.BinOp():
                one, other = inner(node.left), inner(node.right)
                apply = _OPERATORS.get(type(node.op))
                if (
                    apply is not None
                    and all(isinstance(value, int | float) for value in (one, other))
                    and other
                ):
                    return _usual(apply(one, other))
            case ast.Call() if self.dotted(node.func) == "os.path.join" and not node.keywords:
                return "/".join(str(inner(part)) for part in node.args)
            case ast.Name():
                for value in self.assigned(node.id, scope):
                    try:
                        return inner(value)
                    except UnknownError:
                        continue
                if isinstance(scope, Function):
                    return self._parameter(node.id, scope, deeper)
            case ast.Subscript(slice=ast.Constant(value=key)):
                held = inner(node.value)
                if isinstance(held, dict) and key in held:
                    return held[key]
            case ast.Call(func=ast.Name(id="int" | "float" as kind), args=[part], keywords=[]):
                number = inner(part)
                if isinstance(number, int | float):
                    return _usual(int(number) if kind == "int" else float(number))
            case ast.Attribute():
                if node.attr in self.options:
                    return inner(self.options[node.attr])
                if ast.unparse(node.value) == "self.hparams":
                    return self._hyperparameter(node.attr, scope, deeper)
                for place in self._methods_beside(scope) if ast.unparse(node.value) == "self" else (scope,):
                    if values := self.assigned(ast.unparse(node), place):
                        return self.constant(values[0], place, deeper)
                return inner(self._field(node, scope))
        raise UnknownError

    def _parameter(self, name: str, function: Function, within: tuple[ast.AST, ...]) -> Any:
        """What the script gives for a parameter where it calls the function, or the default."""
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        for place, call in self._callers.get(function.name, ()) if name in names else ():
            if place is not function:
                given = dict(zip(names, call.args, strict=False)) | {
                    k.arg: k.value for k in call.keywords if k.arg
                }
                if name in given:
                    return self.constant(given[name], place, within)
        defaults = dict(zip(reversed(names), reversed(function.args.defaults), strict=False))
        pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
        defaults |= {argument.arg: value for argument, value in pairs if value is not None}
        if name not in defaults:
            raise UnknownError
        return self.constant(defaults[name], self.tree, within)

    @cached_property
    def _callers(self) -> dict[str, list[tuple[ast.AST, ast.Call]]]:
        """The calls of each name, with the scopes that they are in."""
        found: dict[str, list[tuple[ast.AST, ast.Call]]] = {}
        for place in scopes(self.tree):
            for call in calls_in(place):
                found.setdefault(self.dotted(call.func), []).append((place, call))
        return found

    def _hyperparameter(self, name: str, method: ast.AST, within: tuple[ast.AST, ...]) -> Any:
        """The default of an argument of the class of a method, which keeps its arguments as Lightning does."""
        for start in self._methods_beside(method):
            if start.name == "__init__":
                return self._parameter(name, start, within)
        raise UnknownError

    def _methods_beside(self, method: ast.AST) -> list[Function]:
        """All methods of the class of a method."""
        return self._methods.get(method, [])

    @cached_property
    def _methods(self) -> dict[ast.AST, list[Function]]:
        """By each method, all methods of its class."""
        every = [[part for part in node.body if isinstance(part, Function)] for node in self.classes.values()]
        return {method: methods for methods in every for method in methods}

    def _field(self, node: ast.Attribute, scope: ast.AST) -> ast.expr:
        """The default of a field of a settings class of the script, as in `config.lr`."""
        if isinstance(node.value, ast.Name):
            named = [node.value, *self.assigned(node.value.id, scope)]
            for each in named:
                found = self.classes.get(self.dotted(each.func if isinstance(each, ast.Call) else each))
                if found is not None and (values := assignments(found).get(node.attr)):
                    return values[0]
        raise UnknownError


def _usual(number: int | float) -> int | float:
    """A number that a config may hold.

    Raises:
        UnknownError: it is not finite, or has too many digits.
    """
    if not math.isfinite(number) if isinstance(number, float) else abs(number) > _LARGEST:
        raise UnknownError
    return number
