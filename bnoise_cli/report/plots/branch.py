"""Where branches of the same number of examples end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnoise_cli.report.plots.style import (
    COLOURS,
    DASHES,
    MARK,
    MARKERS,
    Named,
    Panel,
    beside,
    legend_below,
    plain_ticks,
    tokens_above,
)
from bnoise_cli.results.branch import BranchOutcome, BranchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_branches(axes: Axes, results: Named[BranchResult]) -> str:
    """The loss at the end of every branch against its batch size, with the tolerance."""
    for i, (name, result) in enumerate(results):
        batches = ended(result)
        alone, colour = len(results) == 1, COLOURS[i % len(COLOURS)]
        losses = [batch.loss or 0.0 for batch in batches]
        axes.errorbar(
            [batch.batch_size for batch in batches],
            losses,
            yerr=beside(losses, [batch.loss_limits for batch in batches]),
            fmt=MARKERS[i % len(MARKERS)] + DASHES[i % 4],
            color=colour,
            capsize=3,
            ms=5,
            label="mean and range of the seeds" if alone else name,
        )
        if alone:
            axes.axhline(result.goal, color=MARK, ls="--", lw=1.2, label="smallest batch + tolerance")
    axes.set(
        xscale="log", yscale="log", xlabel="batch size B (examples)", ylabel="loss at the end of the branch"
    )
    plain_ticks(axes)
    tokens_above(axes, results)
    legend_below(axes)
    return "branches of the same examples"


def ended(result: BranchResult) -> list[BranchOutcome]:
    """Batch sizes of which no branch diverged."""
    return [batch for batch in result.batches if batch.loss is not None]


BRANCHES = Panel(draw=draw_branches, shows=lambda result: bool(ended(result)))
