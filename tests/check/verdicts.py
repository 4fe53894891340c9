"""Intervals of B_crit and doubts for the tests of the check."""

from __future__ import annotations

from bnoise_cli.records import Basis, CriticalBatchSize, Doubt


def critical(
    value: float | None, low: float, high: float | None, basis: Basis = "horizon"
) -> CriticalBatchSize:
    return CriticalBatchSize(value=value, low=low, high=high, basis=basis)


def doubt(code: str) -> Doubt:
    return Doubt(code=code, finding=f"the {code} is in doubt", remedy="Mend it.")
