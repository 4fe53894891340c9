"""The advice of any result, in words and a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bnoise_cli.maths.step_time import StepTimes
from bnoise_cli.numbers import count, percent, seconds, significant, size
from bnoise_cli.records import Doubt, LimitedBy, Limits, Recommendation, Role, Throughput, TradeoffRow
from bnoise_cli.report.document import Grid, Part, Remark, Section, Sentence, Tone
from bnoise_cli.report.words.difference import difference
from bnoise_cli.report.words.verdict import undermining
from bnoise_cli.results.result import Result

#: Rows of the trade-off that are shown; the file has them all.
_MOST_ROWS = 12
_LIMITED: dict[LimitedBy, str] = {
    "memory": "more does not fit",
    "time": "more was not tried in the time",
    "need": "more has no use here",
    "failure": "more failed",
}
_ROLES: dict[Role, str] = {"max_compute_overhead": "overhead limit"}


def advice_sections(result: Result) -> list[Section]:
    """The recommendation, other choices, the trade-off and step times; a result without them has no such sections."""
    sections = []
    found, timed = result.recommendation, result.throughput
    if found is not None:
        sections.append(_advice(result, found))
        sections.append(Section(title="Choices", parts=_choices(result, found), detail=True))
    elif result.alternatives:
        none = Sentence("none meets the limits of `advice:`", Tone.UNSURE)
        sections.append(Section(title="Recommended batch", headline=none, parts=_choices(result)))
    if result.tradeoff:
        ranges = Sentence("ranges over the interval of the critical batch size", Tone.DETAIL)
        sections.append(Section(title="Trade-off", headline=ranges, parts=[_tradeoff(result)]))
    if found is not None and timed is not None:
        sections.append(_step_time(timed, found))
    return sections


def remarks(doubts: Sequence[Doubt]) -> list[Part]:
    """Doubts as they are shown everywhere."""
    return [Remark(doubt.code, doubt.finding + ".", doubt.remedy) for doubt in doubts]


def closing_sections(result: Result, cost: str) -> list[Section]:
    """The doubts about a result, and what it cost."""
    doubted = [Section(title="Reasons for doubt", parts=remarks(result.doubts))] if result.doubts else []
    return [*doubted, Section(title="Cost", headline=Sentence(cost, Tone.DETAIL))]


def _advice(result: Result, found: Recommendation) -> Section:
    amounts = result.amounts
    devices = result.plan.training.world_size
    tone = Tone.UNSURE if undermining(result) else Tone.GOOD
    headline = Sentence(f"{amounts.examples(found.batch_size)}, {_setting(found, devices)}", tone)
    rate = ":" if found.learning_rate is None else f" {found.learning_rate:g},"
    rule = Sentence(f"Learning rate{rate} {found.learning_rate_rule}.", Tone.DETAIL)
    return Section(title="Recommended batch", headline=headline, parts=[Sentence(found.reason), rule])


def _choices(result: Result, *recommended: Recommendation) -> list[Part]:
    """A sentence on each named point of the trade-off: its setting, and what a run takes."""
    amounts = result.amounts
    devices = result.plan.training.world_size
    return [
        Sentence(
            f"{role_words(each.roles).capitalize()}: {amounts.count(each.batch_size)}, {_setting(each, devices)}; "
            f"{_price_of(each, result)}."
        )
        for each in (*recommended, *result.alternatives)
    ]


def _price_of(found: Recommendation, result: Result) -> str:
    """Time and money of a run at this batch size, if the plan has a length, and its difference from the planned run."""
    row, plan, parts = found.row, result.plan.training, []
    if row.run_seconds is not None:
        price = f" at a price of {significant(row.run_price)}" if row.run_price is not None else ""
        parts.append(f"{seconds(row.run_seconds)}{price}")
    planned = next((row for row in result.tradeoff if row.batch_size == plan.batch_size), None)
    if (found.batch_size, found.world_size) == (plan.batch_size, plan.world_size):
        parts.append("the planned batch")
    elif planned is not None:
        parts.append(f"{difference(row, planned)} than the planned {result.amounts.count(plan.batch_size)}")
    return ", ".join(parts)


def _step_time(timed: Throughput, found: Recommendation) -> Section:
    """What was timed, and how much of the recommended step waits for other devices."""
    together, each = "", ""
    if timed.parallel is not None:
        together = f" on {count(timed.world_size)} devices under {timed.parallel.upper()}"
        each = " of each"
    line = (
        f"t₀ + t₁·B{together}: {seconds(timed.fixed_seconds)} + {seconds(timed.seconds_per_example)} "
        f"per example{each}, within {percent(timed.worst_misfit)} of what was measured"
    )
    largest = timed.largest_micro_batch_size
    peak = next((s.peak_memory_bytes for s in timed.step_times if s.micro_batch_size == largest), None)
    memory = f" in {size(peak)}" if peak is not None else ""
    limited = _LIMITED[timed.limited_by]
    parts = [
        *([Sentence(exchange)] if (exchange := _exchange(timed, found)) else []),
        Sentence(f"Largest micro-batch {count(largest)}{memory}: {limited}."),
    ]
    return Section(title="Step time", headline=Sentence(line), parts=parts, detail=True)


def _exchange(timed: Throughput, found: Recommendation) -> str:
    """How much of the recommended step waits for the exchange of gradients. FSDP exchanges all along: unknown."""
    if timed.parallel == "fsdp":
        return "The exchange of weights and gradients is in it."
    if 1 in (timed.world_size, found.world_size) or not found.row.step_seconds:
        return ""
    waits = StepTimes(timed).exchange_seconds(found.micro_batch_size)
    part = percent(waits / found.row.step_seconds)
    return f"The recommended step waits {seconds(waits)} ({part}) for the exchange of gradients."


def _tradeoff(result: Result) -> Grid:
    notes, amounts = _notes(result), result.amounts
    rows = _shown(result.tradeoff, set(notes))
    in_tokens = amounts.tokens_per_example is not None
    columns: list[tuple[str, Callable[[TradeoffRow], str]]] = [
        ("batch\nsize", lambda row: count(row.batch_size)),
        *([("tokens", lambda row: amounts.tokens(row.batch_size))] if in_tokens else []),
        ("steps\n/ fewest", lambda row: _range(row.steps_limits)),
        ("examples\n/ fewest", lambda row: _range(row.examples_limits)),
    ]
    if any(row.step_seconds is not None for row in rows):
        columns += [
            (
                "micro-batch",
                lambda row: f"{count(row.micro_batch_size or 0)} × {count(row.accumulation_steps or 0)}",
            ),
            ("step\ntime", lambda row: seconds(row.step_seconds or 0.0)),
            ("examples\n/ s", lambda row: significant(row.examples_per_second)),
            *([("tokens\n/ s", lambda row: amounts.tokens(row.examples_per_second))] if in_tokens else []),
            ("time\n/ fastest", lambda row: _range(row.relative_time_limits)),
        ]
        if result.plan.training.world_size > 1:
            columns.append(("cost\n/ least", lambda row: f"{row.relative_cost or 0.0:.2f}"))
    if any(row.run_seconds is not None for row in rows):
        columns.append(("run\ntime", lambda row: seconds(row.run_seconds or 0.0)))
    if any(row.run_price is not None for row in rows):
        columns.append(("run\nprice", lambda row: significant(row.run_price)))
    columns.append(("", lambda row: ", ".join(notes.get(row.batch_size, []))))
    return Grid(
        columns=tuple(name for name, _ in columns),
        rows=tuple(tuple(cell(row) for _, cell in columns) for row in rows),
        spare=("examples\n/ s", "tokens\n/ s", "micro-batch", "step\ntime"),
        words=frozenset({""}),
        strong=frozenset(
            i for i, row in enumerate(rows) if {"planned", "recommended"} & set(notes.get(row.batch_size, []))
        ),
        detail=_between_doublings(rows, set(notes)),
    )


def _between_doublings(rows: Sequence[TradeoffRow], marked: set[int]) -> frozenset[int]:
    """Positions of the rows that are neither marked nor at least twice the last batch size that is."""
    between, next_size = set(), 0
    for i, row in enumerate(rows):
        if row.batch_size >= next_size:
            next_size = 2 * row.batch_size
        elif row.batch_size not in marked:
            between.add(i)
    return frozenset(between)


def _notes(result: Result) -> dict[int, list[str]]:
    """Batch size → the remarks beside its row of the trade-off, such as `planned` or `recommended`."""
    plan = result.plan.training
    notes: dict[int, list[str]] = {plan.batch_size: ["planned"]}
    for found in (result.recommendation, *result.alternatives):
        if found is not None and found.world_size == plan.world_size:
            name = "recommended" if found is result.recommendation else role_words(found.roles)
            notes.setdefault(found.batch_size, []).append(name)
    return notes


def _range(limits: Limits | None) -> str:
    """What a figure is over the interval of B_crit."""
    if limits is None or limits.high is None:
        return "?"
    low, high = f"{limits.low:.2f}", f"{limits.high:.2f}"
    return low if low == high else f"{low}–{high}"


def _shown(rows: Sequence[TradeoffRow], marked: set[int]) -> list[TradeoffRow]:
    """The rows that are shown: all marked ones, and others at even distances."""
    low, high = min(marked) / 4, max(marked) * 4
    near = [row for row in rows if low <= row.batch_size <= high]
    stride = 1
    while True:
        kept = [row for i, row in enumerate(near) if i % stride == 0 or row.batch_size in marked]
        if len(kept) <= _MOST_ROWS + len(marked) or stride > len(near):
            return kept
        stride *= 2


def _setting(found: Recommendation, planned_devices: int) -> str:
    rate = f", learning rate {found.learning_rate:g}" if found.learning_rate is not None else ""
    return _split(found, planned_devices) + rate


def _split(found: Recommendation, planned_devices: int) -> str:
    """How a batch is made up."""
    parts = [f"micro-batch {count(found.micro_batch_size)}"]
    if found.accumulation_steps > 1:
        parts.append(f"{count(found.accumulation_steps)} accumulation steps")
    if planned_devices > 1:
        parts.append(f"{count(found.world_size)} device{'s' if found.world_size > 1 else ''}")
    return " × ".join(parts) if len(parts) > 1 else "in one micro-batch"


def role_words(roles: Sequence[Role]) -> str:
    """Names of the points of the trade-off."""
    return ", ".join(_ROLES.get(role, role) for role in roles)
