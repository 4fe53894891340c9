"""Import the code that a config names. This runs it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from bnoise_cli.errors import message_of
from bnoise_cli.interrupt import in_one_process
from bnoise_cli.spec.user_files import user_module
from bnoise_cli.storage import absolute, real


class TargetError(Exception):
    """A target cannot be found. Carries what was found, what was expected and the nearest known name."""

    def __init__(self, found: str, expected: str, nearest: str | None = None) -> None:
        super().__init__(found)
        self.found, self.expected, self.nearest = found, expected, nearest


@in_one_process()
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


class import_path:  # noqa: N801
    """Context manager: put the config's folder and the current folder on the import path."""

    def __init__(self, folder: Path) -> None:
        self._added = [p for p in (str(folder), str(absolute(Path()))) if p not in sys.path]

    def __enter__(self) -> None:
        sys.path[:0] = self._added

    def __exit__(self, *_: object) -> None:
        for path in self._added:
            with suppress(ValueError, AttributeError):  # user code may have changed the import path
                sys.path.remove(path)


@contextmanager
def _no_arguments(path: Path) -> Iterator[None]:
    """Inside, a script that parses its arguments on import finds none instead of bnoise's."""
    kept, sys.argv = sys.argv, [str(path)]
    try:
        yield
    finally:
        sys.argv = kept


def _module_from_file(path: Path, name: str) -> ModuleType:
    key = user_module(path)
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TargetError(f"`{name}`", f"a Python file at {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    try:
        with import_path(real(path).parent), _no_arguments(path):
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
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
    with import_path(folder):
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
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise TargetError(
                    f"`{name}`, whose import failed with {_cause(error)}", "an importable module"
                ) from error
    raise TargetError(f"`{name}`", "a dotted path such as torch.nn.Linear")


def _cause(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.split(".")[0]
        return f"ModuleNotFoundError: {error} (if it is a package: {sys.executable} -m pip install {top})"
    return f"{type(error).__name__}: {message_of(error)}"
