"""Every reason to trust a result less, as data: code, finding, remedy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from bnoise_cli.measurement.outcome import Measurement, ProbeRun, StopReason
from bnoise_cli.numbers import count, percent, significant
from bnoise_cli.records import Doubt
from bnoise_cli.results.horizon import horizon_doubts
from bnoise_cli.results.task_doubts import about_the_task
from bnoise_cli.spec.schema import Config

if TYPE_CHECKING:
    from bnoise_cli.maths.analysis import Analysis, Design

#: A dataset smaller than this many noise scales limits what a large batch can be worth.
_SMALL_DATASET = 4
#: The fit and its quadratic witness disagree beyond this factor.
_WITNESS_FACTOR = 1.5
#: The noise scale is bracketed by measured batch sizes this many times on each side.
_BRACKET = 4
_MISFIT_P_VALUE = 0.01
#: A doubt is raised if slopes along the updates differ from the gradient's by more than this fraction.
_SLOPE_GAP = 0.1
_FEW_REPLICATES = 8
#: Doubts about one step alone. They do not concern a horizon, whose runs train with the momentum, the weight decay and
#: the clipping of the plan.
_OF_ONE_STEP = frozenset({
    "momentum", "weight_decay", "clipping", "not_quadratic", "negative_curvature", "law", "slope", "range", "rounding",
    "two_descents", "steps_too_short", "outgrown", "unresolved", "imprecise", "few_replicates", "below_one",
    "below_a_group", "small_dataset", "beyond_dataset",
})  # fmt: skip
#: A gain must be this many times the rounding error of one line's losses.
_ROUNDING_MARGIN = 10


def probe_doubts(run: ProbeRun, config: Config) -> tuple[Doubt, ...]:
    """The doubts about a probe, the gravest first."""
    last = run.points[-1]
    ending, answer = list(_about_the_end(run, last, config)), []
    if last.analysis is not None:
        answer = [*_about_the_answer(last, last.analysis), *_about_the_law(last.design, last.analysis)]
        answer += _about_the_dataset(run, last.analysis)
    if len(run.points) > 1:
        of_last = ("unresolved", "imprecise", "few_replicates")
        ending = [_at(last.step, doubt) if doubt.code in of_last else doubt for doubt in ending]
        answer = [_at(last.step, doubt) for doubt in answer]
    group = [*_about_small_groups(run, last)]
    ahead = horizon_doubts(last, is_off=config.probe.horizon == "off")
    found = (*ahead, *ending, *group, *about_the_task(run, last, config), *answer)
    if all(point.horizon is not None for point in run.points):
        found = tuple(doubt for doubt in found if doubt.code not in _OF_ONE_STEP)
    return found


def _at(step: int, doubt: Doubt) -> Doubt:
    """A doubt that names the step: of several points only the last is doubted in detail."""
    return replace(doubt, finding=f"at step {count(step)} {doubt.finding}")


def below_a_group(run: ProbeRun, point: Measurement) -> bool:
    """Whether the noise scale is smaller than a group. Batches are made of groups, so none that small was measured."""
    value = point.analysis.noise_scale.value if point.analysis is not None else None
    return value is not None and run.findings.group > 1 and value < run.findings.group


def _about_small_groups(run: ProbeRun, last: Measurement) -> Iterator[Doubt]:
    if below_a_group(run, last):
        yield Doubt(
            code="below_a_group",
            finding=f"the noise scale is less than a group of {count(run.findings.group)} examples, of which batches "
            "were made: more of them gain little, and with fewer examples the loss is another",
            remedy="Lower training.batch_size (over world_size) to what a device may take, and probe again.",
        )


def _about_the_end(run: ProbeRun, last: Measurement, config: Config) -> Iterator[Doubt]:
    if run.failure is not None:
        yield Doubt(
            code="failed",
            finding=f"the probe ended early: {str(run.failure).removesuffix('.')}",
            remedy="Mend the cause and probe again; the numbers here rest on what was measured before.",
        )
    if run.interrupted:
        yield Doubt(
            code="interrupted",
            finding="the probe was interrupted during its training runs"
            if last.horizon is not None
            else f"the probe was interrupted after {last.replicates} replicates",
            remedy="Run it to its end for a narrower interval.",
        )
    if last.analysis is None or last.analysis.noise_scale.high is None:
        low = last.analysis.noise_scale.low if last.analysis is not None else 0.0
        known = f"it is at least {significant(low)}" if low >= 1 else "nothing is known of it"
        longer = "Probe longer (--budget, probe.max_examples). If that changes nothing, the mean gradient here may be "
        longer += "zero: probe another point of training."
        other = "More data would not narrow it. Set probe.horizon: auto, run a sweep, or probe other weights."
        if last.enough_seconds is not None:
            longer = (
                f"The smallest probe takes about {last.enough_seconds:.0f} s: raise --budget to that or more."
            )
        misfit = last.analysis is not None and math.isfinite(last.analysis.half_width_by_chance)
        yield Doubt(
            code="unresolved",
            finding=f"the {'law misses the points by too much to' if misfit else 'data cannot'} tell the noise scale; "
            f"{known}",
            remedy=other if misfit else longer,
        )
    elif last.stop is StopReason.BUDGET:
        width = last.analysis.half_width_by_chance
        if width > config.probe.precision:
            yield Doubt(
                code="imprecise",
                finding=f"the budget ended at ±{percent(width)}, wider than the ±{percent(config.probe.precision)} "
                "asked for",
                remedy="Raise --budget or probe.max_examples; the width falls with the square root.",
            )
    if 0 < last.replicates < _FEW_REPLICATES:
        yield Doubt(
            code="few_replicates",
            finding=f"only {last.replicates} replicates: the interval itself is uncertain",
            remedy="Raise the budget, or name smaller probe.batch_sizes.",
        )
    if last.shortened_from is not None:
        yield Doubt(
            code="memory",
            finding=f"memory ran out at {last.shortened_from} examples at once; {last.micro_batch_size} were used",
            remedy="Nothing is wrong with the result; larger batches are accumulated from micro-batches.",
        )


def _about_the_answer(last: Measurement, analysis: Analysis) -> Iterator[Doubt]:
    value = analysis.noise_scale.value
    if last.design is None or value is None:
        return
    low, high = last.design.batch_sizes[0], last.design.batch_sizes[-1]
    if value < low * _BRACKET and low > 1:
        yield Doubt(
            code="range",
            finding=f"the noise scale {significant(value)} is near or below the smallest batch measured, {count(low)}",
            remedy="Name smaller probe.batch_sizes.",
        )
    if value > high / 2 and last.design.limit is None:
        yield Doubt(
            code="range",
            finding=f"the noise scale {significant(value)} is near or beyond the largest batch measured, {count(high)}",
            remedy="Raise the budget, or name larger probe.batch_sizes.",
        )
    if value < 1:
        yield Doubt(
            code="below_one",
            finding=f"the noise scale {significant(value)} is less than one example: examples hardly differ here",
            remedy="Any batch size spends more examples than it must; probe later in training, where it has grown.",
        )
    smallest = min(point.improvement for point in analysis.points)
    floor = last.rounding_floor
    if floor is not None and 0 < smallest < _ROUNDING_MARGIN * floor:
        yield Doubt(
            code="rounding",
            finding=f"one step at the smallest batch size gains {smallest:.1e}, and rounding moves the losses it is "
            f"the difference of by {floor:.1e}",
            remedy="Name larger probe.batch_sizes, or build the model in float64.",
        )


def _about_the_law(design: Design | None, analysis: Analysis) -> Iterator[Doubt]:
    fit, quadratic = analysis.fit, analysis.quadratic
    if fit.p_value is not None and fit.p_value < _MISFIT_P_VALUE:
        yield Doubt(
            code="law",
            finding=f"the points do not follow the law within their errors (p = {fit.p_value:.1g}, R² = "
            f"{'none' if fit.r_squared is None else format(fit.r_squared, '.3f')})"
            + ("; the interval allows for that" if analysis.law_holds else ": it does not hold here"),
            remedy="Read the measured points instead of the fit, or probe later in training.",
        )
    if quadratic.curvature <= 0:
        yield Doubt(
            code="negative_curvature",
            finding="the loss curves downward along its gradient: c/b has no meaning here",
            remedy="The fit to measured improvements stands; probe later in training for a second opinion.",
        )
    elif quadratic.ratio is not None and not 1 / _WITNESS_FACTOR <= quadratic.ratio <= _WITNESS_FACTOR:
        yield Doubt(
            code="not_quadratic",
            finding=f"the curvature alone gives {significant(quadratic.noise_scale)}, {quadratic.ratio:.2g} times "
            "the fit: the best step is too long for a quadratic picture",
            remedy="The fit to measured improvements stands; probe later in training for a second opinion.",
        )
    if design is not None and design.lower_at is not None:
        yield Doubt(
            code="two_descents",
            finding=f"along the gradient of {'the whole dataset' if design.limit else 'many examples'} the loss falls, "
            f"rises, and falls again until a step size of about {significant(design.lower_at)}, while the law assumes "
            "one best step",
            remedy="Clipped ratios, or a sharp loss beside a flat one, do that. Run a sweep, or probe other weights.",
        )
    if analysis.beyond_at:
        yield Doubt(
            code="steps_too_short",
            finding=f"at {_sizes(analysis.beyond_at)} the loss still falls at the longest step that was "
            "tried: the best step lies beyond what was measured",
            remedy="Raise the budget: the steps are placed again if it holds enough replicates. If that changes "
            "nothing, run a sweep, or probe other weights.",
        )
    if analysis.outgrown_at:
        yield Doubt(
            code="outgrown",
            finding=f"one step at {_sizes(analysis.outgrown_at)} gains more than one along the gradient of "
            "the whole dataset, while the law says that it gains less",
            remedy="The loss is far from a quadratic here. Run a sweep, or probe other weights.",
        )
    if analysis.slope_gap is not None and abs(analysis.slope_gap) > _SLOPE_GAP:
        yield Doubt(
            code="slope",
            finding=f"losses along the updates fall {percent(abs(analysis.slope_gap))} "
            f"{'slower' if analysis.slope_gap < 0 else 'faster'} at the start than their gradients say",
            remedy="Either the loss turns sharply within the first steps that were tried: probe later in training, or "
            "from other weights. Or the gradient is not the gradient of the loss.",
        )


def _sizes(batch_sizes: tuple[int, ...]) -> str:
    """`batch sizes 256, 1,024`."""
    return f"batch size{'s' if len(batch_sizes) > 1 else ''} {', '.join(map(count, batch_sizes))}"


def _about_the_dataset(run: ProbeRun, analysis: Analysis) -> Iterator[Doubt]:
    value = analysis.noise_scale.value
    if value is not None and analysis.law_holds and run.dataset_length < value:
        yield Doubt(
            code="beyond_dataset",
            finding=f"the noise scale {significant(value)} exceeds the dataset's {count(run.dataset_length)} examples, "
            "and no batch is worth more than the whole dataset: one step gives a lower limit alone",
            remedy="A larger batch makes a better step, up to the whole dataset. Set probe.horizon: auto with a larger "
            "--budget, or run a sweep, to see what it saves in training.",
        )
    elif value is not None and run.dataset_length < _SMALL_DATASET * value:
        yield Doubt(
            code="small_dataset",
            finding=f"the dataset's {count(run.dataset_length)} examples are not many times the noise scale: "
            "larger batches soon are whole epochs",
            remedy="The number is right for draws with replacement; no batch is worth more than the dataset.",
        )
