"""A small chart of the measurement, made of characters."""

from __future__ import annotations

import math

from bnoise_cli.numbers import count, significant
from bnoise_cli.report.document import Drawing
from bnoise_cli.results.probe import ProbeResult

_HEIGHT = 9
_WIDEST = 72
#: Columns to the left of the axis, for the numbers beside it.
_MARGIN = 10


def improvement_chart(result: ProbeResult, width: int) -> Drawing | None:
    """ΔL_opt against B on logarithmic axes: measured points, the law, B_noise; None if there is nothing to draw."""
    points = [p for p in result.points if p.batch_size is not None and p.improvement > 0]
    scale, limit = result.noise_scale.value, result.max_improvement.value
    columns = min(width, _WIDEST) - _MARGIN - 2
    if len(points) < 2 or scale is None or limit is None or columns < 30:
        return None
    sizes = [float(point.batch_size or 0) for point in points]
    left, right = min(*sizes, scale) / 1.5, max(*sizes, scale) * 1.5
    gains = [point.improvement for point in points]
    bottom, top = min(*gains, limit / (1 + scale / left)), max(*gains, limit / (1 + scale / right))

    def column(size: float) -> int:
        return round((columns - 1) * _part(size, left, right))

    def row(gain: float) -> int:
        return round((_HEIGHT - 1) * (1 - min(max(_part(gain, bottom, top), 0.0), 1.0)))

    cells = [[" "] * columns for _ in range(_HEIGHT)]
    for line in cells:
        line[column(scale)] = "┊"
    for x in range(columns):
        size = left * (right / left) ** (x / (columns - 1))
        cells[row(limit / (1 + scale / size))][x] = "·"
    for size, gain in zip(sizes, gains, strict=True):
        cells[row(gain)][column(size)] = "●"
    lines = [
        f"{significant(top if y == 0 else bottom) if y in (0, _HEIGHT - 1) else '':>{_MARGIN}} │{''.join(line)}"
        for y, line in enumerate(cells)
    ]
    below = [" "] * columns
    for size in (sizes[0], sizes[-1]):
        _write(below, column(size), count(size))
    _write(below, column(scale), f"B_noise {significant(scale)}")
    lines.append(f"{'':>{_MARGIN}} └{'─' * columns}")
    lines.append(f"{'':>{_MARGIN}}  {''.join(below).rstrip()}")
    head = "ΔL_opt (nats): ● measured, · law"
    return Drawing(lines=(f"{'':>{_MARGIN}}  {head}", *lines))


def _part(value: float, low: float, high: float) -> float:
    """Position of a value on a logarithmic axis from `low` to `high`, 0 to 1. Ratios of the numbers could overflow."""
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def _write(line: list[str], middle: int, text: str) -> None:
    """Write `text` centred at a column, unless the place is taken."""
    start = min(max(0, middle - len(text) // 2), len(line) - len(text))
    if all(cell == " " for cell in line[max(0, start - 1) : start + len(text) + 1]):
        line[start : start + len(text)] = text
