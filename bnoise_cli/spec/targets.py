"""Targets: code that a config names by `_target_`. This module finds, checks and calls it."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from bnoise_cli.errors import Problem
from bnoise_cli.spec.source import KeyPath, Source, is_file
from bnoise_cli.storage import absolute, read_plain

_ARGS, _PARTIAL = "_args_", "_partial_"
#: The name of the module of a user's file begins so.
USER_MODULE = "_bnoise_user_"
#: Characters of a name; every part of a dotted one is looked for on disk.
_LONGEST_NAME = 500
#: Bytes of a file of code that is parsed. In a larger one any name may be defined.
MOST_PARSED = 1 << 18
#: `_target_` and its other spellings.
_SPELLINGS = ("_target_", "_component_", "class_path")


class TargetError(Exception):
    """A target cannot be found. Carries what was found, what was expected and the nearest known name."""

    def __init__(self, found: str, expected: str, nearest: str | None = None) -> None:
        super().__init__(found)
        self.found, self.expected, self.nearest = found, expected, nearest


def is_target(value: Any) -> bool:
    """Whether a value of the config names code."""
    return isinstance(value, dict) and any(key in value for key in _SPELLINGS)


def target_name(value: dict[str, Any]) -> Any:
    """The dotted path or `file.py:name` of a target."""
    return next(value[key] for key in _SPELLINGS if key in value)


def arguments(value: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of a target, as written."""
    if "class_path" in value:
        return [], dict(value.get("init_args") or {})
    keywords = {k: v for k, v in value.items() if k not in (*_SPELLINGS, _ARGS, _PARTIAL)}
    return list(value.get(_ARGS) or []), keywords


