"""Check the targets of a config: their form without running code, then their arguments by importing them."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import warnings
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from bnoise_cli.errors import Problem, reason
from bnoise_cli.spec.imports import TargetError, import_path, nearest, resolve
from bnoise_cli.spec.source import KeyPath, Source, is_file
from bnoise_cli.spec.targets import ARGS, PARTIAL, SPELLINGS, arguments, is_target, target_name, targets_in
from bnoise_cli.storage import read_plain

#: Characters of a name; every part of a dotted one is looked for on disk.
_LONGEST_NAME = 500
#: Bytes of a file of code that is parsed. In a larger one any name may be defined.
MOST_PARSED = 1 << 18


def check_form(source: Source, key: str, *, installed: bool) -> None:
    """Note the mistakes of the target under `key` that can be found without running code.

    Args:
        installed: True if the packages that the target names must be installed.
    """
    value = source.data[key]
    if not is_target(value):
        source.problem(
            (key,), _shown(value), f"a mapping with `_target_: package.module.Name` under `{key}:`"
        )
        return
    for path, target in targets_in(value, (key,)):
        name = target_name(target)
        spelling = next(s for s in SPELLINGS if s in target)
        if not isinstance(name, str) or ("." not in name and ":" not in name):
            source.problem(
                (*path, spelling), _shown(name), "a dotted path such as torch.nn.Linear, or file.py:name"
            )
            continue
        if len(name) > _LONGEST_NAME:
            source.problem((*path, spelling), f"a name of {len(name)} characters", f"at most {_LONGEST_NAME}")
            continue
        if spelling == "class_path" and set(target) - {"class_path", "init_args"}:
            extra = sorted(set(target) - {"class_path", "init_args"})[0]
            source.problem((*path, extra), f"`{extra}` beside `class_path`", "arguments under `init_args:`")
        if sum(s in target for s in SPELLINGS) > 1:
            source.problem(path, f"several of {', '.join(SPELLINGS)}", "one of them")
            continue
        if not isinstance(target.get("init_args") or {}, dict):
            source.problem((*path, "init_args"), _shown(target["init_args"]), "a mapping of arguments")
            continue
        if not isinstance(target.get(ARGS, []), list):
            source.problem((*path, ARGS), _shown(target[ARGS]), "a list")
        if not isinstance(target.get(PARTIAL, False), bool):
            source.problem((*path, PARTIAL), _shown(target[PARTIAL]), "true or false")
        try:
            _look(name, source.folder, installed)
        except TargetError as error:
            source.problem((*path, spelling), error.found, error.expected, error.nearest)


def check_targets(source: Source, keys: list[str]) -> list[Problem]:
    """Import every target and check its arguments against its signature. This runs the named code."""
    with import_path(source.folder):  # as it is before user code changes the current folder
        _import_all(source, keys)
    return source.problems


def _import_all(source: Source, keys: list[str]) -> None:
    for key in keys:
        for path, target in targets_in(source.data[key], (key,)):
            spelling = next(s for s in SPELLINGS if s in target)
            try:
                found = resolve(target_name(target), source.folder)
            except TargetError as error:
                source.problem((*path, spelling), error.found, error.expected, error.nearest)
                continue
            extra = 1 if path == ("optimizer",) else 2 if _is_function_in_use(path, found) else 0
            _check_arguments(source, path, target, found, extra)


def _look(name: str, folder: Path, installed: bool) -> None:
    """Check that a target exists, as far as that is possible without importing it."""
    if ":" in name:
        file, _, attribute = name.rpartition(":")
        path = folder / file
        if path.suffix != ".py":
            raise TargetError(f"`{name}`", "a file ending in .py before the colon")
        if not is_file(path):
            raise TargetError(f"`{name}`", f"a Python file of this name in {path.parent}", _near_file(path))
        try:
            names = _names_in(read_plain(path, MOST_PARSED)) if path.stat().st_size <= MOST_PARSED else None
        except OSError as error:
            found = f"`{name}`, whose file cannot be read ({reason(error)})"
            raise TargetError(found, "a file to read") from None
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            where = (
                f"has a syntax error in line {line} ({getattr(error, 'msg', error)})"
                if line is not None
                else f"cannot be parsed ({error})"
            )
            if isinstance(error, MemoryError | RecursionError):
                where = "is nested too deeply"
            raise TargetError(f"`{name}`, whose file {where}", "a file that Python can read") from None
        first = attribute.split(".")[0]
        if names is not None and first not in names:
            raise TargetError(
                f"`{name}`",
                f"a name that the file in {path.parent} defines; it has no `{first}`",
                nearest(first, sorted(names)[:1000]),
            )
        return
    if not installed:
        return
    top = name.split(".")[0]
    with import_path(folder):
        try:
            known = top in sys.modules or importlib.util.find_spec(top) is not None
        except (ImportError, ValueError):
            known = False
    if not known:
        here, usual = (
            [p.stem for p in folder.glob("*.py")],
            ["torch", "torchvision", "transformers", "bnoise_cli"],
        )
        missing = f"an importable module, but there is no `{top}` here or among the installed packages"
        if top in usual:
            raise TargetError(f"`{name}`", f"{missing} ({sys.executable} -m pip install {top})", None)
        raise TargetError(f"`{name}`", missing, nearest(top, [*here, *usual]))


def _near_file(path: Path) -> str | None:
    """The file beside a missing one whose name is nearest."""
    try:
        return nearest(path.name, sorted(p.name for p in islice(path.parent.glob("*.py"), 1000)))
    except OSError:
        return None


@cache
def _names_in(code: bytes) -> set[str] | None:
    """Names that a file defines; None if it may define others (`from x import *`, `globals()`).

    Raises:
        SyntaxError, ValueError, MemoryError, RecursionError: Python cannot parse it.
    """
    with warnings.catch_warnings(action="ignore"):  # about the user's code, which is not run here
        tree = ast.parse(code)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any(alias.name == "*" for alias in node.names):
                return None
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name):
            if node.id in ("globals", "exec", "setattr"):
                return None
            if isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


def _is_function_in_use(path: KeyPath, found: Any) -> bool:
    """Whether a target is a function that is used as it is, with its arguments bound."""
    return path in {("loss",), ("objective",), ("collate",)} and not inspect.isclass(found)


def _check_arguments(source: Source, path: KeyPath, target: dict[str, Any], found: Any, extra: int) -> None:
    """Check the arguments against the signature. bnoise itself adds `extra` positional arguments."""
    positional, keywords = arguments(target)
    if not callable(found):
        if positional or keywords:
            source.problem(path, f"arguments for `{target_name(target)}`, which cannot be called", "none")
        return
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return
    known = list(signature.parameters)
    takes_any = _takes_any_keyword(signature) or _takes_more_than_it_says(found)
    call = f"{target_name(target)}{_short(signature)}"
    inner = (*path, "init_args") if "class_path" in target else path
    wrong = [key for key in keywords if key not in known and not takes_any]
    for key in wrong:
        source.problem((*inner, key), f"argument `{key}`", f"one of {call}", nearest(key, known))
    partial = target.get(PARTIAL) or _is_function_in_use(path, found)
    if wrong or partial or not keywords.keys() <= {*known}:
        return
    try:
        signature.bind(*[None] * (extra + len(positional)), **keywords)
    except TypeError as error:
        source.problem(path, f"a call with mistakes ({error})", call)


def _takes_any_keyword(signature: inspect.Signature) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


def _takes_more_than_it_says(found: Any) -> bool:
    """True if a wrapper of the constructor takes any keyword, as in the configuration classes of transformers."""
    start: Any = getattr(found, "__init__", None)
    if not inspect.isclass(found) or not hasattr(start, "__wrapped__"):
        return False
    return _takes_any_keyword(inspect.signature(start, follow_wrapped=False))


def _short(signature: inspect.Signature) -> str:
    """A signature without its annotations, because these can fill a screen."""
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def _shown(value: Any) -> str:
    return f"{value!r}" if not isinstance(value, dict) else "a mapping without `_target_`"
