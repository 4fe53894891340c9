"""Stored results, found by what they measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnoise_cli.errors import CallError
from bnoise_cli.records import Result
from bnoise_cli.results.stored import checked_result
from bnoise_cli.spec.identity import code_hashes, differences, measured_hash, weights_hash
from bnoise_cli.spec.load import Spec
from bnoise_cli.storage import default_path, read_json

#: What training measures outranks what a probe predicts.
_KINDS = ("sweep", "probe")
#: Bytes of a file that may be a result; the largest sweeps have a hundredth.
_LARGEST = 1 << 26


@dataclass(frozen=True, slots=True)
class _Stored:
    path: Path
    data: dict[str, Any]

    @property
    def made(self) -> str:
        return str(self.provenance.get("time"))

    @property
    def provenance(self) -> dict[str, Any]:
        found = self.data.get("provenance")
        return found if isinstance(found, dict) else {}

    def matches(self, kind: str, wanted: str, weights: str | None) -> bool:
        """Whether it measured this; weights are compared where both are known."""
        same = self.data.get("kind") == kind and self.data.get("config_hash") == wanted
        known = self.provenance.get("weights")
        return same and (weights is None or known is None or weights == known)


class Shelf:
    """Results on disk. Nothing of a file is trusted before it is asked for.

    Args:
        files: results to choose among.
        named: whether the user named each of them, so that one that cannot be read is an error.
    """

    def __init__(self, files: Iterable[Path], *, named: bool) -> None:
        """
        Raises:
            CallError: a named file is no result.
        """
        self._named = named
        self._stored: list[_Stored] = []
        self._unread: dict[Path, CallError] = {}
        for path in files:
            try:
                data = read_json(path, most=_LARGEST)
                if named:
                    checked_result(path, data)
                if isinstance(data, dict):
                    self._stored.append(_Stored(path, data))
            except CallError as error:
                if named:
                    raise
                self._unread[path] = error

    def find(self, spec: Spec) -> tuple[Path, Result] | None:
        """The best result of this very config: a sweep before a probe, the newest first; None: there is none.

        One that cannot be read, or says nothing of B_crit, gives way to another.

        Raises:
            CallError: all there are are damaged.
        """
        found, damage = [], None
        weights = weights_hash(spec)
        for kind in _KINDS:
            wanted = measured_hash(spec, kind)
            matching = [stored for stored in self._stored if stored.matches(kind, wanted, weights)]
            for stored in sorted(matching, key=lambda stored: (stored.made, str(stored.path)), reverse=True):
                try:
                    found.append((stored.path, checked_result(stored.path, stored.data)))
                except CallError as error:
                    damage = damage or error
        if damage is not None and not found:
            raise damage
        return next((pair for pair in found if pair[1].resolved), found[0] if found else None)

    def why_not(self, spec: Spec, target: Path) -> tuple[str, bool]:
        """(What is there instead of a result of this config, whether that is one of another config).

        Args:
            target: where a probe of it would keep one.
        """
        usual = target == default_path(spec.path, "probe")
        paths = [default_path(spec.path, kind) for kind in _KINDS] if usual else [target]
        for path in paths:
            if path in self._unread:
                return str(self._unread[path]).removesuffix("."), False
        near = [stored for path in paths for stored in self._stored if stored.path == path]
        if not near and self._named:
            near = self._stored
        if not near:
            return "there is no stored measurement of this config", False
        return f"{near[0].path} was measured for another config: {_difference(near[0], spec)}", True


def _difference(stored: _Stored, spec: Spec) -> str:
    config, provenance = stored.data.get("config"), stored.provenance
    found = differences(config, spec, str(stored.data.get("kind"))) if isinstance(config, dict) else []
    code = provenance.get("code")
    now, before = code_hashes(spec), code if isinstance(code, dict) else {}
    found += [f"{name} has changed" for name in sorted(now) if before.get(name) != now[name]]
    found += [f"{name} is gone" for name in sorted(before) if name not in now]
    if weights_hash(spec) not in (None, provenance.get("weights")):
        found.append(f"{' or '.join(spec.config.checkpoints)} has changed")
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more if found else "nothing that can be named, so another version of bnoise"
