"""The plan of a measurement in words."""

from __future__ import annotations

from bnoise_cli.measurement.outcome import DryRun, SweepPlan
from bnoise_cli.numbers import count, seconds, significant, size
from bnoise_cli.report.document import Grid, Section, Sentence


def dry_run_sections(plan: DryRun) -> list[Section]:
    """The plan of a probe before anything is measured."""
    memory = f"{size(plan.extra_bytes)} beside a training step of the micro-batch"
    if plan.peak_bytes is not None:
        memory += f" (peak of one such gradient {size(plan.peak_bytes)})"
    micro_batch = seconds(plan.seconds_per_example * plan.micro_batch_size)
    rows = (
        ("device", plan.device),
        ("trainable parameters", count(plan.parameters)),
        ("dataset", f"{count(plan.dataset_length)} examples"),
        ("micro-batch", f"{count(plan.micro_batch_size)} examples, {micro_batch}"),
        *([("from", ", ".join(plan.checkpoints))] if plan.checkpoints else []),
        ("probe at step", ", ".join(count(step) for step in plan.steps)),
        ("warm-up", f"about {seconds(plan.warmup_seconds)}"),
        (
            "measurement",
            f"at most about {seconds(plan.budget_seconds)}, sooner when the interval is narrow enough",
        ),
        ("memory", memory),
    )
    return plan_sections(rows)


def sweep_plan_sections(plan: SweepPlan) -> list[Section]:
    """The plan of a sweep."""
    goal = (
        f"what the planned batch size reaches in {count(plan.steps)} steps (sweep.steps) at its best rate"
        if plan.goal is None
        else f"a loss of {significant(plan.goal, 4)}"
        + (
            f", which the planned batch reaches in {count(plan.steps)} steps at its best rate"
            if plan.arrived
            else ""
        )
    )
    if plan.branch_examples is not None:
        return _branch_sections(plan, plan.branch_examples)
    assumed = "" if plan.goal is None or plan.arrived else f", if the goal takes {count(plan.steps)} steps"
    return plan_sections(
        (
            *_start_rows(plan),
            ("to", goal),
            ("batch sizes", ", ".join(map(count, plan.batch_sizes))),
            ("runs", f"about {count(plan.runs)}"),
            ("time", f"roughly {seconds(plan.seconds)}{assumed}; each finished run is kept"),
        )
    )


def _start_rows(plan: SweepPlan) -> list[tuple[str, str]]:
    """What is trained, and where all runs begin."""
    dataset = f"{count(plan.dataset_length)} examples, the loss of {count(plan.evaluation_examples)}"
    return [
        ("device", plan.device),
        ("trainable parameters", count(plan.parameters)),
        ("dataset", dataset),
        ("from", f"a loss of {significant(plan.start_loss, 4)}"),
    ]


def _branch_sections(plan: SweepPlan, examples: int) -> list[Section]:
    sizes = ", ".join(map(count, plan.batch_sizes))
    return plan_sections(
        (
            *_start_rows(plan),
            ("branches", f"of {count(examples)} examples each, at batch sizes {sizes}"),
            ("runs", count(plan.runs)),
            ("time", f"about {seconds(plan.seconds)} after the warm-up; each finished branch is kept"),
        )
    )


def plan_sections(rows: tuple[tuple[str, str], ...]) -> list[Section]:
    """A dry run: names and what they are."""
    grid = Grid(columns=("", " "), rows=rows, words=frozenset({"", " "}))
    return [Section(title="Dry run", headline=Sentence("everything builds, one batch ran."), parts=[grid])]
