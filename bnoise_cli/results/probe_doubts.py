"""Every reason to trust a result less, as data: code, finding, remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from bnoise_cli.measurement.outcome import Measurement, ProbeRun, StopReason, TaskFindings
from bnoise_cli.numbers import count, counted, percent, significant
from bnoise_cli.records import Doubt
from bnoise_cli.results.horizon import horizon_doubts
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
#: Slopes along the updates that differ from the gradient's by more than this part are worth a word.
_SLOPE_GAP = 0.1
_FEW_REPLICATES = 8
#: A warm-up that multiplies the loss by more than this has not trained.
_DIVERGED = 1.5
#: And it must have raised the loss by this many standard errors.
_DIVERGED_ERRORS = 4
#: Doubts about a single step that do not touch what training runs show: those have the momentum, the weight decay and
#: the clipping of the plan.
_OF_ONE_STEP = frozenset({
    "momentum", "weight_decay", "clipping", "not_quadratic", "negative_curvature", "law", "slope", "range", "rounding",
    "two_descents", "steps_too_short", "outgrown", "unresolved", "imprecise", "few_replicates", "below_one",
    "below_a_group", "small_dataset",
})  # fmt: skip
#: The gradient of a sum over the batch is twice the mean of its halves' gradients, but for rounding.
_GAP_OF_A_SUM, _ROUNDING = 0.5, 1e-3
#: A gain must be this many times what rounding makes of one line's losses.
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
    found = (*horizon_doubts(last), *ending, *group, *_about_the_task(run, last, config), *answer)
    if all(point.horizon is not None for point in run.points):
        found = tuple(doubt for doubt in found if doubt.code not in _OF_ONE_STEP)
    return found


def _at(step: int, doubt: Doubt) -> Doubt:
    """Of several points only the last is doubted in detail."""
    return replace(doubt, finding=f"at step {count(step)} {doubt.finding}")


def below_a_group(run: ProbeRun, point: Measurement) -> bool:
    """Whether the noise scale is less than one of the groups that batches are made of, where nothing was measured."""
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
        yield Doubt(
            code="unresolved",
            finding=f"the data cannot tell the noise scale; {known}",
            remedy="Probe longer (--budget, probe.max_examples). If that changes nothing, the mean gradient here "
            "may be zero: probe another point of training.",
        )
    elif last.stop is StopReason.BUDGET:
        width = last.analysis.noise_scale.relative_half_width
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


def _about_the_task(run: ProbeRun, last: Measurement, config: Config) -> Iterator[Doubt]:
    if last.step == 0 and not run.from_checkpoint:
        yield Doubt(
            code="at_initialisation",
            finding="probed before any training: the noise scale there is a floor, and grows by 1.7 to 100 times "
            "over training (arXiv:1812.06162, table 1)",
            remedy="Set probe.warmup_steps, probe.at_steps or a checkpoint.",
        )
    warmup = run.warmup
    if warmup is not None and warmup.after - warmup.before > max(
        (_DIVERGED - 1) * abs(warmup.before), _DIVERGED_ERRORS * warmup.error
    ):
        yield Doubt(
            code="diverged",
            finding=f"the warm-up raised the loss of the same examples from {warmup.before:.3g} to {warmup.after:.3g}",
            remedy="Lower the learning rate, or give the planned run's own warm-up by a checkpoint.",
        )
    if run.unused_states:
        yield Doubt(
            code="optimizer_state",
            finding=f"of the checkpoint's optimizer state {'; '.join(run.unused_states)}",
            remedy="Name the optimizer that trained the checkpoint, or warm up until the state is a new one; 100 steps "
            "are usual.",
        )
    yield from about_a_stream(run.findings)
    yield from _about_the_loader(run.findings, config)
    if config.training.batch_size > run.dataset_length:
        yield Doubt(
            code="batch_beyond_dataset",
            finding=f"the planned batch of {counted(config.training.batch_size)} is larger than the dataset of "
            f"{count(run.dataset_length)}",
            remedy="Set training.batch_size to at most the dataset: a loader that drops the last batch would give "
            "none.",
        )
    yield from _about_the_loss(run.findings)
    if run.momentum:
        yield Doubt(
            code="momentum",
            finding=f"measured along the gradient alone, without the momentum of {run.momentum:g}",
            remedy="With momentum it can be several times more or less. A horizon (probe.horizon: auto) or "
            "`bnoise sweep` trains with it.",
        )
    if run.weight_decay:
        yield Doubt(
            code="weight_decay",
            finding=f"the weight decay of {run.weight_decay:g} is no part of the measured loss",
            remedy="It has no noise of its own; nothing to do unless it dominates the step.",
        )
    if config.training.max_grad_norm is not None:
        yield Doubt(
            code="clipping",
            finding="gradient clipping is off in the probe",
            remedy="Where clipping acts on most steps, small batches do worse than this says.",
        )


def _about_the_loss(findings: TaskFindings) -> Iterator[Doubt]:
    """What the model, its loss and its data are, where that is not a plain mean over examples."""
    groups = (
        f"Batches were made of groups of {count(findings.group)}, as one device of the planned run takes them"
    )
    if not findings.is_mean and findings.weighted:
        yield Doubt(
            code="weighted_mean",
            finding="the loss is a weighted mean over examples, and nothing in a batch counts as the weights do: equal "
            f"weights are off by {percent(findings.mean_gap)} of the gradient. {groups}",
            remedy="Put the weights into the batch as a tensor (lengths, masks, ignored labels), so that larger and "
            "smaller batches than a group can be measured.",
        )
    elif not findings.is_mean:
        yield Doubt(
            code="not_a_mean",
            finding="the gradient of a batch is not the mean of its examples': it differs from the mean of its "
            f"halves' by {percent(findings.mean_gap)} of its norm. {groups}",
            remedy="It grows with the batch, so it is a sum: use reduction='mean', or return loss.mean()."
            if abs(findings.mean_gap - _GAP_OF_A_SUM) < _ROUNDING
            else "Contrastive losses do that. The number is right for more devices or accumulation steps of as many "
            "examples; with other groups the loss itself is another.",
        )
    if findings.refused is not None:
        yield Doubt(
            code="small_batches",
            finding=f"bnoise tried fewer examples at once, and {findings.refused.removesuffix('.')}. {groups}",
            remedy="Nothing to do if the loss is meant to need that many; smaller batches cannot be compared.",
        )
    if findings.weighed_by is not None:
        yield Doubt(
            code="unequal_lengths",
            finding=f"the loss is a weighted mean: each example weighs by its {findings.weighed_by}, "
            f"{significant(findings.by_tokens or 0.0)} on average",
            remedy="Right where training divides by the total of the whole batch; where it averages the means of "
            "micro-batches, examples of little weight count for more than this says.",
        )
    if findings.held_buffers:
        names = ", ".join(findings.held_buffers[:3]) + (", …" if len(findings.held_buffers) > 3 else "")
        yield Doubt(
            code="held_buffers",
            finding=f"computing the loss changes {counted(len(findings.held_buffers), 'buffer')} ({names}), which "
            "bnoise put back before every pass",
            remedy="Right for spectral norm and moving averages, which follow the weights slowly.",
        )
    if findings.stochastic:
        yield Doubt(
            code="random_masks",
            finding="the loss of given examples is random (dropout, augmentation), which is part of the noise that is "
            "measured",
            remedy="Nothing is wrong with that; a probe without it shows how much it is.",
        )
    if findings.frozen:
        yield Doubt(
            code="frozen",
            finding=f"{percent(findings.frozen)} of the parameters are frozen and take no part",
            remedy="Right for this fine-tuning; training all of them has another noise scale.",
        )
    if findings.loss_parameters:
        yield Doubt(
            code="loss_parameters",
            finding="the loss has trainable parameters of its own, which were held: "
            f"{count(findings.loss_parameters)}",
            remedy="Put them into the model if the planned run trains them.",
        )
    if findings.batch_norms:
        yield Doubt(
            code="batch_norm",
            finding=f"{counted(findings.batch_norms, 'BatchNorm layer')}: batches were made of groups of "
            f"{count(findings.group)} examples with statistics of their own, as on one device of the planned run",
            remedy="With fewer examples on a device their statistics, and the gradient, are noisier than this says; "
            "with more they are less noisy.",
        )


def about_a_stream(findings: TaskFindings) -> Iterator[Doubt]:
    """A stream is read from its beginning, where examples may be alike."""
    if findings.streamed is not None:
        yield Doubt(
            code="stream",
            finding=f"the dataset is a stream: its first {count(findings.streamed)} examples stand for all of it",
            remedy="Shuffle the stream, or name a dataset with a length: neighbours that are alike make the noise "
            "scale too small.",
        )


def _about_the_loader(findings: TaskFindings, config: Config) -> Iterator[Doubt]:
    """A loader says more than which dataset it reads."""
    if findings.drawn is not None:
        yield Doubt(
            code="sampler",
            finding=f"examples are drawn as the loader does: {findings.drawn}",
            remedy="Right if the planned run trains with this loader.",
        )
    if findings.batch_sampler is not None:
        yield Doubt(
            code="batch_sampler",
            finding=f"the loader's {findings.batch_sampler} puts batches together in its own way, and bnoise draws "
            "every example independently",
            remedy="Batches that are balanced or of similar examples have another noise than this says.",
        )
    if "batch_size" not in config.training.model_fields_set:
        yield Doubt(
            code="no_plan",
            finding=f"training.batch_size is not set, so {config.training.batch_size} stands for the planned batch",
            remedy="Set it to the batch size of the run, over all devices.",
        )
    planned = {config.training.batch_size, config.training.batch_size // config.training.world_size, 1, None}
    if findings.loader_batch_size not in planned:
        yield Doubt(
            code="loader_batch_size",
            finding=f"the loader's batch size is {findings.loader_batch_size}, and training.batch_size is "
            f"{config.training.batch_size}",
            remedy="Set training.batch_size to what the planned run trains with, over all devices.",
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
            + ("" if analysis.law_holds else ": it does not hold here"),
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
    if value is not None and run.dataset_length < _SMALL_DATASET * value:
        yield Doubt(
            code="small_dataset",
            finding=f"the dataset's {count(run.dataset_length)} examples are not many times the noise scale: "
            "larger batches soon are whole epochs",
            remedy="The number is right for draws with replacement; no batch is worth more than the dataset.",
        )
