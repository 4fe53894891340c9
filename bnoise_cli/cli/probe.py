"""`bnoise probe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    seconds,
)
from bnoise_cli.cli.torchrun import prepared
from bnoise_cli.errors import ExitCode, NothingMeasuredError
from bnoise_cli.result_file import ResultFile, default_path
from bnoise_cli.spec.load import Spec, load_spec
from bnoise_cli.spec.named_files import named_files

if TYPE_CHECKING:
    from bnoise_cli.cli.measuring import Found


@with_exports
def probe(
    config: ConfigArgument = Path("bnoise.yaml"),
    override: SetOption = None,
    device: DeviceOption = "auto",
    budget: Annotated[
        str | None,
        typer.Option(
            parser=seconds,
            metavar="TIME",
            help="Time for the measurement after the warm-up, as in 60s or 5m.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    seed: SeedOption = None,
    out: OutOption = None,
    *,
    outputs: Outputs,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure the noise scale, time training steps, and recommend a batch size.

    A config names code that is imported and run: an untrusted config is untrusted code.
    """
    overrides = list(override or [])
    overrides += [f"probe.budget={budget}"] if budget is not None else []
    overrides += [f"probe.seed={seed}"] if seed is not None else []
    target = ResultFile(out if out is not None else default_path(config, "probe"))
    with prepared():
        spec = load_spec(config, overrides)
        outputs.require(target, inputs=named_files(spec))
    try:
        code = (
            _dry_run(spec, device, outputs, quiet) if dry_run else _run(spec, device, target, outputs, quiet)
        )
    except KeyboardInterrupt:
        raise NothingMeasuredError("interrupted before anything was measured.") from None
    raise typer.Exit(code)


def _dry_run(spec: Spec, device: str, outputs: Outputs, quiet: bool) -> ExitCode:
    from bnoise_cli.cli.measuring import on_device, show_plan
    from bnoise_cli.report.words.dry_run import dry_run_sections

    with on_device(device, quiet=quiet) as (own, ranks, _):
        from bnoise_cli.measurement.probing.dry_run import dry_run
        from bnoise_cli.measurement.probing.session import Session

        plan = dry_run(Session(spec, own, ranks))
    return show_plan(plan, dry_run_sections(plan), outputs)


def _run(spec: Spec, device: str, target: ResultFile, outputs: Outputs, quiet: bool) -> ExitCode:
    from bnoise_cli.cli.measuring import finish

    return finish(measure_now(spec, device, target, quiet), target, outputs, quiet=quiet)


def measure_now(spec: Spec, device: str, target: ResultFile, quiet: bool) -> Found:
    """Probe, and keep the result in `target`."""
    from bnoise_cli.cli.measuring import measure, on_device

    with on_device(device, quiet=quiet) as (own, ranks, line):
        from bnoise_cli.measurement.probing.session import Session
        from bnoise_cli.results.probe import probe_result

        return measure(
            Session(spec, own, ranks), lambda run: probe_result(run, spec), target, line, timed=True
        )
