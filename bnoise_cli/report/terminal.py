"""A result as text for a terminal, a pipe or a log."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnoise_cli.maths.tradeoff import tradeoff_row
from bnoise_cli.measurement.outcome import DryRun
from bnoise_cli.numbers import count, percent, seconds, significant, size
from bnoise_cli.records import Doubt, Estimate, Point, ProbeResult

#: What a terminal without UTF-8 is shown instead.
_ASCII = str.maketrans(
    {
        "Δ": "d", "×": "x", "±": "+-", "−": "-", "∞": "inf", "≥": ">=", "≤": "<=", "²": "^2", "½": "1/2",
        "Σ": "S", "ε": "e", "θ": "theta", "·": "*", "…": "...", "→": "->", "‖": "|", "α": "alpha", "β": "beta",
    }
)  # fmt: skip


def render(lines: Iterable[Text | Table], *, width: int, color: bool, encoding: str) -> str:
    """Lay text and tables out, in what the terminal can show."""
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        color_system="auto" if color else None,
        highlight=False,
        emoji=False,
        markup=False,
    )
    for line in lines:
        console.print(line, no_wrap=False)
    text = "\n".join(line.rstrip() for line in buffer.getvalue().split("\n"))
    return text if can_show(text, encoding) else to_ascii(text)


def can_show(text: str, encoding: str) -> bool:
    """Whether an encoding has all the characters of a text."""
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def to_ascii(text: str) -> str:
    """The same text in plain ASCII."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def probe_report(result: ProbeResult, width: int) -> list[Text | Table]:
    """The short answer, the table of batch sizes, the doubts, and what it cost."""
    parts: list[Text | Table] = [*_answer(result)]
    if result.points:
        parts += [Text(), _table(result, narrow=width < _NARROW)]
    if result.trajectory:
        parts += [Text(), _trajectory(result)]
    if result.doubts:
        parts += [Text(), *_doubts(result.doubts)]
    parts += [Text(), _cost(result)]
    return parts


def _answer(result: ProbeResult) -> list[Text]:
    critical = result.critical_batch_size
    lines = [
        Text.assemble(
            ("Critical batch size  ", "bold"),
            (_interval(critical), "bold green" if critical.high else "bold yellow"),
        )
    ]
    if critical.value is not None:
        lines.append(
            Text("  Training at this batch size takes twice the fewest steps and twice the fewest examples.")
        )
    planned = result.config["training"]["batch_size"]
    if critical.value is not None:
        row = tradeoff_row(planned, critical.value)
        lines.append(
            Text(
                f"  The planned batch of {count(planned)} takes {row.steps_ratio:.2f} times the fewest steps "
                f"and {row.examples_ratio:.2f} times the fewest examples."
            )
        )
    if critical.basis == "trajectory":
        lines.append(Text("  From several points of training, weighted by the progress made at each."))
    else:
        [step] = result.config["probe"]["at_steps"] or [result.config["probe"]["warmup_steps"]]
        lines.append(
            Text(f"  At step {count(step)} of training; it changes along the way, as probe.at_steps shows.")
        )
    noise = result.noise_scale
    if noise.exact is not None:
        beside = f"; measured {significant(noise.value)}" if noise.value is not None else ""
        lines.append(Text(f"  Exact noise scale of this task: {significant(noise.exact)}{beside}", "cyan"))
    lines.append(Text(f"  Simple noise scale tr(Σ)/|G|²: {_interval(result.simple_noise_scale)}", "dim"))
    return lines


def _interval(estimate: Estimate) -> str:
    level = f"{round(100 * estimate.confidence)}% interval"
    if estimate.value is None or estimate.high is None:
        return f"cannot tell (at least {significant(estimate.low)} examples, no upper bound)"
    limits = f"{significant(estimate.low)} to {significant(estimate.high)}"
    return f"{significant(estimate.value)} examples ({level} {limits})"


