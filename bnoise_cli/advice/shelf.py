"""Stored results, found by what they measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnoise_cli.advice.stored import read_result
from bnoise_cli.errors import CallError
from bnoise_cli.records import Result
from bnoise_cli.spec.identity import code_hashes, differences, measured_hash
from bnoise_cli.spec.load import Spec
from bnoise_cli.storage import default_path, read_json

#: What training measures outranks what a probe predicts.
_KINDS = ("sweep", "probe")


@dataclass(frozen=True, slots=True)
class _Stored:
    path: Path
    data: dict[str, Any]

    @property
    def made(self) -> str:
        provenance = self.data.get("provenance")
        return str(provenance.get("time")) if isinstance(provenance, dict) else ""


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
        self._unread: dict[str, CallError] = {}
        for path in files:
            try:
                if named:
                    read_result(path)
                data = read_json(path)
                if isinstance(data, dict):
                    self._stored.append(_Stored(path, data))
            except CallError as error:
                if named:
                    raise
                self._unread[path.name] = error

    def find(self, spec: Spec) -> tuple[Path, Result] | None:
        """The best result of this very config: a sweep before a probe, the newest first; None: there is none.

        Raises:
            CallError: it is damaged.
        """
        for kind in _KINDS:
            wanted = measured_hash(spec, kind)
            found = [
                stored
                for stored in self._stored
                if stored.data.get("kind") == kind and stored.data.get("config_hash") == wanted
            ]
            if found:
                newest = max(found, key=lambda stored: (stored.made, str(stored.path)))
                return newest.path, read_result(newest.path)
        return None

    def why_not(self, spec: Spec) -> str:
        """What is there instead of a result of this config."""
        names = [default_path(spec.path, kind).name for kind in _KINDS]
        for name in names:
            if name in self._unread:
                return str(self._unread[name]).removesuffix(".")
        near = [stored for name in names for stored in self._stored if stored.path.name == name]
        if not near and self._named:
            near = self._stored
        if not near:
            return "there is no stored measurement of this config"
        return f"{near[0].path} was measured for another config: {_difference(near[0].data, spec)}"


def _difference(data: dict[str, Any], spec: Spec) -> str:
    config, provenance, kind = data.get("config"), data.get("provenance"), data.get("kind")
    found = differences(config, spec, str(kind)) if isinstance(config, dict) else []
    code = provenance.get("code") if isinstance(provenance, dict) else None
    now = code_hashes(spec)
    before = code if isinstance(code, dict) else {}
    found += [f"{name} has changed" for name in sorted(now) if before.get(name) != now[name]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more if found else "it cannot be said how, another bnoise made it"
