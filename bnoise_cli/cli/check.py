"""`bnoise check`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bnoise_cli import clock
from bnoise_cli.check.check_config import Checked, Rules, Wish, check_config, validate_config
from bnoise_cli.cli.options import DeviceOption, QuietOption, SetOption
from bnoise_cli.cli.own_process import apart
from bnoise_cli.errors import CallError, NothingMeasuredError
from bnoise_cli.report.export.ci import WRITERS, Format
from bnoise_cli.report.words.check import check_sections
from bnoise_cli.result_file import ResultFile, default_path, stored_results
from bnoise_cli.results.result import Result
from bnoise_cli.results.shelf import Shelf
from bnoise_cli.spec.load import Spec
from bnoise_cli.spec.named_files import named_files
from bnoise_cli.spec.source import is_file
from bnoise_cli.spec.units import parse_tokens
from bnoise_cli.storage import absolute, real

#: Follows the name of the command in the example of its help.
EXAMPLE = "'configs/*.yaml' --format github"


def _batch_size(text: str) -> str:
    """A whole number of examples, or tokens, as `training.batch_size` takes them."""
    if parse_tokens(text) is None and not re.fullmatch(r"0*[1-9][0-9_]*", text.strip()):
        raise typer.BadParameter(f"{text!r} is neither a whole number above 0 nor as in '524288 tokens'.")
    return text


def check(
    configs: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG", help="YAML configs, or patterns such as 'configs/**/*.yaml'."),
    ] = None,
    override: SetOption = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            parser=_batch_size,
            metavar="EXAMPLES",
            help="Judge this global batch size instead of training.batch_size; also as in '524288 tokens'.",
        ),
    ] = None,
    result: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Stored results to choose among; repeatable. \\[default: those in .bnoise/]"
        ),
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Probe now where no result matches.")] = False,
    device: DeviceOption = "auto",
    form: Annotated[Format, typer.Option("--format", help="How the verdicts are written.")] = Format.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="A warning fails too.")] = False,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Say what is wrong, but fail for no verdict.")
    ] = False,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Only whether the configs are well formed.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Is the planned batch size reasonable? Judges it by a stored result, for CI.

    Runs none of the config's code, unless --probe is given.
    """
    begun = clock.monotonic()
    paths, rules = _paths(configs or ["bnoise.yaml"]), Rules(strict=strict, exit_zero=exit_zero)
    if validate_only and (result or probe or batch_size is not None):
        raise CallError(
            "--validate-only reads the configs alone. Leave out --result, --probe and --batch-size."
        )
    overrides = tuple(override or ())
    if validate_only:
        checked = [validate_config(path, overrides) for path in paths]
    else:
        shelf = Shelf(result, named=True) if result else Shelf(_stored(paths), named=False)
        targets = _targets(paths)
        wish = Wish(
            overrides=overrides,
            batch_size=batch_size,
            shelf=shelf,
            measure=(lambda spec: _probe(spec, targets[spec.path], device, quiet)) if probe else None,
        )
        checked = [check_config(path, wish, targets[path]) for path in paths]
    _show(checked, rules, form, seconds=clock.monotonic() - begun)
    raise typer.Exit(rules.exit_code(checked))


def _paths(configs: Sequence[str]) -> list[Path]:
    """The named configs, each file once. Patterns that the shell has left are expanded.

    Links to folders are not followed. Hidden files are left out unless the pattern names them.
    """
    found: dict[str, Path] = {}
    for config in configs:
        if not _has_magic(config) or is_file(Path(config)):
            found.setdefault(str(real(Path(config))), Path(config))
            continue
        anchor = Path(Path(config).anchor)
        try:
            matches = sorted(
                path for path in anchor.glob(str(Path(config).relative_to(anchor))) if is_file(path)
            )
        except (ValueError, NotImplementedError, OSError, RuntimeError) as error:
            raise CallError(f"configs are needed; the pattern {config!r} is none ({error}).") from None
        named = set(Path(config).parts)
        kept = [p for p in matches if all(part in named or not part.startswith(".") for part in p.parts)]
        if not kept:
            raise CallError(f"configs are needed; no file matches {config!r} in {absolute(Path())}.")
        for path in kept:
            found.setdefault(str(real(path)), path)
    return list(found.values())


def _has_magic(config: str) -> bool:
    return any(sign in config for sign in "*?[")


def _targets(configs: Sequence[Path]) -> dict[Path, Path]:
    """Path of the result of each config: beside the config if two configs have the same name."""
    stems = Counter(path.stem for path in configs)
    return {
        path: path.parent / default_path(path, "probe")
        if stems[path.stem] > 1
        else default_path(path, "probe")
        for path in configs
    }


def _stored(configs: Sequence[Path]) -> list[Path]:
    """The stored results in `.bnoise` of the current folder and beside the configs."""
    folders = dict.fromkeys([Path(".bnoise"), *(path.parent / ".bnoise" for path in configs)])
    return [path for folder in folders for path in stored_results(folder)]


def _probe(spec: Spec, target: Path, device: str, quiet: bool) -> tuple[Path, Result]:
    """Measure in a process of its own, and keep the result as `bnoise probe` does."""
    return apart(lambda: _probe_here(spec, target, device, quiet))


def _probe_here(spec: Spec, target: Path, device: str, quiet: bool) -> tuple[Path, Result]:
    from bnoise_cli.cli.probe import measure_now

    file = ResultFile(target)
    file.require(named_files(spec))
    try:
        found = measure_now(spec, device, file, quiet)
    except KeyboardInterrupt:
        raise file.interruption("anything was measured") from None
    if found.interrupted:
        raise NothingMeasuredError(f"interrupted. {found.kept}")
    if found.failure is not None:
        raise found.failure
    if found.lost is not None:
        raise found.lost
    return target, found.result


def _show(checked: list[Checked], rules: Rules, form: Format, *, seconds: float) -> None:
    from bnoise_cli.cli.streams import show_content, show_sections

    if form is Format.TEXT:
        show_sections(check_sections(checked))
    else:
        for content in WRITERS[form](checked, rules, seconds):
            show_content(content)
