"""`bnoise sweep`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from bnoise_cli.cli.command import Call, measuring_command
from bnoise_cli.cli.options import MEASURING
from bnoise_cli.errors import CallError, ExitCode
from bnoise_cli.launch import here
from bnoise_cli.ledger import Ledger, ledger_path
from bnoise_cli.spec.data_files import data_hashes
from bnoise_cli.spec.identity import ledger_hash
from bnoise_cli.spec.load import Spec, load_spec

#: Follows the name of the command in the example of its help.
EXAMPLE = "config.yaml --dry-run"


def _settings(
    config: Path,
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
) -> list[str]:
    """The options of a sweep alone, as values of the config."""
    settings = [f"sweep.branch.multiples={_multiples(branch)}"] if branch is not None else []
    settings += [f"sweep.branch.examples={examples}"] if examples is not None else []
    if branch is not None and examples is None and not _names_branches(config):
        raise CallError(
            "branches need a number of examples, the same for each. Add --examples, as in --examples 20000."
        )
    if examples is not None and branch is None and not _names_branches(config):
        raise CallError(
            "--examples is the length of branches, and neither the call nor the config has branches. Add --branch, as "
            "in --branch 1,2,4,8."
        )
    return settings


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


@measuring_command(
    budget_help="Time for this call, as in 30m or 8h; the next one goes on from there.",
    unfinished="a run was finished",
    settings=_settings,
    require=_require_one_start,
    files=lambda path: [ledger_path(path)],
)
def sweep(call: Call) -> ExitCode:
    """Train at a range of batch sizes and measure the trade-off itself.

    Every finished run is kept at once; the same command goes on where it was stopped. A config names code that is
    imported and run: an untrusted config is untrusted code.
    """
    with TemporaryDirectory() as folder:
        if call.dry_run:
            return _dry_run(call, Ledger(Path(folder) / "runs", ""))
        # Only the first rank keeps the runs and tells the others of them.
        kept = Path(folder) / "runs" if here().is_follower else ledger_path(call.target.path)
        ledger = Ledger(kept, ledger_hash(call.spec), data_hashes(call.spec, folders=False))
        with ledger.held():
            return _train(call, ledger)


def _dry_run(call: Call, ledger: Ledger) -> ExitCode:
    from bnoise_cli.cli.measuring import on_device, show_plan
    from bnoise_cli.report.words.dry_run import sweep_plan_sections

    with on_device(call.device, quiet=call.quiet) as (own, ranks, _):
        from bnoise_cli.measurement.sweeping.dry_run import plan_sweep
        from bnoise_cli.measurement.sweeping.sweep import SweepSession

        plan = plan_sweep(SweepSession(call.spec, own, ledger, ranks))
    return show_plan(plan, sweep_plan_sections(plan), call.outputs)


def _train(call: Call, ledger: Ledger) -> ExitCode:
    from bnoise_cli.api.measure import measure
    from bnoise_cli.cli.measuring import finish, on_device
    from bnoise_cli.cli.streams import tell

    if ledger.entries:
        damaged = f" {ledger.damaged} damaged lines are left out." if ledger.damaged else ""
        tell(f"Going on with {len(ledger.entries)} entries of {ledger.source}.{damaged}", quiet=call.quiet)
    elif ledger.in_the_way is not None:
        tell(
            f"{ledger.in_the_way}: starting anew. Earlier runs are kept in {ledger.aside}.", quiet=call.quiet
        )
    with on_device(call.device, quiet=call.quiet) as (own, ranks, line):
        from bnoise_cli.measurement.sweeping.sweep import SweepSession
        from bnoise_cli.results.branch import branch_result
        from bnoise_cli.results.sweep import sweep_result

        timed = call.spec.config.sweep.branch is None
        make = sweep_result if timed else branch_result
        session = SweepSession(call.spec, own, ledger, ranks)
        found = measure(session, lambda run: make(run, call.spec), call.target, line, timed=timed)
    return finish(found, call)
