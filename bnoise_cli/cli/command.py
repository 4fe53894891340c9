"""What the commands that measure have in common: their options, and the checks before the measurement."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bnoise_cli.cli.exports import Outputs, with_exports
from bnoise_cli.cli.options import (
    MEASURING,
    ConfigArgument,
    DeviceOption,
    DryRunOption,
    OutOption,
    QuietOption,
    SeedOption,
    SetOption,
    VerboseOption,
    seconds,
)
from bnoise_cli.cli.torchrun import prepared
from bnoise_cli.errors import CallError, ExitCode
from bnoise_cli.result_file import ResultFile, default_path
from bnoise_cli.spec.load import Spec, load_spec
from bnoise_cli.spec.named_files import named_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a command that measures."""

    spec: Spec
    device: str
    target: ResultFile
    outputs: Outputs
    dry_run: bool
    quiet: bool
    verbose: bool


def measuring_command(
    *,
    budget_help: str,
    unfinished: str,
    settings: Callable[..., list[str]] = lambda _config: [],
    require: Callable[[Spec], None] = lambda _: None,
    files: Callable[[Path], Sequence[Path]] = lambda _: (),
) -> Callable[[Callable[[Call], ExitCode]], Callable[..., None]]:
    """Make a command of a function that takes its `Call`. The section of the config has the command's name.

    Args:
        budget_help: the help of --budget.
        unfinished: what an interruption came before, if there is no result.
        settings: takes the path of the config and further options of the command, which are its other parameters, and
            returns what they change in the config.
        require: raises `CallError` if the config does not suit the command.
        files: files that are written besides the result at a path.
    """

    def decorate(run: Callable[[Call], ExitCode]) -> Callable[..., None]:
        name = run.__name__

        def command(
            config: ConfigArgument = Path("bnoise.yaml"),
            override: SetOption = None,
            device: DeviceOption = "auto",
            budget: str | None = None,
            seed: SeedOption = None,
            out: OutOption = None,
            *,
            outputs: Outputs,
            dry_run: DryRunOption = False,
            quiet: QuietOption = False,
            verbose: VerboseOption = False,
            **further: Any,
        ) -> None:
            if quiet and verbose:
                raise CallError(
                    "--quiet prints the verdict alone and --verbose the whole report; found both. Choose one."
                )
            overrides = list(override or [])
            overrides += [f"{name}.budget={budget}"] if budget is not None else []
            overrides += [f"probe.seed={seed}"] if seed is not None else []
            target = ResultFile(out if out is not None else default_path(config, name))
            with prepared():
                spec = load_spec(config, [*overrides, *settings(config, **further)])
                require(spec)
                outputs.require(target, *files(target.path), inputs=named_files(spec))
            try:
                code = run(
                    Call(
                        spec=spec,
                        device=device,
                        target=target,
                        outputs=outputs,
                        dry_run=dry_run,
                        quiet=quiet,
                        verbose=verbose,
                    )
                )
            except KeyboardInterrupt:
                raise target.interruption(unfinished) from None
            raise typer.Exit(code)

        command.__name__, command.__doc__ = name, run.__doc__
        option = typer.Option(parser=seconds, metavar="TIME", help=budget_help, rich_help_panel=MEASURING)
        command.__annotations__["budget"] = Annotated[str | None, option]
        _, *others = inspect.signature(settings, eval_str=True).parameters.values()
        return with_exports(command, further=others)

    return decorate
