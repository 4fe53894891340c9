"""The user's files of code: those that a config names and those that they import, hashed without running them."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import posixpath
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bnoise_cli.errors import ConfigError, Problem, reason
from bnoise_cli.spec.check_targets import MOST_PARSED
from bnoise_cli.spec.load import TARGET_KEYS, Spec
from bnoise_cli.spec.source import is_file
from bnoise_cli.spec.targets import target_name, targets_in
from bnoise_cli.storage import read_plain, real, sampled_hash

#: Imported files that are followed, and bytes of them that are parsed; the rest is compared by its bytes.
_MOST_FILES, _MOST_IMPORTED = 1000, 3 << 17
#: Different imported names that are looked for, and characters of one.
_MOST_NAMES, _LONGEST_NAME = 10_000, 500


def code_hashes(spec: Spec) -> dict[str, str]:
    """sha256 of every file of the user's that the config names or that such a file imports, by its tokens.

    Files are those of `file.py:name` and, in the config's folder or the current one, of `module.name`. Imports are
    looked for beside the importing file too. The name of a file is its path from the config's folder.

    Raises:
        ConfigError: a file cannot be read.
    """
    return {
        name: sampled_hash(path) if code is None else _code_hash(code)
        for name, (path, code) in sorted(_contents(spec).items())
    }


def code_files(spec: Spec) -> dict[str, Path]:
    """The same files by their names. Raises as `code_hashes`."""
    return {name: path for name, (path, _) in _contents(spec).items()}


def unreadable(spec: Spec, error: OSError) -> ConfigError:
    """A file that the config names cannot be read."""
    found = f"{error.filename}, which cannot be read ({reason(error)})"
    return ConfigError([Problem(place=str(spec.path), found=found, expected="plain files that can be read")])


@dataclass(frozen=True, slots=True)
class _Root:
    """A folder that imports start from, and its name in the config."""

    folder: Path
    name: str


@dataclass(frozen=True, slots=True)
class _File:
    """A file of code.

    Attributes:
        root: the folder that its own imports are looked for in first.
        package: the package that its relative imports start from.
    """

    name: str
    path: Path
    root: _Root
    package: tuple[str, ...] = ()


def _contents(spec: Spec) -> dict[str, tuple[Path, bytes | None]]:
    """Path and content of every file by its name; None for what is too large to be parsed."""
    search = _Search([_Root(spec.folder, ""), _Root(spec.source.here, "")])
    named, around = _named(spec, search)
    following, left = [*named, *around], _MOST_IMPORTED
    found: dict[str, tuple[Path, bytes | None]] = {}
    try:
        for position, file in enumerate(following):  # grows
            if file.name in found or len(found) >= len(named) + _MOST_FILES:
                continue
            size = file.path.stat().st_size
            imported = position >= len(named)
            if imported and not size:  # the usual __init__.py
                continue
            code = None
            if size <= (min(left, MOST_PARSED) if imported else MOST_PARSED):
                code = read_plain(file.path, MOST_PARSED)
                left -= size if imported else 0
                following += [each for level, parts in _imports(code) for each in search(file, level, parts)]
            found[file.name] = file.path, code
    except OSError as error:
        raise unreadable(spec, error) from None
    return found


def _named(spec: Spec, search: _Search) -> tuple[list[_File], list[_File]]:
    """The files that targets name, and the packages around them."""
    named, around = [], []
    for key in TARGET_KEYS:
        for _, target in targets_in(spec.source.data.get(key), (key,)):
            name = str(target_name(target))
            file, colon, _ = name.rpartition(":")
            if colon:
                path = spec.folder / file
                if file.endswith(".py") and is_file(path):
                    root = _Root(real(path).parent, posixpath.dirname(file))
                    named.append(_File(file, path, root))
            elif chain := search.modules(tuple(name.split(".")[:-1]), search.roots):
                named.append(chain[-1])
                around += chain[:-1]
    return named, around


class _Search:
    """Finds the files of imported names.

    Args:
        roots: the folders that are on the import path for every file.
    """

    def __init__(self, roots: list[_Root]) -> None:
        self.roots = roots
        self._sought: set[tuple[Path, tuple[str, ...]]] = set()
        self._tops: dict[str, bool] = {}

    def __call__(self, file: _File, level: int, parts: tuple[str, ...]) -> list[_File]:
        """The files that an import of a file reads; none for an import that was followed before.

        Args:
            level: how many packages up the name begins; 0: it is absolute.
        """
        if level > len(file.package):
            return []
        if level:
            parts = (*file.package[: len(file.package) - level + 1], *parts)
        if (sought := (file.root.folder, parts)) in self._sought or len(self._sought) >= _MOST_NAMES:
            return []
        self._sought.add(sought)
        return self.modules(parts, [file.root] if level else [file.root, *self.roots])

    def modules(self, parts: tuple[str, ...], roots: Iterable[_Root]) -> list[_File]:
        """The files of a dotted name, outer packages first, in the first folder that has any."""
        if not parts or not all(map(str.isidentifier, parts)) or parts[0] == "bnoise_cli":
            return []
        return next(
            (found for root in roots if self._has(root, parts[0]) and (found := _files(root, parts))), []
        )

    def _has(self, root: _Root, top: str) -> bool:
        """Whether a folder has a module or package of this name; most names are those of installed packages."""
        path = os.path.join(root.folder, top)  # noqa: PTH118  thousands of names
        if path not in self._tops:
            self._tops[path] = os.path.isdir(path) or os.path.isfile(f"{path}.py")  # noqa: PTH112, PTH113
        return self._tops[path]


def _files(root: _Root, parts: tuple[str, ...]) -> list[_File]:
    found = []
    for end in range(1, len(parts) + 1):
        module = Path(*parts[:end])
        for path, package in (
            (module / "__init__.py", parts[:end]),
            (module.with_suffix(".py"), parts[: end - 1]),
        ):
            if is_file(root.folder / path):
                name = posixpath.normpath(posixpath.join(root.name, path.as_posix()))
                found.append(_File(name, root.folder / path, root, package))
    return found


@cache
def _imports(code: bytes) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """What code imports: how many packages up it begins (0: absolute), and the parts of the dotted name."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about the user's code, which is not run here
            tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return ()
    found = dict.fromkeys(_names(tree))
    return tuple((level, tuple(name.split("."))) for level, name in found if len(name) <= _LONGEST_NAME)


def _names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for alias in node.names:  # which may be modules themselves
                yield node.level, f"{module}.{alias.name}".strip(".") if alias.name != "*" else module


@cache
def _code_hash(source: bytes) -> str:
    """sha256 of the tokens of code: comments, blank lines and the space between tokens do not count.

    Many configs name the same file, so the hash is kept.
    """
    import tokenize  # few configs name files

    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING)
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(source.replace(b"\r\n", b"\n")).readline))
    except (tokenize.TokenError, SyntaxError, RecursionError, ValueError):
        return hashlib.sha256(source).hexdigest()
    encoding = tokens[0].string
    # The hash depends on where blocks begin and end, not on the width of the indentation.
    blocks = (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE)
    kept = [(t.type, "" if t.type in blocks else t.string) for t in tokens if t.type not in ignored]
    return hashlib.sha256(json.dumps([encoding, kept]).encode()).hexdigest()
