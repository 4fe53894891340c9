"""`bnoise sweep`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

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
from bnoise_cli.errors import CallError, ExitCode, NothingMeasuredError
from bnoise_cli.launch import here
from bnoise_cli.ledger import Ledger, ledger_path
from bnoise_cli.result_file import ResultFile, default_path
from bnoise_cli.spec.identity import ledger_hash
from bnoise_cli.spec.load import Spec, load_spec
from bnoise_cli.spec.named_files import named_files


@with_exports
def sweep(
    config: ConfigArgument = Path("bnoise.yaml"),
    override: SetOption = None,
    device: DeviceOption = "auto",
    budget: Annotated[
        str | None,
        typer.Option(
            parser=seconds,
            metavar="TIME",
            help="Time for this call, as in 30m or 8h; the next one goes on from there.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    branch: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Train branches at these multiples of the planned batch instead, each on --examples: how much larger "
            "can the batch be without loss? As in 1,2,4,8.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(metavar="N", help="Examples of every branch, as in 20000.", rich_help_panel=MEASURING),
    ] = None,
    seed: SeedOption = None,
    out: OutOption = None,
    *,
    outputs: Outputs,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train at a range of batch sizes and measure the trade-off itself.

    Every finished run is kept at once; the same command goes on where it was stopped. A config names code that is
    imported and run: an untrusted config is untrusted code.
    """
    overrides = list(override or [])
    overrides += [f"sweep.budget={budget}"] if budget is not None else []
    overrides += [f"probe.seed={seed}"] if seed is not None else []
    overrides += [f"sweep.branch.multiples={_multiples(branch)}"] if branch is not None else []
    overrides += [f"sweep.branch.examples={examples}"] if examples is not None else []
    target = ResultFile(out if out is not None else default_path(config, "sweep"))
    with prepared():
        if branch is not None and examples is None and not _names_branches(config):
            raise CallError(
                "branches need a number of examples, the same for each. Add --examples, as in --examples 20000."
            )
        spec = load_spec(config, overrides)
        _require_one_start(spec)
        outputs.require(target, ledger_path(target.path), inputs=named_files(spec))
    try:
        code = (
            _dry_run(spec, device, outputs, quiet) if dry_run else _run(spec, device, target, outputs, quiet)
        )
    except KeyboardInterrupt:
        raise NothingMeasuredError("interrupted before a run was finished.") from None
    raise typer.Exit(code)


def _multiples(text: str) -> list[int]:
    """The multiples that --branch names.

    Raises:
        CallError: they are not two or more ascending whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    multiples = [int(part) for part in parts if part.isdecimal()]
    if len(multiples) < max(2, len(parts)) or multiples != sorted(set(multiples)):
        raise CallError(f"--branch needs two or more ascending whole numbers, as in 1,2,4,8; found {text!r}.")
    return multiples


def _names_branches(config: Path) -> bool:
    """Whether the config itself has branches."""
    return load_spec(config, at_hand=False).config.sweep.branch is not None


def _require_one_start(spec: Spec) -> None:
    """All runs of a sweep begin at one point."""
    named = spec.config.checkpoints
    if len(named) > 1:
        raise CallError(
            f"{spec.source.place(('checkpoint',))}: a sweep needs one checkpoint to start from; found {len(named)}, "
            f"which `bnoise probe` takes. Name one of them, as in --set checkpoint={named[-1]}."
        )


def _dry_run(spec: Spec, device: str, outputs: Outputs, quiet: bool) -> ExitCode:
    from bnoise_cli.cli.measuring import on_device, show_plan
    from bnoise_cli.report.words.dry_run import sweep_plan_sections

    with on_device(device, quiet=quiet) as (own, ranks, _), TemporaryDirectory() as folder:
        from bnoise_cli.measurement.sweeping.dry_run import plan_sweep
        from bnoise_cli.measurement.sweeping.sweep import SweepSession

        plan = plan_sweep(SweepSession(spec, own, Ledger(Path(folder) / "runs", ""), ranks))
    return show_plan(plan, sweep_plan_sections(plan), outputs)


def _run(spec: Spec, device: str, target: ResultFile, outputs: Outputs, quiet: bool) -> ExitCode:
    with TemporaryDirectory() as folder:
        # Only the first rank keeps the runs and tells the others of them.
        kept = Path(folder) / "runs" if here().is_follower else ledger_path(target.path)
        ledger = Ledger(kept, ledger_hash(spec))
        with ledger.held():
            return _train(spec, device, target, ledger, outputs, quiet)


def _train(
    spec: Spec, device: str, target: ResultFile, ledger: Ledger, outputs: Outputs, quiet: bool
) -> ExitCode:
    from bnoise_cli.cli.measuring import finish, measure, on_device
    from bnoise_cli.cli.streams import tell

    if ledger.entries:
        damaged = f" {ledger.damaged} damaged lines are left out." if ledger.damaged else ""
        tell(f"Going on with {len(ledger.entries)} entries of {ledger.source}.{damaged}", quiet=quiet)
    elif ledger.in_the_way is not None:
        tell(f"{ledger.in_the_way}: starting anew. Earlier runs are kept in {ledger.aside}.", quiet=quiet)
    with on_device(device, quiet=quiet) as (own, ranks, line):
        from bnoise_cli.measurement.sweeping.sweep import SweepSession
        from bnoise_cli.results.branch import branch_result
        from bnoise_cli.results.sweep import sweep_result

        timed = spec.config.sweep.branch is None
        make = sweep_result if timed else branch_result
        session = SweepSession(spec, own, ledger, ranks)
        found = measure(session, lambda run: make(run, spec), target, line, timed=timed)
    return finish(found, target, outputs, quiet=quiet)
