"""From a session to a stored and printed result: what the probe and the sweep have in common."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bnoise_cli.api.measure import Found
from bnoise_cli.cli.exports import Outputs, result_name, tell_unmet
from bnoise_cli.errors import BnoiseError, ExitCode
from bnoise_cli.launch import here
from bnoise_cli.report.document import Section
from bnoise_cli.report.export.as_json import JSON
from bnoise_cli.report.progress import LOADING, ProgressLine
from bnoise_cli.results.related import beside

if TYPE_CHECKING:
    from bnoise_cli.cli.command import Call
    from bnoise_cli.measurement.ranks import Ranks


@contextmanager
def on_device(device: str, *, quiet: bool) -> Iterator[tuple[Any, Ranks, ProgressLine]]:
    """Load torch, choose this rank's `torch.device` and meet the other ranks; user code may run in the block.

    Args:
        device: as the option --device names it.
        quiet: show no progress.
    """
    from bnoise_cli.cli.streams import around_user_code

    with around_user_code(), ProgressLine(quiet=quiet) as line:
        line.say(LOADING)
        from bnoise_cli.measurement.building.build import choose_device
        from bnoise_cli.measurement.meeting import joined

        with joined(lambda: choose_device(device)) as (own, ranks):
            yield own, ranks, line


def show_plan(plan: Any, sections: Sequence[Section], outputs: Outputs) -> ExitCode:
    """Print what a dry run found: a dataclass, or what there is to say about it."""
    from bnoise_cli.cli.streams import show_json, show_sections

    if outputs.value(JSON):
        show_json(asdict(plan))
    else:
        show_sections(sections)
    return ExitCode.DONE


def finish(found: Found[Any], call: Call) -> ExitCode:
    """Make and print everything that was asked for; the exit code says how the measurement ended."""
    from bnoise_cli.cli.streams import show_json, tell

    if here().is_follower:
        return ExitCode.INTERRUPTED if found.interrupted else ExitCode.DONE
    target, outputs = call.target, call.outputs
    named = [(result_name(target.path), found.result)]
    if found.lost is not None:
        show_json(found.result.to_json())
        tell(f"bnoise: {found.lost} The result is printed instead; keep it from there.")
        return ExitCode.RUN_FAILED
    made, failed = outputs.write(named)
    code = _code(found, failed)
    rest = ""
    try:
        others = [(str(target.named(path)), other) for path, other in beside(target.path, found.result)]
        if outputs.print(named, beside=others, quiet=call.quiet, short=not call.verbose):
            rest = f"\n`bnoise report {shlex.quote(str(target.kept))}` shows the whole report."
    except BnoiseError as error:
        failed.append(f"bnoise: {error}")
        code = code or error.exit_code
    tell(" ".join([found.kept, *made]) + rest, quiet=call.quiet or outputs.value(JSON) is not None)
    for sentence in failed:
        tell(sentence)
    if found.failure is not None:
        tell(f"bnoise: {found.failure}")
    return code


def _code(found: Found[Any], failed: Sequence[str]) -> ExitCode:
    if found.interrupted:
        return ExitCode.INTERRUPTED
    if found.failure is not None or failed:
        return ExitCode.RUN_FAILED
    if not found.result.resolved or found.result.lacks_horizon:
        return ExitCode.CANNOT_TELL
    return ExitCode.WRONG_CALL if tell_unmet([found.result]) else ExitCode.DONE