def targets_in(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """All targets inside a value at any depth, outer ones first."""
    if is_target(value):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from targets_in(item, (*path, key))


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
        spelling = next(s for s in _SPELLINGS if s in target)
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
        if sum(s in target for s in _SPELLINGS) > 1:
            source.problem(path, f"several of {', '.join(_SPELLINGS)}", "one of them")
            continue
        if not isinstance(target.get("init_args") or {}, dict):
            source.problem((*path, "init_args"), _shown(target["init_args"]), "a mapping of arguments")
            continue
        if not isinstance(target.get(_ARGS, []), list):
            source.problem((*path, _ARGS), _shown(target[_ARGS]), "a list")
        if not isinstance(target.get(_PARTIAL, False), bool):
            source.problem((*path, _PARTIAL), _shown(target[_PARTIAL]), "true or false")
        try:
            _look(name, source.folder, installed)
        except TargetError as error:
            source.problem((*path, spelling), error.found, error.expected, error.nearest)


def check_targets(source: Source, keys: list[str]) -> list[Problem]:
    """Import every target and check its arguments against its signature. This runs the named code."""
    with _import_path(source.folder):  # as it is before user code changes the current folder
        _import_all(source, keys)
    return source.problems


def _import_all(source: Source, keys: list[str]) -> None:
    for key in keys:
        for path, target in targets_in(source.data[key], (key,)):
            spelling = next(s for s in _SPELLINGS if s in target)
            try:
                found = resolve(target_name(target), source.folder)
            except TargetError as error:
                source.problem((*path, spelling), error.found, error.expected, error.nearest)
                continue
            extra = 1 if path == ("optimizer",) else 2 if _is_function_in_use(path, found) else 0
            _check_arguments(source, path, target, found, extra)


def build(value: Any, folder: Path, first: tuple[Any, ...] = ()) -> Any:
    """Build a value of the config: call its targets, innermost first, and keep everything else as it is.

    Args:
        first: positional arguments in front of those of the config.
    """
    if isinstance(value, list):
        return [build(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if not is_target(value):
        return {key: build(item, folder) for key, item in value.items()}
    called = resolve(target_name(value), folder)
    positional, keywords = arguments(value)
    args = [*first, *build(positional, folder)]
    kwargs = {key: build(item, folder) for key, item in keywords.items()}
    if value.get(_PARTIAL):
        return functools.partial(called, *args, **kwargs)
    if not callable(called) and not args and not kwargs:
        return called
    return called(*args, **kwargs)


def build_function(value: dict[str, Any], folder: Path) -> Any:
    """Build a target under `loss`, `objective` or `collate`: call a class, bind the arguments of a function."""
    called = resolve(target_name(value), folder)
    if inspect.isclass(called) or value.get(_PARTIAL):
        return build(value, folder)
    positional, keywords = arguments(value)
    if not positional and not keywords:
        return called
    return functools.partial(
        called, *build(positional, folder), **{k: build(v, folder) for k, v in keywords.items()}
    )


def resolve(name: str, folder: Path) -> Any:
    """The object that a dotted path or `file.py:name` names.

    Raises:
        TargetError: with the underlying cause.
    """
    if ":" in name:
        file, _, attribute = name.rpartition(":")
        module, rest = _module_from_file(folder / file, name), attribute.split(".")
    else:
        module, rest = _module_of(name, folder)
    found: Any = module
    for position, part in enumerate(rest):
        try:
            found = getattr(found, part)
        except AttributeError:
            top = name.rpartition(":")[0] or module.__name__
            where = ".".join([top, *rest[:position]])
            public = [n for n in dir(found) if not n.startswith("_")]
            raise TargetError(
                f"`{name}`", f"a name in {where}, which has no `{part}`", nearest(part, public)
            ) from None
        except Exception as error:  # some modules import a name only when it is accessed
            cause = error.__cause__ or error
            raise TargetError(
                f"`{name}`, whose import failed with {_cause(cause)}", "an importable name"
            ) from error
    return found


def nearest(word: str, known: list[str]) -> str | None:
    """The known name that is most similar to a misspelt word."""
    lowered = {name.lower(): name for name in known}
    if (same := lowered.get(word.lower())) is not None:
        return f"`{same}`"
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not close:
        close = [lowered[n] for n in difflib.get_close_matches(word.lower(), list(lowered), n=1)]
    return f"`{close[0]}`" if close else None


def _look(name: str, folder: Path, installed: bool) -> None:
    """Check that a target exists, as far as that is possible without importing it."""
    if ":" in name:
        file, _, attribute = name.rpartition(":")
        path = folder / file
        if path.suffix != ".py":
            raise TargetError(f"`{name}`", "a file ending in .py before the colon")
        if not is_file(path):
            raise TargetError(f"`{name}`", f"a Python file at {path}", _near_file(path))
        try:
            names = _names_in(read_plain(path, MOST_PARSED)) if path.stat().st_size <= MOST_PARSED else None
        except OSError as error:
            why = error.strerror or error
            raise TargetError(f"`{name}`, whose file cannot be read ({why})", "a file to read") from None
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            where = (
                f"has a syntax error in line {line} ({error})"
                if line is not None
                else f"cannot be parsed ({error})"
            )
            if isinstance(error, MemoryError | RecursionError):
                where = "is nested too deeply"
            raise TargetError(f"`{name}`, whose file {where}", "a file that Python can read") from None
        first = attribute.split(".")[0]
        if names is not None and first not in names:
            raise TargetError(
                f"`{name}`", f"a name in {path}, which has no `{first}`", nearest(first, sorted(names)[:1000])
            )
        return
    if not installed:
        return
    top = name.split(".")[0]
    with _import_path(folder):
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
            raise TargetError(f"`{name}`", f"{missing} (pip install {top})", None)
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


class _import_path:  # noqa: N801
    """Context manager: put the config's folder and the current folder on the import path."""

    def __init__(self, folder: Path) -> None:
        self._added = [p for p in (str(folder), str(absolute(Path()))) if p not in sys.path]

    def __enter__(self) -> None:
        sys.path[:0] = self._added

    def __exit__(self, *_: object) -> None:
        for path in self._added:
            with suppress(ValueError):  # user code may have changed the import path
                sys.path.remove(path)


@contextmanager
def _no_arguments(path: Path) -> Iterator[None]:
    """Inside, a script that parses its arguments on import finds none instead of bnoise's."""
    kept, sys.argv = sys.argv, [str(path)]
    try:
        yield
    finally:
        sys.argv = kept


def user_module(path: Path) -> str:
    """The name under which a file of the user's is imported: without dots, so that its classes can be pickled."""
    return f"{USER_MODULE}{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()}"


def _module_from_file(path: Path, name: str) -> ModuleType:
    key = user_module(path)
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"`{name}`", f"a Python file at {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    try:
        with _import_path(path.resolve().parent), _no_arguments(path):
            spec.loader.exec_module(module)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        del sys.modules[key]
        raise TargetError(
            f"`{name}`, whose import failed with {_cause(error)}", f"{path} to import"
        ) from error
    return module


def _module_of(name: str, folder: Path) -> tuple[ModuleType, list[str]]:
    """The longest importable prefix of a dotted path, and the rest of the path."""
    parts = name.split(".")
    with _import_path(folder):
        for end in range(len(parts) - 1, 0, -1):
            prefix = ".".join(parts[:end])
            try:
                return importlib.import_module(prefix), parts[end:]
            except ModuleNotFoundError as error:
                missing = error.name or ""
                if end > 1 and (prefix == missing or prefix.startswith(f"{missing}.")):
                    continue
                raise TargetError(
                    f"`{name}`, whose import failed with {_cause(error)}", "an importable module"
                ) from error
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                raise TargetError(
                    f"`{name}`, whose import failed with {_cause(error)}", "an importable module"
                ) from error
    raise TargetError(f"`{name}`", "a dotted path such as torch.nn.Linear")


def _cause(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an error of the user's that cannot be shown
        return type(error).__name__


def _is_function_in_use(path: KeyPath, found: Any) -> bool:
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
    bound = path[0] in ("loss", "objective", "collate") and len(path) == 1 and not inspect.isclass(found)
    if wrong or target.get(_PARTIAL) or bound or not keywords.keys() <= {*known}:
        return
    try:
        signature.bind(*[None] * (extra + len(positional)), **keywords)
    except TypeError as error:
        source.problem(path, f"a call with {error}", call)


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
