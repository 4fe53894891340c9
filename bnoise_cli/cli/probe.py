"""`bnoise probe`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bnoise_cli.errors import CallError, ExitCode, NothingMeasuredError, RunError
from bnoise_cli.records import ProbeResult
from bnoise_cli.spec.load import Spec, load_spec
from bnoise_cli.storage import default_path, require_writable, write_json


def probe(
    config: Annotated[Path, typer.Argument(help="The YAML config.")] = Path("bnoise.yaml"),
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a value of the config; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    budget: Annotated[
        str | None, typer.Option(help="Time for the measurement after the warm-up, as in 60s or 5m.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all draws.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the result goes. [default: .bnoise/NAME.probe.json]")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the measurement into a png, svg or pdf.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, run one batch, print the plan.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")] = False,
) -> None:
    """Measure the noise scale and print the critical batch size.

    A config names code that is imported and run: an untrusted config is untrusted code.
    """
    overrides = list(override or [])
    overrides += [f"probe.budget={budget}"] if budget is not None else []
    overrides += [f"probe.seed={seed}"] if seed is not None else []
    spec = load_spec(config, overrides)
    target = out if out is not None else default_path(config, "probe")
    require_writable(target)
    if plot is not None:
        from bnoise_cli.report.plot import require_plot_format

        require_plot_format(plot)
        require_writable(plot)
        if plot.resolve() == target.resolve():
            raise CallError(f"--out and --plot need two files; both name {plot}.")
    try:
        code = _run(spec, device, target, plot, json=json, dry=dry_run, quiet=quiet)
    except KeyboardInterrupt:
        raise NothingMeasuredError("interrupted before anything was measured.") from None
    raise typer.Exit(code)


def _run(
    spec: Spec, device: str, target: Path, plot: Path | None, *, json: bool, dry: bool, quiet: bool
) -> int:
    from bnoise_cli.cli.output import show, show_json, tell, terminal_width
    from bnoise_cli.report.progress import ProgressLine

    # What the user's code prints must not mix with the result.
    with (
        redirect_stdout(sys.stderr),
        ProgressLine(quiet=quiet, precision=spec.config.probe.precision) as line,
    ):
        line.say("loading torch, building the model and the dataset")
        from bnoise_cli.advice.probe_result import probe_result
        from bnoise_cli.measurement.build import choose_device
        from bnoise_cli.measurement.session import Session
        from bnoise_cli.report.terminal import dry_run_report, probe_report

        session = Session(spec, choose_device(device))
        plan = run = None
        if dry:
            from bnoise_cli.measurement.dry_run import dry_run

            plan = dry_run(session)
        else:
            run = session.run(line)
    if plan is not None:
        show_json(asdict(plan)) if json else show(dry_run_report(plan))
    if run is None:
        return ExitCode.DONE
    result = probe_result(run, spec)
    data = result.to_json()
    kept = _keep(target, data, plot, result)
    if json or kept.lost:
        show_json(data)
    else:
        show(probe_report(result, terminal_width()))
    tell(kept.words, quiet=(quiet or json) and not kept.lost)
    if run.interrupted:
        return ExitCode.INTERRUPTED
    if run.failure is not None:
        tell(f"bnoise: {run.failure}")
    if run.failure is not None or kept.lost:
        return ExitCode.RUN_FAILED
    return ExitCode.DONE if result.resolved else ExitCode.CANNOT_TELL


@dataclass(frozen=True, slots=True)
class _Kept:
    """What became of the files of a result."""

    words: str
    lost: bool  # the result is in no file, so it must be printed


def _keep(target: Path, data: dict[str, Any], plot: Path | None, result: ProbeResult) -> _Kept:
    """Store a result and draw it. It is stored before it is shown: a terminal may go away."""
    try:
        write_json(target, data)
    except RunError as error:
        return _Kept(f"bnoise: {error} The result is printed instead; keep it from there.", lost=True)
    words = f"The result is in {target}."
    if plot is not None:
        from bnoise_cli.report.plot import plot_probe

        try:
            plot_probe(result, plot)
            words += f" The picture is in {plot}."
        except RunError as error:
            words += f" No picture: {error}"
    return _Kept(words, lost=False)
