"""Reasons to doubt a probe that the task itself gives: its start, its loss, its model and its data."""

from __future__ import annotations

from collections.abc import Iterator

from bnoise_cli.measurement.outcome import Measurement, ProbeRun, TaskFindings
from bnoise_cli.numbers import count, counted, percent, significant
from bnoise_cli.records import Doubt
from bnoise_cli.spec.schema import Config

#: A warm-up that multiplies the loss by more than this has not trained.
_DIVERGED = 1.5
#: The loss must also have risen by this many standard errors.
_DIVERGED_ERRORS = 4
#: The gradient of a sum over the batch is twice the mean of its halves' gradients, but for rounding.
_GAP_OF_A_SUM, _ROUNDING = 0.5, 1e-3


def about_the_task(run: ProbeRun, last: Measurement, config: Config) -> Iterator[Doubt]:
    """The doubts about where the probe begins, its data, its loss and its model."""
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
    yield from _about_the_model(run.findings)
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
    """The doubts about a loss that is not a plain mean over examples."""
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


def _about_the_model(findings: TaskFindings) -> Iterator[Doubt]:
    """Parts of the model or the data that make the loss random, or change with it."""
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
    """The doubt that a stream is read from its beginning only, where examples may resemble one another."""
    if findings.streamed is not None:
        yield Doubt(
            code="stream",
            finding=f"the dataset is a stream: its first {count(findings.streamed)} examples stand for all of it",
            remedy="Shuffle the stream, or name a dataset with a length: neighbours that are alike make the noise "
            "scale too small.",
        )


def _about_the_loader(findings: TaskFindings, config: Config) -> Iterator[Doubt]:
    """The doubts about a loader's sampler, its batch sampler and its batch size."""
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
