"""Stored results, found by what they measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnoise_cli.errors import CallError, reason
from bnoise_cli.result_file import default_path
from bnoise_cli.results.kinds import COMMANDS, KINDS
from bnoise_cli.results.result import Kind, Result
from bnoise_cli.results.stored import checked_result
from bnoise_cli.spec.code_files import code_hashes
from bnoise_cli.spec.data_files import changed_data, data_hashes
from bnoise_cli.spec.identity import differences, weights_hash
from bnoise_cli.spec.load import Spec
from bnoise_cli.storage import LARGEST_RESULT, read_json

#: Bytes of all files that are read to look for results: three thousand usual ones.
_MOST_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class _Stored:
    """The fields that tell stored results apart. The rest is read again when it is needed."""

    path: Path
    kind: object
    config_hash: object
    provenance: dict[str, Any]

    @classmethod
    def of(cls, path: Path, data: dict[str, Any]) -> _Stored:
        provenance = data.get("provenance")
        known = provenance if isinstance(provenance, dict) else {}
        told = {key: known[key] for key in ("time", "weights", "code", "data") if key in known}
        return cls(path, data.get("kind"), data.get("config_hash"), told)

    @property
    def made(self) -> str:
        return str(self.provenance.get("time"))

    def matches(self, kind: Kind, wanted: str, weights: str | None) -> bool:
        """Whether it measured this; weights are compared if both are known."""
        same = self.kind == kind.name and self.config_hash == wanted
        known = self.provenance.get("weights")
        return same and (weights is None or known is None or weights == known)


class Shelf:
    """Results on disk. A file is checked when a config asks for it.

    Args:
        files: results to choose among.
        named: whether the user named each of them; then a file that cannot be read is an error.
    """

    def __init__(self, files: Iterable[Path], *, named: bool) -> None:
        """
        Raises:
            CallError: a named file is not a result.
        """
        self._named = named
        self._stored: list[_Stored] = []
        self._unread: dict[Path, CallError] = {}
        self._checked: dict[Path, Result | CallError] = {}
        self._data: dict[tuple[Path, int], str] = {}  # hashes of data: many configs may name the same
        left = _MOST_BYTES
        for path in files:
            try:
                data = read_json(path, min(left, LARGEST_RESULT))
                left -= path.stat().st_size
                if named:
                    self._checked[path] = checked_result(path, data)
                if isinstance(data, dict):
                    self._stored.append(_Stored.of(path, data))
            except OSError as error:  # it has gone since
                self._unread[path] = CallError(f"{path} cannot be read ({reason(error)}).")
            except CallError as error:
                if named:
                    raise
                self._unread[path] = error

    def find(self, spec: Spec) -> tuple[Path, Result] | None:
        """The best result of this very config, by kind in order of trust, then by time; None if there is none.

        A result that cannot be read, that does not resolve B_crit, or that a doubt disqualifies, gives way to another.

        Raises:
            CallError: every matching file is damaged.
        """
        found: list[tuple[Path, Result]] = []
        damage: CallError | None = None
        weights = weights_hash(spec)
        for kind in KINDS.values():
            wanted = kind.hash(spec)
            matching = [stored for stored in self._stored if stored.matches(kind, wanted, weights)]
            if any(stored.provenance.get("data") for stored in matching):
                data = data_hashes(spec, self._data)
                matching = [s for s in matching if not changed_data(s.provenance.get("data"), data)]
            for stored in sorted(matching, key=lambda stored: (stored.made, str(stored.path)), reverse=True):
                result = self._result(stored.path)
                if isinstance(result, CallError):
                    damage = damage or result
                elif result.resolved and not any(doubt.code in kind.disqualifying for doubt in result.doubts):
                    return stored.path, result
                else:
                    found.append((stored.path, result))
        if damage is not None and not found:
            raise damage
        return found[0] if found else None

    def _result(self, path: Path) -> Result | CallError:
        """A result, or why it cannot be used; many configs may ask for one file, so it is checked once."""
        if path not in self._checked:
            try:
                self._checked[path] = checked_result(path, read_json(path))
            except CallError as error:
                self._checked[path] = error
        return self._checked[path]

    def why_not(self, spec: Spec, target: Path) -> tuple[str, bool]:
        """(Why no result of this config was found, whether there is one of another config).

        Args:
            target: the file in which a probe of the config would keep its result.
        """
        usual = target == default_path(spec.path, "probe")
        paths = [default_path(spec.path, command) for command in COMMANDS] if usual else [target]
        for path in paths:
            if path in self._unread:
                return str(self._unread[path]).removesuffix("."), False
        near = [stored for path in paths for stored in self._stored if stored.path == path]
        if not near and self._named:
            near = self._stored
        if not near:
            return "there is no stored measurement of this config", False
        return f"{near[0].path} was measured for another config: {self._difference(near[0], spec)}", True

    def _difference(self, stored: _Stored, spec: Spec) -> str:
        try:
            config = read_json(stored.path).get("config")
        except CallError:  # it has changed since
            config = None
        provenance = stored.provenance
        kind = KINDS.get(str(stored.kind))
        found = []
        if kind is not None and isinstance(config, dict):
            found = differences(kind.measured(config), kind.measured(spec.resolved()))
        code = provenance.get("code")
        now, before = code_hashes(spec), code if isinstance(code, dict) else {}
        found += [
            f"{name} has changed" if name in before else f"{name} was not part of it"
            for name in sorted(now)
            if before.get(name) != now[name]
        ]
        found += [f"{name} is gone" for name in sorted(before) if name not in now]
        if weights_hash(spec) not in (None, provenance.get("weights")):
            found.append(f"{' or '.join(spec.config.checkpoints)} has changed")
        data = changed_data(provenance.get("data"), data_hashes(spec, self._data))
        found += [f"{name} has changed" for name in data]
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return (
            "; ".join(found[:3]) + more
            if found
            else "nothing that can be named, so another version of bnoise"
        )
