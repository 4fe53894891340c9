"""`bnoise probe`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnoise_cli.cli.command import Call, measuring_command
from bnoise_cli.errors import ExitCode
from bnoise_cli.result_file import ResultFile
from bnoise_cli.spec.load import Spec

if TYPE_CHECKING:
    from bnoise_cli.api.measure import Found
    from bnoise_cli.results.probe import ProbeResult

#: Follows the name of the command in the example of its help.
EXAMPLE = "config.yaml --budget 2m --plot noise.svg"


@measuring_command(
    budget_help="Time for the measurement after the warm-up, as in 60s or 5m.",
    unfinished="anything was measured",
)
def probe(call: Call) -> ExitCode:
    """Measure the critical batch size, time training steps, and recommend a batch size and a learning rate.

    A config names code that is imported and run: an untrusted config is untrusted code.
    """
    if call.dry_run:
        return _dry_run(call)
    from bnoise_cli.cli.measuring import finish

    found = measure_now(call.spec, call.device, call.target, call.quiet)
    return finish(found, call)


def _dry_run(call: Call) -> ExitCode:
    from bnoise_cli.cli.measuring import on_device, show_plan
    from bnoise_cli.report.words.dry_run import dry_run_sections

    with on_device(call.device, quiet=call.quiet) as (own, ranks, _):
        from bnoise_cli.measurement.probing.dry_run import dry_run
        from bnoise_cli.measurement.probing.session import Session

        plan = dry_run(Session(call.spec, own, ranks))
    return show_plan(plan, dry_run_sections(plan), call.outputs)


def measure_now(spec: Spec, device: str, target: ResultFile, quiet: bool) -> Found[ProbeResult]:
    """Probe, and keep the result in `target`."""
    from bnoise_cli.api.measure import measure
    from bnoise_cli.cli.measuring import on_device

    with on_device(device, quiet=quiet) as (own, ranks, line):
        from bnoise_cli.measurement.probing.session import Session
        from bnoise_cli.results.probe import probe_result

        return measure(
            Session(spec, own, ranks), lambda run: probe_result(run, spec), target, line, timed=True
        )
