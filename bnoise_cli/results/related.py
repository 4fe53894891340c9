"""Stored results that belong together: of one config, of other kinds, and of earlier times."""

from __future__ import annotations

from pathlib import Path

from bnoise_cli.errors import CallError
from bnoise_cli.result_file import default_path
from bnoise_cli.results.kinds import COMMANDS, KINDS
from bnoise_cli.results.result import Result
from bnoise_cli.results.stored import read_result
from bnoise_cli.spec.identity import measured


def beside(path: Path, result: Result) -> list[tuple[Path, Result]]:
    """What other commands measured of the same task and keep beside the file of a result.

    A file that cannot be read, or that is of another model, dataset, loss, optimizer or checkpoint, is left out.
    """
    own = KINDS[result.kind].command
    if not path.name.endswith(f".{own}.json"):
        return []
    stem = path.name.removesuffix(f".{own}.json")
    found = []
    for place in (path.with_name(f"{stem}.{command}.json") for command in COMMANDS if command != own):
        try:
            other = read_result(place)
        except CallError:
            continue
        if _task(other) == _task(result):
            found.append((place, other))
    return found


def _task(result: Result) -> tuple[object, ...]:
    """What all measurements of one task have in common."""
    return measured(result.config, {}), result.provenance.code, result.provenance.weights


def results_of(config: Path) -> list[Path]:
    """The files in which commands keep the results of a config: in the current folder, or else beside the config.

    Raises:
        CallError: there are none.
    """
    names = [default_path(config, command) for command in COMMANDS]
    for folder in (Path(), config.parent):
        if found := [folder / name for name in names if (folder / name).is_file()]:
            return found
    raise CallError(
        f"a stored result of {config} is needed; found neither {' nor '.join(map(str, names))}. Measure with "
        f"`bnoise probe {config}`, or name the file of the result."
    )
