"""`bnoise check`."""

from __future__ import annotations

import glob
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bnoise_cli.advice.checked import Checked, Rules, check_config, validate_config
from bnoise_cli.advice.shelf import Shelf
from bnoise_cli.cli.outputs import DeviceOption, QuietOption, SetOption
from bnoise_cli.errors import CallError, ExitCode, NothingMeasuredError
from bnoise_cli.records import Result
from bnoise_cli.spec.load import Spec


class Format(StrEnum):
    """How verdicts are written."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    GITHUB = "github"
    JUNIT = "junit"


def check(
    configs: Annotated[
        list[str] | None, typer.Argument(help="YAML configs, or patterns such as 'configs/**/*.yaml'.")
    ] = None,
    override: SetOption = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Judge this global batch size instead of training.batch_size.")
    ] = None,
    result: Annotated[
        list[Path] | None,
        typer.Option(help="Stored results to choose among; repeatable. [default: those in .bnoise/]"),
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
    begun = time.monotonic()
    paths, rules = _paths(configs or ["bnoise.yaml"]), Rules(strict=strict, exit_zero=exit_zero)
    overrides = list(override or [])
    if validate_only:
        checked = [validate_config(path, overrides) for path in paths]
    else:
        shelf = Shelf(result, named=True) if result else Shelf(_stored(paths), named=False)
        measure = (lambda spec: _probe(spec, device, quiet)) if probe else None
        checked = [check_config(path, overrides, batch_size, shelf, measure) for path in paths]
    code = rules.gravest(checked)
    _show(checked, rules, code, form, seconds=time.monotonic() - begun)
    raise typer.Exit(code)


def _paths(configs: Sequence[str]) -> list[Path]:
    """The configs that are meant, each once; patterns are expanded where the shell has not."""
    found: dict[Path, None] = {}
    for config in configs:
        if Path(config).exists() or not glob.has_magic(config):
            found[Path(config)] = None
            continue
        expanded = glob.glob(config, recursive=True)  # noqa: PTH207  pathlib refuses absolute patterns
        matches = sorted(path for path in map(Path, expanded) if path.is_file())
        if not matches:
            raise CallError(f"configs are needed; no file matches {config!r} in {Path.cwd()}.")
        found |= dict.fromkeys(matches)
    return list(found)


def _stored(configs: Sequence[Path]) -> list[Path]:
    """Results where commands keep them: in the current folder, and beside the configs."""
    folders = dict.fromkeys([Path(".bnoise"), *(path.parent / ".bnoise" for path in configs)])
    return [path for folder in folders for path in sorted(folder.glob("*.json"))]


def _probe(spec: Spec, device: str, quiet: bool) -> tuple[Path, Result]:
    """Measure now, and keep the result as `bnoise probe` does."""
    from bnoise_cli.cli.probe import measure_now
    from bnoise_cli.storage import default_path, require_writable

    target = default_path(spec.path, "probe")
    require_writable(target)
    try:
        found = measure_now(spec, device, target, quiet)
    except KeyboardInterrupt:
        raise NothingMeasuredError("interrupted before anything was measured.") from None
    if found.interrupted:
        raise NothingMeasuredError(f"interrupted; what was measured is in {target}.")
    if found.failure is not None:
        raise found.failure
    if found.lost is not None:
        raise found.lost
    return target, found.result


def _show(checked: list[Checked], rules: Rules, code: ExitCode, form: Format, *, seconds: float) -> None:
    from bnoise_cli.cli.output import show_json, show_sections, show_text
    from bnoise_cli.report import check_words as words

    match form:
        case Format.TEXT:
            show_sections(words.check_sections(checked))
        case Format.JSON:
            show_json(words.check_json(checked, code))
        case Format.MARKDOWN:
            show_text(_markdown(checked))
        case Format.GITHUB:
            from bnoise_cli.report.check_ci import github_annotations, write_github_files

            show_text(github_annotations(checked, rules))
            write_github_files(checked, code, _markdown(checked))
        case Format.JUNIT:
            from bnoise_cli.report.check_ci import junit

            show_text(junit(checked, seconds))


def _markdown(checked: list[Checked]) -> str:
    from bnoise_cli.report.check_words import check_table
    from bnoise_cli.report.markdown import markdown

    return markdown("bnoise check", check_table(checked), None)
