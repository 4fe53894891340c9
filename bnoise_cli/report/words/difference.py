"""What a batch size saves and costs, as differences from another one."""

from __future__ import annotations

from bnoise_cli.numbers import percent
from bnoise_cli.records import TradeoffRow


def difference(row: TradeoffRow, planned: TradeoffRow) -> str:
    """`9% more time and 16% fewer examples`, to be followed by `than`."""
    parts = []
    if row.relative_time is not None and planned.relative_time is not None:
        parts.append(_part(row.relative_time / planned.relative_time, "less time", "more time"))
    if row.relative_cost is not None and planned.relative_cost is not None:
        cost = _part(row.relative_cost / planned.relative_cost, "less device time", "more device time")
        if not parts or cost.replace("device ", "") != parts[0]:
            parts.append(cost)
    parts.append(_part(row.examples_ratio / planned.examples_ratio, "fewer examples", "more examples"))
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _part(ratio: float, less: str, more: str) -> str:
    return f"{percent(1 - ratio)} {less}" if ratio < 1 else f"{percent(ratio - 1)} {more}"
