"""A result of the probe in words and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnoise_cli.advice.reason import at_critical
from bnoise_cli.amounts import Amounts
from bnoise_cli.measurement.outcome import HorizonProgress, Progress, WarmupProgress
from bnoise_cli.numbers import count, percent, seconds, significant, within
from bnoise_cli.records import TrajectoryPoint
from bnoise_cli.report.chart import improvement_chart
from bnoise_cli.report.document import Grid, Section, Sentence, Tone
from bnoise_cli.report.kinds import Curves, ReportKind, Stretch
from bnoise_cli.report.plots.horizon import HORIZON
from bnoise_cli.report.plots.probe import IMPROVEMENT, SPEED
from bnoise_cli.report.plots.tradeoff import TRADEOFF
from bnoise_cli.report.plots.trajectory import TRAJECTORY
from bnoise_cli.report.words.advice import advice_sections, closing_sections
from bnoise_cli.report.words.horizon import below_the_headline, horizon_progress, horizon_sections
from bnoise_cli.report.words.related import AT_BEST_RATES, after
from bnoise_cli.report.words.verdict import answer_tone, verdict_section
from bnoise_cli.results.probe import ProbeResult

#: A schedule that saves a smaller share of the steps and examples is not advised; merely chosen.
_WORTH = 0.05


def probe_sections(result: ProbeResult) -> list[Section]:
    """The verdict, the answer, the advice, the trade-off, what was measured, the doubts, and what it cost."""
    ahead = list(horizon_sections(result, result.horizon)) if result.horizon is not None else []
    sections = [verdict_section(result), _answer(result), *ahead[:-1], *advice_sections(result), *ahead[-1:]]
    if result.points:
        title = "Measured" if result.horizon is None else "One step"
        sections.append(Section(title=title, parts=[_points(result)], detail=True))
    if result.trajectory:
        along = along_training(result.trajectory, result.amounts)
        sections.append(Section(title="Along training", parts=[along, *_schedule(result)]))
    return sections + closing_sections(result, _cost(result))


def _answer(result: ProbeResult) -> Section:
    critical = result.critical_batch_size
    headline = Sentence(result.amounts.interval(critical), answer_tone(result))
    return Section(
        title="Critical batch size", headline=headline, parts=list(_about_the_answer(result)), detail=True
    )


def _about_the_answer(result: ProbeResult) -> Iterator[Sentence]:
    critical, noise, amounts = result.critical_batch_size, result.noise_scale, result.amounts
    if (law := critical.known) is not None:
        planned = result.plan.training.batch_size
        yield Sentence(f"Training at this batch size takes {at_critical(law)}.")
        yield Sentence(
            f"The planned batch of {amounts.count(planned)} takes {law.steps(planned):.2f} times "
            f"the fewest steps and {law.examples(planned):.2f} times the fewest examples."
        )
    if result.horizon is not None:
        yield from below_the_headline(result, result.horizon)
    if result.trajectory:
        yield Sentence("From several points of training, weighted by the progress made at each.")
    else:
        at = "one point" if result.step is None else f"step {count(result.step)}"
        yield Sentence(f"At {at} of training; it changes along the way, as probe.at_steps shows.")
    if noise.exact is not None:
        beside = f"; measured {significant(noise.value)}" if noise.value is not None else ""
        yield Sentence(f"Exact noise scale of this task: {significant(noise.exact)}{beside}", Tone.KNOWN)
    if result.points:
        yield Sentence(
            f"Simple noise scale tr(Σ)/|G|²: {amounts.interval(result.simple_noise_scale)}", Tone.DETAIL
        )


def _points(result: ProbeResult) -> Grid:
    amounts = result.amounts
    grid = Grid(
        columns=("batch\nsize", "tokens", "best step\ngains", "law", "best\nstep size", "gradient\nerror"),
        rows=tuple(
            (
                "∞" if point.batch_size is None else count(point.batch_size),
                amounts.tokens(point.batch_size),
                f"{significant(point.improvement)} ± {significant(point.std_error, 2)}",
                significant(point.fitted),
                significant(point.step_size),
                "?" if point.gradient_error is None else percent(point.gradient_error),
            )
            for point in result.points
        ),
    )
    return grid.without_empty("tokens")


def along_training(trajectory: Sequence[TrajectoryPoint], amounts: Amounts) -> Grid:
    """The probed points of a run, with the batch sizes of its schedule if it has one."""
    plain = Amounts()
    batches = ("adaptive batch", "batch in\ntokens")
    grid = Grid(
        columns=("step", "loss", "noise scale", "in\ntokens", *batches),
        rows=tuple(
            (
                count(point.step),
                significant(point.loss),
                plain.interval(point.noise_scale),
                amounts.tokens(point.noise_scale.value),
                _adaptive_batch(point),
                amounts.tokens(point.batch_size),
            )
            for point in trajectory
        ),
        spare=("batch in\ntokens", "in\ntokens"),
        words=frozenset({"noise scale", "adaptive batch"}),
    )
    return grid.without_empty("in\ntokens", *batches)


def _adaptive_batch(point: TrajectoryPoint) -> str:
    """The batch size of the schedule at a point, with its limits; empty without a schedule."""
    limits = point.batch_size_limits
    if point.batch_size is None or limits is None or limits.high is None:
        return ""
    return within(point.batch_size, limits.low, limits.high)


def _schedule(result: ProbeResult) -> Iterator[Sentence]:
    """What the schedule of the table would take, and whether it is worth having."""
    found = result.schedule
    if found is None:
        return
    gain = 1 - found.steps_ratio / 2
    worth = ": not worth the trouble" if gain < _WORTH else ""
    yield Sentence(
        f"A schedule of these batch sizes would take {found.steps_ratio:.2f} times the fewest steps and examples "
        f"instead of 2 (γ = {found.gamma:.2f}), {percent(gain)} less of both{worth}."
    )
    yield Sentence(
        "Adaptive batch sqrt(r·B_noise), with r = B_crit examples worth one step (arXiv:1812.06162 appendix D); the "
        "learning rate has to follow it.",
        Tone.DETAIL,
    )


def _cost(result: ProbeResult) -> str:
    cost, made, amounts = result.cost, result.provenance, result.amounts
    warmup = f", after {seconds(cost.warmup_seconds)} of warm-up" if cost.warmup_seconds > 0.05 else ""
    timing = f" and {seconds(result.throughput.seconds)} of timing steps" if result.throughput else ""
    return (
        f"{seconds(cost.seconds)}{timing}{warmup}; {amounts.count(cost.gradient_examples)} gradient and "
        f"{amounts.count(cost.evaluation_examples)} evaluation examples in {made.replicates} replicates on "
        f"{made.device}; dataset of {amounts.count(made.dataset_length)}."
    )


def probe_progress(progress: Progress | HorizonProgress | WarmupProgress) -> str:
    """How far a probe has come."""
    if isinstance(progress, HorizonProgress):
        return horizon_progress(progress)
    if isinstance(progress, WarmupProgress):
        start = f" from {progress.start}" if progress.start is not None else ""
        return f"warm-up training{start}, step {progress.step} of {progress.of}"
    clock = f"{progress.seconds:.0f} s of at most {progress.budget_seconds:.0f} s"
    if progress.analysis is None:
        doing = "looking for the range of batch sizes" if progress.phase == "pilot" else "first replicates"
        return f"{doing}, {clock}"
    scale = progress.analysis.noise_scale
    if scale.value is None:
        running = f"noise scale at least {significant(scale.low)}"
    else:
        running = (
            f"noise scale {significant(scale.value)} ({significant(scale.low)} to {significant(scale.high)}, "
            f"±{percent(progress.analysis.half_width_by_chance)} by chance, wanted ±{percent(progress.precision)})"
        )
    return f"{running}, {progress.replicates} replicates, {clock}"


def _curves(result: ProbeResult) -> Curves:
    for point in result.points:
        if point.batch_size is not None:
            names = ("improvement", "std_error", "fitted")
            yield point.batch_size, {f"points/{name}": getattr(point, name) for name in names}


def _stretch(result: ProbeResult) -> Stretch:
    if result.horizon is not None:
        ahead = f"looks {count(result.horizon.curve[-1].steps)} steps of a large batch ahead"
        return Stretch(ahead, after(result.step), AT_BEST_RATES)
    if len(result.trajectory) > 1:
        return Stretch(f"joins {count(len(result.trajectory))} points of training")
    return Stretch("looks at one step alone", after(result.step))


REPORT = ReportKind[ProbeResult](
    sections=probe_sections,
    stretch=_stretch,
    chart=improvement_chart,
    panels=(HORIZON, TRADEOFF, IMPROVEMENT, SPEED, TRAJECTORY),
    curves=_curves,
    missing="batch size gave a measurable improvement",
    progress=probe_progress,
)
