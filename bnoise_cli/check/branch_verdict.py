"""Whether a planned batch size loses anything by its size, from branches of the same number of examples."""

from __future__ import annotations

from bnoise_cli.amounts import Amounts
from bnoise_cli.check.verdict import Judgement, Verdict, disqualifying
from bnoise_cli.maths.tradeoff import usual_batch_sizes
from bnoise_cli.numbers import count
from bnoise_cli.records import Limits
from bnoise_cli.results.branch import BranchResult


def judge_branches(result: BranchResult, batch_size: int, world_size: int, amounts: Amounts) -> Judgement:
    """Judge a planned global batch size by the losses of branches alone.

    Their critical batch size has another definition, for which 1 + B/B_crit does not hold: no overhead is told. The
    plan passes up to the largest branch that surely loses nothing and fails from the smallest that surely does.
    Between them the line through the losses decides between a pass and a warning.

    Args:
        batch_size: B, in examples, over all devices.
        world_size: the devices of the plan; suggestions divide among them.
    """
    critical = result.critical_batch_size
    value, low, high = critical.value, critical.low, critical.high
    batch = f"a batch of {count(batch_size)} examples{amounts.in_brackets(batch_size)}"
    known = f"branches of {amounts.examples(result.examples)} each"
    safe = f"{known} lose nothing by a batch of up to {amounts.count(round(low))}"
    usual = usual_batch_sizes(low, world_size)
    suggested = usual[-1] if usual else None
    remedy = f"Set training.batch_size to {amounts.count(suggested)} or less." if suggested else ""
    doubt = disqualifying(result)
    if doubt is not None:
        verdict, finding, remedy = Verdict.CANNOT_TELL, doubt.finding, doubt.remedy
    elif batch_size <= low:
        verdict, finding, remedy = Verdict.PASS, f"{batch} is small enough: {safe}", ""
    elif high is not None and batch_size >= high:
        verdict = Verdict.FAIL
        from_here = amounts.count(round(high))
        finding = f"{batch} is too large: {known} end with a higher loss from a batch of {from_here} on"
    elif value is not None and batch_size > value:
        verdict, finding = (
            Verdict.WARN,
            f"{batch} may be too large: {safe}, and the line between them says no more",
        )
    elif value is not None:
        verdict, finding, remedy = (
            Verdict.PASS,
            f"{batch} is small enough by the line between branches: {safe}",
            "",
        )
    else:
        verdict = Verdict.CANNOT_TELL
        finding = f"whether {batch} is too large is not known: {safe}"
        remedy = "Train a branch of that size (bnoise sweep --branch), or more sweep.seeds."
    return Judgement(
        verdict=verdict,
        finding=finding,
        remedy=remedy,
        batch_size=batch_size,
        critical_batch_size=critical,
        compute_overhead=None,
        compute_overhead_limits=Limits(low=0.0, high=None),
        time_efficiency=None,
        suggested_batch_size=suggested if verdict in (Verdict.FAIL, Verdict.WARN) else None,
        tokens_per_example=amounts.tokens_per_example,
    )
