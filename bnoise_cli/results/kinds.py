"""Every kind of result."""

from __future__ import annotations

from bnoise_cli.results.branch import BRANCH
from bnoise_cli.results.probe import PROBE
from bnoise_cli.results.result import Kind
from bnoise_cli.results.sweep import SWEEP

#: By name, in order of trust: what training measures outranks what a probe predicts.
KINDS: dict[str, Kind] = {kind.name: kind for kind in (SWEEP, PROBE, BRANCH)}
#: The commands that measure.
COMMANDS = tuple(dict.fromkeys(kind.command for kind in (PROBE, SWEEP, BRANCH)))
