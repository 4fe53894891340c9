"""The panel of branches: the loss at the end of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnoise_cli.report.plots.style import MARK, Named, Panel, beside, curves, finish
from bnoise_cli.results.branch import BranchOutcome, BranchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_branches(axes: Axes, results: Named[BranchResult]) -> str:
    """The loss at the end of every branch against its batch size, with the tolerance."""
    for curve in curves(results):
        batches = ended(curve.result)
        losses = [batch.loss or 0.0 for batch in batches]
        limits = beside(losses, [batch.loss_limits for batch in batches])
        sizes = [batch.batch_size for batch in batches]
        curve.draw_measured(axes, sizes, losses, limits, "mean and range of the seeds", joined=True)
        if curve.alone:
            axes.axhline(curve.result.goal, color=MARK, ls="--", lw=1.2, label="smallest batch + tolerance")
    finish(axes, results, "loss at the end of the branch")
    sizes = sorted({batch.batch_size for curve in curves(results) for batch in ended(curve.result)})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    return "branches of the same examples"


def ended(result: BranchResult) -> list[BranchOutcome]:
    """Batch sizes of which no branch diverged."""
    return [batch for batch in result.batches if batch.loss is not None]


BRANCHES = Panel(draw=draw_branches, shows=lambda result: bool(ended(result)))
