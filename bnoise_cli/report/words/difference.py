"""What a batch size saves and costs, as differences from another one."""

from __future__ import annotations

from bnoise_cli.numbers import percent
from bnoise_cli.records import TradeoffRow


def difference(row: TradeoffRow, planned: TradeoffRow) -> str:
    """`9% more time and 16% fewer examples`, to be followed by `than`."""
    return difference_of(
        examples=row.examples_ratio / planned.examples_ratio,
        time=_ratio(row.relative_time, planned.relative_time),
        cost=_ratio(row.relative_cost, planned.relative_cost),
    )


def difference_of(*, examples: float, time: float | None, cost: float | None = None) -> str:
    """The same, of the ratios of examples, time and device time; None: unknown."""
    parts = []
    if time is not None:
        parts.append(_part(time, "less time", "more time"))
    if cost is not None:
        device_time = _part(cost, "less device time", "more device time")
        if not parts or device_time.replace("device ", "") != parts[0]:
            parts.append(device_time)
    parts.append(_part(examples, "fewer examples", "more examples"))
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other


def _part(ratio: float, less: str, more: str) -> str:
    return f"{percent(1 - ratio)} {less}" if ratio < 1 else f"{percent(ratio - 1)} {more}"
