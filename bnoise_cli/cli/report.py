"""`bnoise report`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bnoise_cli.cli.exports import Outputs, result_name, tell_unmet, with_exports
from bnoise_cli.cli.options import QuietOption
from bnoise_cli.errors import BnoiseError, CallError, ExitCode
from bnoise_cli.report.export.as_json import JSON
from bnoise_cli.result_file import history
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.related import beside, results_of
from bnoise_cli.results.result import Result
from bnoise_cli.spec.load import Spec, load_spec

#: Follows the name of the command in the example of its help.
EXAMPLE = ".bnoise/config.probe.json --page report.html"


class OtherConfigError(BnoiseError):
    """A result does not belong to the config it is read with."""

    exit_code = ExitCode.CANNOT_TELL


@with_exports
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT", help="Stored results, or a config (.yaml) whose stored results are meant."
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="Advise anew for the plan and the limits in this config of the same measurement.",
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a value of --config; repeatable."),
    ] = None,
    earlier: Annotated[
        bool,
        typer.Option("--history", help="List what was measured when, earlier results among it."),
    ] = False,
    *,
    outputs: Outputs,
    quiet: QuietOption = False,
) -> None:
    """Print or export stored results again, without measuring; several are compared."""
    from bnoise_cli.cli.streams import show_sections, tell
    from bnoise_cli.report.words.related import history_section
    from bnoise_cli.results.stored import read_result

    results = [path for named in results for path in _files(named)]
    if earlier:
        results += [each for path in results for each in _earlier(path)]
    outputs.require(inputs=[*results, *([config] if config is not None else [])], results=len(results))
    spec = _spec(config, override or [])
    named = list(zip(_names(results), [read_result(path) for path in results], strict=True))
    if spec is not None:
        named = [
            (name, _advised(path, result, spec)) for path, (name, result) in zip(results, named, strict=True)
        ]
    made, failed = outputs.write(named)
    if earlier and not outputs.printed:
        show_sections(
            [history_section(list(zip(map(str, results), (result for _, result in named), strict=True)))]
        )
    else:
        outputs.print(named, beside=_beside(results, named), quiet=quiet)
    tell(" ".join(made), quiet=quiet or outputs.value(JSON) or not made)
    for sentence in failed:
        tell(sentence)
    if failed:
        raise typer.Exit(ExitCode.RUN_FAILED)
    raise typer.Exit(ExitCode.WRONG_CALL if tell_unmet([result for _, result in named]) else ExitCode.DONE)


def _files(named: Path) -> list[Path]:
    """The files that an argument means: itself, or the stored results of a config."""
    return results_of(named) if named.suffix in (".yaml", ".yml") else [named]


def _earlier(path: Path) -> Iterator[Path]:
    """The results that gave way at a path. One that cannot be read hides no other."""
    from bnoise_cli.cli.streams import tell
    from bnoise_cli.results.stored import read_result

    for each in history(path):
        if each.suffix == ".json":
            try:
                read_result(each)
            except CallError as error:
                tell(f"bnoise: left out of the history: {error}")
            else:
                yield each


def _beside(paths: list[Path], named: list[tuple[str, Result]]) -> list[tuple[str, Result]]:
    """Other stored results of the same task as the only one."""
    if len(named) > 1:
        return []
    return [(str(path), other) for path, other in beside(paths[0], named[0][1])]


def _spec(config: Path | None, overrides: list[str]) -> Spec | None:
    if config is not None:
        return load_spec(config, overrides)
    if overrides:
        raise CallError("--set changes the config that --config names, and there is none. Add --config FILE.")
    return None


def _advised(path: Path, result: Result, spec: Spec) -> Result:
    """The result with the advice for another plan of the same measurement."""
    from bnoise_cli.advice.advise import advise

    if result.config_hash != KINDS[result.kind].hash(spec):
        raise OtherConfigError(
            f"{path} was measured for another config than {spec.path}: model, data, loss, optimizer or start differ. "
            f"Measure again with `bnoise probe {spec.path}`."
        )
    return advise(replace(result, config=spec.resolved()))


def _names(paths: list[Path]) -> list[str]:
    """Short names; the whole path if two files have the same short name."""
    short = [result_name(path) for path in paths]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]
