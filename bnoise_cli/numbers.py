"""Numbers formatted for people."""

from __future__ import annotations

import math


def significant(value: float | None, digits: int = 3) -> str:
    """`value` to a few significant digits, with thousands separators; with an exponent if it is very small or large."""
    if value is None or not math.isfinite(value):
        return "?"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent > 11:
        return f"{value:.{digits - 1}e}"
    rounded = round(value, digits - 1 - exponent)
    if abs(rounded) >= 10 ** (exponent + 1):
        exponent += 1
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}"


def within(value: float, low: float, high: float) -> str:
    """A value with its limits."""
    return f"{significant(value)} ({significant(low)} to {significant(high)})"


def count(value: float) -> str:
    """A whole number, thousands separated."""
    return f"{round(value):,}"


def tokens(value: float) -> str:
    """A number of tokens. From ten million on it is abbreviated: 10.5M, 1.50B."""
    if value < 1e7:
        return count(value)
    scale, letter = next((s, n) for s, n in ((1e12, "T"), (1e9, "B"), (1e6, "M")) if value >= s)
    return f"{significant(value / scale)}{letter}"


def percent(part: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * part:.{0 if part >= 0.095 else 1}f}%"


def seconds(value: float) -> str:
    """A time in a readable unit, from µs to days."""
    if value == 0:
        return "0 s"
    if value < 0.995:
        return f"{significant(1e6 * value)} µs" if value < 9.995e-4 else f"{significant(1e3 * value)} ms"
    if value < 100:
        return f"{value:.{1 if value < 9.95 else 0}f} s"
    minutes = value / 60
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 5760 else f"{minutes / 1440:.1f} days"


def size(value: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def counted(number: int, what: str = "example") -> str:
    """`1 example`, `2 examples`."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"
