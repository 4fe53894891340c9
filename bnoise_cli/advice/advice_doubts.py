"""Reasons to trust the advice less. Doubts about the measurement are in `results/`."""

from __future__ import annotations

from collections.abc import Iterator

from bnoise_cli.advice import limits
from bnoise_cli.advice.choices import Option, Options
from bnoise_cli.numbers import count, counted, percent, seconds, significant
from bnoise_cli.records import Doubt, Throughput
from bnoise_cli.results.result import Result
from bnoise_cli.spec.schema import Advice, Training

#: A measured time that is further than this fraction from the line t₀ + t₁·m raises a doubt.
MISFIT = 0.25
#: A larger micro-batch usually trains more examples a second. If it trains this many times fewer, that is a doubt.
_SLOWER = 1.3


def unit_doubts(result: Result) -> Iterator[Doubt]:
    """The doubt that the config asks for tokens and the number of tokens per example is not known."""
    if result.plan.unit == "tokens" and result.amounts.tokens_per_example is None:
        yield Doubt(
            code="tokens",
            finding="the tokens per example are not known, so batch sizes are in examples alone",
            remedy="Set training.tokens_per_example.",
            about="advice",
        )


def unjudged_doubts(wishes: Advice, why: str = "no step was timed") -> Iterator[Doubt]:
    """Without step times, or without a B_crit that training shows, no limit can be judged."""
    if named := limits.roles(wishes):
        keys = " and ".join(f"advice.{name}" for name in named)
        yield Doubt(
            code="limits_unknown",
            finding=f"whether {keys} can be met is not known: {why}",
            remedy="Probe again, on the device that will train and with a larger --budget.",
            about="advice",
        )


def advice_doubts(
    options: Options, throughput: Throughput, wishes: Advice, choice: limits.Choice | None
) -> Iterator[Doubt]:
    """The doubts about a trade-off and about `choice`, which is None if no option meets the user's limits."""
    if choice is None:
        yield limits.impossible(options, wishes)
    option = choice.option if choice is not None else options.fastest
    yield from _about_the_devices(options.training, throughput)
    yield from _about_the_split(option, throughput)
    yield from _about_the_times(throughput)
    if choice is not None and choice.rivals:
        yield _unknown(choice)
    if choice is not None and wishes.deadline is not None:
        yield from _about_the_deadline(options, choice.option, wishes.deadline)


def _about_the_devices(training: Training, throughput: Throughput) -> Iterator[Doubt]:
    """The doubt that steps were timed on other devices than the plan names, or without their exchange of gradients."""
    planned, timed = training.world_size, throughput.world_size
    same_way = 1 in (planned, timed) or training.parallel == throughput.parallel
    if (planned == 1 and throughput.parallel != "fsdp") or (planned == timed and same_way):
        return
    of_plan, of_timed = ("", "") if same_way else map(_under, (training.parallel, throughput.parallel))
    those = "one device's" if timed == 1 else f"those of {count(timed)}{of_timed}"
    among = f" among {count(planned)}" if 1 < timed != planned else ""
    unknown = f"the exchange of gradients{among}{of_plan} was not measured"
    if throughput.parallel == "fsdp" and planned < timed:
        unknown = "whether fewer hold the model is not known"
    if not same_way:
        otherwise = f"set training.parallel to {throughput.parallel}"
    elif planned > timed:
        otherwise = "take the times as lower bounds: a step that waits longer asks for a larger batch"
    else:
        otherwise = "take the times as upper bounds"
    where = "under torchrun on the planned devices" if planned > 1 else "on the planned device"
    yield Doubt(
        code="communication",
        finding=f"times for {counted(planned, 'device')}{of_plan} are {those}: {unknown}",
        remedy=f"Probe {where}, or {otherwise}.",
        about="advice",
    )


def _under(parallel: str | None) -> str:
    return f" under {(parallel or '').upper()}"


def _about_the_split(option: Option, throughput: Throughput) -> Iterator[Doubt]:
    below = [s for s in throughput.step_times if s.micro_batch_size <= option.split.micro_batch_size]
    near = below[-1] if below else throughput.step_times[0]
    if near.loading_seconds > near.seconds:
        yield Doubt(
            code="data_loading",
            finding=f"reading {count(near.micro_batch_size)} examples takes {seconds(near.loading_seconds)} in one "
            f"process, training on them {seconds(near.seconds)}: reading limits, and the times leave it out",
            remedy=f"Load in the background with at least {-int(-near.loading_seconds // near.seconds)} worker "
            "processes, or prepare the examples beforehand.",
            about="advice",
        )
    if option.split.micro_batch_size > throughput.largest_micro_batch_size:
        yield Doubt(
            code="not_tried",
            finding=f"the micro-batch of {count(option.split.micro_batch_size)} was not tried: its time is read off a "
            f"line, and whether it fits is not known; {count(throughput.largest_micro_batch_size)} was the largest",
            remedy="Probe with a larger budget, or with a planned batch of that size.",
            about="advice",
        )


def _about_the_times(throughput: Throughput) -> Iterator[Doubt]:
    if throughput.worst_misfit > MISFIT:
        yield Doubt(
            code="step_time",
            finding=f"step times leave the line t₀ + t₁·B by up to {percent(throughput.worst_misfit)}",
            remedy="The table interpolates measured times; only the closed form is rough.",
            about="advice",
        )
    speeds = [step.micro_batch_size / step.seconds for step in throughput.step_times]
    slower = next((i for i, speed in enumerate(speeds) if max(speeds[: i + 1]) > _SLOWER * speed), None)
    if slower is not None:
        yield Doubt(
            code="slower_when_larger",
            finding=f"a micro-batch of {count(throughput.step_times[slower].micro_batch_size)} trains fewer examples a "
            "second than smaller ones: the device was disturbed while it was timed, or is not made for them",
            remedy="Free the device of other work (on a CPU, more threads than free cores) and probe again.",
            about="advice",
        )
    if (threads := throughput.threads) is not None:
        number = counted(threads.number, "torch thread")
        yield Doubt(
            code="threads",
            finding=f"measured on {number}: {count(threads.usual)} threads take {significant(threads.times_faster, 2)} "
            "times as long here",
            remedy=f"Train on {number} too (OMP_NUM_THREADS={threads.number}), or free the CPU and probe again.",
            about="advice",
        )
    if throughput.failure is not None:
        yield Doubt(
            code="step_failed",
            finding=throughput.failure.removesuffix("."),
            remedy="Micro-batches below it were timed; mend the cause if larger ones should work.",
            about="advice",
        )


def _unknown(choice: limits.Choice) -> Doubt:
    sizes = [option.batch_size for option in (choice.option, *choice.rivals)]
    return Doubt(
        code="timing",
        finding="repeated step times differ too much to tell which batch size is the fastest: it may be any from "
        f"{count(min(sizes))} to {count(max(sizes))}",
        remedy="Free the device of other work and probe again, or allow a larger budget.",
        about="advice",
    )


def _about_the_deadline(options: Options, chosen: Option, limit: float) -> Iterator[Doubt]:
    slowest = max(options.run_seconds(chosen, law) for law in options.across)
    if slowest > limit:
        yield Doubt(
            code="deadline_margin",
            finding=f"within the interval of B_crit the run may take {seconds(slowest)}, longer than the deadline",
            remedy="Allow a margin (advice.deadline), or probe longer for a narrower interval.",
            about="advice",
        )
