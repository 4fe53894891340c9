"""Pictures of a result, drawn from the result alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.records import Estimate, ProbeResult
from bnoise_cli.storage import write_whole

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, which the colour-blind can tell apart.
_BLUE, _ORANGE = "#0072B2", "#D55E00"


def require_plot_format(path: Path) -> None:
    """Find out before measuring that a picture can be drawn.

    Raises:
        CallError: unknown ending.
    """
    if path.suffix.lower() not in FORMATS:
        raise CallError(f"--plot needs a file ending in {', '.join(FORMATS)}; found {path.name!r}.")


def plot_probe(result: ProbeResult, path: Path) -> None:
    """Draw the gain of the best step against the batch size, with the law and the noise scale.

    Raises:
        RunError: nothing was measured, or the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    points = [p for p in result.points if p.batch_size is not None and p.improvement > 0]
    if not points:
        raise RunError("there is nothing to draw: no batch size gave a measurable improvement.")
    sizes = np.array([p.batch_size for p in points], dtype=float)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.errorbar(
        sizes,
        [p.improvement for p in points],
        yerr=[2 * p.std_error for p in points],
        fmt="o",
        color=_BLUE,
        capsize=3,
        label="measured, ± two standard errors",
    )
    noise, limit = result.noise_scale, result.max_improvement.value
    left, right = sizes[0] / 2, sizes[-1] * 2
    if noise.value is not None and noise.high is not None and limit is not None:
        right = max(right, 4 * noise.value)
        grid = np.geomspace(left, right, 200)
        axes.plot(grid, limit / (1 + noise.value / grid), color=_BLUE, label="law: ΔL_max / (1 + B_noise/B)")
        _mark(axes, noise)
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(left, right),
        xlabel="batch size (examples)",
        ylabel="loss improvement of the best step (nats)",
    )
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=150))


def _mark(axes: object, noise: Estimate) -> None:
    axes.axvspan(noise.low, noise.high, color=_ORANGE, alpha=0.15, lw=0)  # type: ignore[attr-defined]
    axes.axvline(  # type: ignore[attr-defined]
        noise.value, color=_ORANGE, ls="--", label=f"B_noise = {noise.value:.3g}, 95% interval"
    )
