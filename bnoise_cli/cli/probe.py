"""`bnoise probe`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnoise_cli.cli.outputs import (
    EmitOption,
    JsonOption,
    LogToOption,
    Outputs,
    PageOption,
    PlotOption,
    tell_unmet,
)
from bnoise_cli.errors import BnoiseError, ExitCode, NothingMeasuredError, RunError
from bnoise_cli.records import Doubt, ProbeResult
from bnoise_cli.spec.load import Spec, load_spec
from bnoise_cli.storage import default_path, require_writable, write_json

if TYPE_CHECKING:
    from bnoise_cli.measurement.session import Session
    from bnoise_cli.report.progress import ProgressLine


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
    plot: PlotOption = None,
    page: PageOption = None,
    emit: EmitOption = None,
    log_to: LogToOption = None,
    json: JsonOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build everything, run one batch, print the plan.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")] = False,
) -> None:
    """Measure the noise scale, time training steps, and recommend a batch size.

    A config names code that is imported and run: an untrusted config is untrusted code.
    """
    overrides = list(override or [])
    overrides += [f"probe.budget={budget}"] if budget is not None else []
    overrides += [f"probe.seed={seed}"] if seed is not None else []
    spec = load_spec(config, overrides)
    target = out if out is not None else default_path(config, "probe")
    outputs = Outputs(plot=plot, page=page, emit=emit, log_to=log_to, json=json)
    require_writable(target)
    outputs.require(target)
    try:
        code = _dry_run(spec, device, json, quiet) if dry_run else _run(spec, device, target, outputs, quiet)
    except KeyboardInterrupt:
        raise NothingMeasuredError("interrupted before anything was measured.") from None
    raise typer.Exit(code)


def _dry_run(spec: Spec, device: str, json: bool, quiet: bool) -> ExitCode:
    from bnoise_cli.cli.output import show_json, show_sections
    from bnoise_cli.report.dry_run_words import dry_run_sections
    from bnoise_cli.report.progress import ProgressLine

    with (
        redirect_stdout(sys.stderr),
        ProgressLine(quiet=quiet, precision=spec.config.probe.precision) as line,
    ):
        session = _session(spec, device, line)
        from bnoise_cli.measurement.dry_run import dry_run

        plan = dry_run(session)
    if json:
        show_json(asdict(plan))
    else:
        show_sections(dry_run_sections(plan))
    return ExitCode.DONE


def _run(spec: Spec, device: str, target: Path, outputs: Outputs, quiet: bool) -> ExitCode:
    from bnoise_cli.cli.output import show_json, tell
    from bnoise_cli.report.progress import ProgressLine

    # What the user's code prints must not mix with the result.
    with (
        redirect_stdout(sys.stderr),
        ProgressLine(quiet=quiet, precision=spec.config.probe.precision) as line,
    ):
        found = _measure(spec, device, target, line)
    result, named = found.result, [(target.name.removesuffix(".probe.json"), found.result)]
    if found.lost is not None:
        show_json(result.to_json())
        tell(f"bnoise: {found.lost} The result is printed instead; keep it from there.")
        return ExitCode.RUN_FAILED
    words = [f"The result is in {target}.", *outputs.write(named)]
    try:
        outputs.print(named)
    finally:
        tell(" ".join(words), quiet=quiet or outputs.json)
    if found.interrupted:
        return ExitCode.INTERRUPTED
    if found.failure is not None:
        tell(f"bnoise: {found.failure}")
        return ExitCode.RUN_FAILED
    if not result.resolved:
        return ExitCode.CANNOT_TELL
    return ExitCode.WRONG_CALL if tell_unmet([result]) else ExitCode.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a probe came to."""

    result: ProbeResult
    interrupted: bool
    failure: BnoiseError | None
    lost: RunError | None  # the result is in no file, so it must be printed


def _session(spec: Spec, device: str, line: ProgressLine) -> Session:
    line.say("loading torch, building the model and the dataset")
    from bnoise_cli.measurement.build import choose_device
    from bnoise_cli.measurement.session import Session

    return Session(spec, choose_device(device))


def _measure(spec: Spec, device: str, target: Path, line: ProgressLine) -> _Found:
    """Probe, store, time, advise, store again: what takes long is kept before anything else is tried."""
    session = _session(spec, device, line)
    from bnoise_cli.advice.advise import advise
    from bnoise_cli.advice.probe_result import probe_result

    run = session.run(line)
    interrupted, failure = run.interrupted, run.failure
    result = advise(probe_result(run, spec))
    lost = _store(target, result)
    if not interrupted and failure is None:
        line.say("timing training steps")
        try:
            result = replace(result, throughput=session.time_steps(run, result.critical_batch_size.value))
        except KeyboardInterrupt:
            interrupted = True
        except RunError as error:
            failure = error
            result = replace(result, doubts=(*result.doubts, _untimed(error)))
        result = advise(result)
        lost = _store(target, result)
    return _Found(result=result, interrupted=interrupted, failure=failure, lost=lost)


def _untimed(error: RunError) -> Doubt:
    return Doubt(
        code="untimed",
        finding=f"training steps could not be timed: {str(error).removesuffix('.')}",
        remedy="The noise scale stands; the trade-off is in steps and examples only.",
    )


def _store(target: Path, result: ProbeResult) -> RunError | None:
    try:
        write_json(target, result.to_json())
    except RunError as error:
        return error
    return None