def _table(result: ProbeResult, *, narrow: bool) -> Table:
    value = result.noise_scale.value
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown = [column for column in _COLUMNS if not narrow or column in _NARROW_COLUMNS]
    for column in shown:
        table.add_column(column, justify="right")
    for point in result.points:
        cells = dict(zip(_COLUMNS, _row(point, value), strict=True))
        table.add_row(*(cells[column] for column in shown))
    return table


_COLUMNS = (
    "batch\nsize", "best step\ngains", "law", "best\nstep size", "gradient\nerror", "speed\nof limit",
    "steps\n/ fewest", "examples\n/ fewest",
)  # fmt: skip
#: Below this many columns a terminal is shown only what a decision needs.
_NARROW = 84
_NARROW_COLUMNS = ("batch\nsize", "speed\nof limit", "steps\n/ fewest", "examples\n/ fewest")


def _row(point: Point, noise_scale: float | None) -> tuple[str, ...]:
    gain = f"{significant(point.improvement)} ± {significant(point.std_error, 2)}"
    error = "?" if point.gradient_error is None else percent(point.gradient_error)
    measured = (gain, significant(point.fitted), significant(point.step_size), error)
    if point.batch_size is None:
        return ("∞", *measured, "100%", "1.00", "∞")
    if noise_scale is None:
        return (count(point.batch_size), *measured, "?", "?", "?")
    row = tradeoff_row(point.batch_size, noise_scale)
    ratios = (percent(row.time_efficiency), f"{row.steps_ratio:.2f}", f"{row.examples_ratio:.2f}")
    return (count(point.batch_size), *measured, *ratios)


def _trajectory(result: ProbeResult) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("step", "loss", "noise scale"):
        table.add_column(name, justify="right" if name != "noise scale" else "left")
    for point in result.trajectory:
        table.add_row(count(point.step), significant(point.loss), _interval(point.noise_scale))
    return table


def _doubts(doubts: tuple[Doubt, ...]) -> list[Text]:
    lines = [Text("Reasons for doubt", "bold yellow")]
    for doubt in doubts:
        lines.append(Text.assemble(("  ! ", "yellow"), (f"{doubt.code}: ", "bold"), doubt.finding + "."))
        lines.append(Text(f"    {doubt.remedy}", "dim"))
    return lines


def _cost(result: ProbeResult) -> Text:
    cost, made = result.cost, result.provenance
    warmup = f", after {seconds(cost.warmup_seconds)} of warm-up" if cost.warmup_seconds > 0.05 else ""
    return Text(
        f"{seconds(cost.seconds)}{warmup}; {count(cost.gradient_examples)} gradient and "
        f"{count(cost.evaluation_examples)} evaluation examples in {made.replicates} replicates on {made.device}; "
        f"dataset of {count(made.dataset_length)}.",
        "dim",
    )


def dry_run_report(plan: DryRun) -> list[Text]:
    """What a probe would do and take, with nothing measured yet."""
    at = ", ".join(count(step) for step in plan.steps)
    memory = f"{size(plan.extra_bytes)} beside a training step of the micro-batch"
    if plan.peak_bytes is not None:
        memory += f" (peak of one such gradient {size(plan.peak_bytes)})"
    rows = (
        ("device", plan.device),
        ("trainable parameters", count(plan.parameters)),
        ("dataset", f"{count(plan.dataset_length)} examples"),
        (
            "micro-batch",
            f"{count(plan.micro_batch_size)} examples, {seconds(plan.seconds_per_example * plan.micro_batch_size)}",
        ),
        ("probe at step", at),
        ("warm-up", f"about {seconds(plan.warmup_seconds)}"),
        (
            "measurement",
            f"at most about {seconds(plan.budget_seconds)}, sooner when the interval is narrow enough",
        ),
        ("memory", memory),
    )
    return [Text("Dry run: everything builds, one batch ran.", "bold")] + [
        Text(f"  {name:<22}{value}") for name, value in rows
    ]
