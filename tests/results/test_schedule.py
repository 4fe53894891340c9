"""The batch size that follows the noise scale along training: against arithmetic by hand and a brute-force optimum."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.maths.trajectory import (
    adaptive_batch_size,
    adaptive_gamma,
    progress,
    trajectory_critical_batch_size,
)
from bnoise_cli.measurement.outcome import ProbeRun
from bnoise_cli.records import CriticalBatchSize, Estimate, TrajectoryPoint
from bnoise_cli.report.export.page import write_page
from bnoise_cli.report.plots.draw import draw, plot_results
from bnoise_cli.report.sections import report_sections
from bnoise_cli.report.terminal import layout, render
from bnoise_cli.results.probe import ProbeResult, probe_result
from bnoise_cli.results.schedule import scheduled
from bnoise_cli.results.stored import checked_result
from bnoise_cli.spec.load import load_spec
from tests.cases import QUADRATIC_CONFIG, legend
from tests.samples import ANALYSIS, OPEN, POINT, RUN, plan


def along(*scales: Estimate, steps: tuple[int, ...] = (50, 200, 1000)) -> tuple[TrajectoryPoint, ...]:
    return tuple(
        TrajectoryPoint(
            step=step,
            loss=2.3 / (1 + step / 100),
            noise_scale=scale,
            simple_noise_scale=about(2.5 * scale.low),
        )
        for step, scale in zip(steps, scales, strict=False)
    )


def about(value: float) -> Estimate:
    return Estimate(value=value, low=0.81 * value, high=1.21 * value)


def probed(*scales: Estimate) -> ProbeResult:
    """An advised result that was probed at several points, at batch 64."""
    trajectory, schedule = scheduled(along(*scales), 64)
    values = [scale.value or 0.0 for scale in scales]
    value = trajectory_critical_batch_size(values, [50, 200, 1000][: len(scales)], 64)
    known = schedule is not None
    critical = CriticalBatchSize(
        value=value if known else None,
        low=0.8 * value if known else 30.0,
        high=1.2 * value if known else None,
        basis="trajectory",
    )
    return dataclasses.replace(plan(), trajectory=trajectory, schedule=schedule, critical_batch_size=critical)


def words(*results: ProbeResult, encoding: str = "utf-8") -> str:
    sections = report_sections([(f"r{i}", one) for i, one in enumerate(results)])
    return render(layout(sections, 200), width=200, color=False, encoding=encoding)


# --- the mathematics ----------------------------------------------------------------------------------


def test_by_hand() -> None:
    """B_noise 100, 400, 900 at steps 0, 100, 400, batch 100: spans 50, 200, 150 over 2, 5, 10.

    ∫ds = 25 + 40 + 15 = 80; ∫B_noise ds = 2500 + 16,000 + 13,500 = 32,000; ∫sqrt(B_noise) ds = 250 + 800 + 450 = 1500.
    """
    scales, steps = [100.0, 400.0, 900.0], [0, 100, 400]
    assert progress(scales, steps, 100) == [25, 40, 15]
    assert trajectory_critical_batch_size(scales, steps, 100) == 400
    assert adaptive_gamma(scales, steps, 100) == pytest.approx(1500**2 / (80 * 32_000))
    assert [adaptive_batch_size(scale, 400) for scale in scales] == [200, 400, 600]
    points = tuple(
        TrajectoryPoint(step=step, loss=None, noise_scale=about(scale), simple_noise_scale=OPEN)
        for step, scale in zip(steps, scales, strict=True)
    )
    found, schedule = scheduled(points, 100)
    assert [point.batch_size for point in found] == [200, 400, 600]
    assert found[1].batch_size_limits is not None
    assert found[1].batch_size_limits.low == pytest.approx(360)  # sqrt(0.81) of it, at the same exchange rate
    assert found[1].batch_size_limits.high == pytest.approx(440)
    assert schedule is not None
    assert schedule.exchange_rate == 400
    assert schedule.gamma == pytest.approx(0.87890625)
    assert schedule.steps_ratio == schedule.examples_ratio == pytest.approx(1.9375)  # 1 + 15/16


@pytest.mark.parametrize("rate_over_critical", [1.0, 0.2, 7.0])
def test_nothing_is_better_at_the_same_exchange_rate(rate_over_critical: float) -> None:
    """S + E/r over free batch sizes at each point, by a numerical search that knows nothing of the formula."""
    scales, steps, batch_size = np.array([30.0, 170.0, 800.0, 420.0]), [0, 40, 300, 900], 64
    parts = np.array(progress(list(scales), steps, batch_size))
    critical = trajectory_critical_batch_size(list(scales), steps, batch_size)
    rate = rate_over_critical * critical

    def spent(batches: np.ndarray) -> tuple[float, float]:
        return float(parts @ (1 + scales / batches)), float(parts @ (batches + scales))

    def price(logs: np.ndarray) -> float:
        steps_taken, examples = spent(np.exp(logs))
        return steps_taken + examples / rate

    best = minimize(price, np.full(4, math.log(critical)), method="BFGS", options={"gtol": 1e-10})
    batches = np.array([adaptive_batch_size(scale, rate) for scale in scales])
    assert np.exp(best.x) == pytest.approx(batches, rel=1e-4)
    taken, examples = spent(batches)
    fewest, least = float(parts.sum()), float(parts @ scales)
    gamma = adaptive_gamma(list(scales), steps, batch_size)
    assert (taken / fewest - 1) * (examples / least - 1) == pytest.approx(gamma)
    if rate_over_critical == 1:
        assert taken / fewest == pytest.approx(1 + math.sqrt(gamma))
        assert examples / least == pytest.approx(1 + math.sqrt(gamma))
    for fixed in (0.1 * critical, critical, 9 * critical):
        taken, examples = spent(np.full(4, fixed))
        assert (taken / fewest - 1) * (examples / least - 1) == pytest.approx(1)


@given(st.lists(st.floats(1e-3, 1e7), min_size=2, max_size=6), st.integers(1, 10**6))
def test_adapting_never_costs(scales: list[float], batch_size: int) -> None:
    steps = [10 * i**2 for i in range(len(scales))]
    assert 0 < adaptive_gamma(scales, steps, batch_size) <= 1
    assert adaptive_gamma([scales[0]] * len(scales), steps, batch_size) == pytest.approx(1)


# --- the result ---------------------------------------------------------------------------------------


def run_of(*scales: Estimate, law_holds: bool = True) -> ProbeRun:
    points = tuple(
        dataclasses.replace(
            POINT,
            step=step,
            analysis=dataclasses.replace(ANALYSIS, noise_scale=scale, law_holds=law_holds or step < 100),
        )
        for step, scale in zip((50, 200, 1000), scales, strict=False)
    )
    return dataclasses.replace(RUN, points=points)


def test_a_probe_of_several_points_has_a_schedule(write: Callable[[str, str], Path]) -> None:
    spec = load_spec(write("q.yaml", QUADRATIC_CONFIG))
    found = probe_result(run_of(about(50), about(200), about(800)), spec)
    assert found.schedule is not None
    assert found.schedule.exchange_rate == pytest.approx(found.critical_batch_size.value)
    assert found.schedule.gamma < 1
    for scales in ((about(50), OPEN, about(800)), (about(50),)):
        none = probe_result(run_of(*scales), spec)
        assert none.schedule is None
        assert all(point.batch_size is None for point in none.trajectory)
    failed = probe_result(run_of(about(50), about(200), law_holds=False), spec)
    assert failed.schedule is None
    assert failed.to_json()["trajectory"][1]["batch_size"] is None


def test_stored_results_are_read_with_and_without_a_schedule() -> None:
    found = probed(about(50), about(200), about(800))
    data = json.loads(json.dumps(found.to_json()))
    assert data["schedule"].keys() == {"exchange_rate", "gamma", "steps_ratio", "examples_ratio"}
    back = checked_result(Path("r.json"), data)
    assert isinstance(back, ProbeResult)
    assert (back.trajectory, back.schedule) == (found.trajectory, found.schedule)
    del data["schedule"]
    for point in data["trajectory"]:
        del point["batch_size"], point["batch_size_limits"]
    older = checked_result(Path("r.json"), data)
    assert isinstance(older, ProbeResult)
    assert older.schedule is None
    assert "adaptive" not in words(older)
    data["trajectory"][1]["noise_scale"]["low"] = -3.0
    with pytest.raises(
        CallError, match=r"`trajectory.1.noise_scale.low`: input should be greater than or equal to 0"
    ):
        checked_result(Path("r.json"), data)


# --- words and pictures -------------------------------------------------------------------------------


def test_the_schedule_is_a_column_and_a_sentence() -> None:
    text = words(probed(about(50), about(400), about(2000)))
    assert "adaptive batch" in text
    sentence = next(line for line in text.splitlines() if "A schedule of" in line)
    assert "instead of 2 (γ = 0." in sentence
    assert "% less of both." in sentence
    assert "not worth the trouble" in words(probed(about(190), about(200), about(210)))
    assert "A schedule" not in words(probed(about(50), OPEN, about(800)))
    assert "(gamma = 0." in words(probed(about(50), about(400), about(2000)), encoding="ascii")


def test_a_picture_that_cannot_be_drawn_costs_no_more(tmp_path: Path) -> None:
    found = probed(about(50.0), about(100.0), about(400.0))
    first, *others = found.trajectory
    damaged = dataclasses.replace(found, trajectory=(dataclasses.replace(first, step=10**400), *others))
    with pytest.raises(RunError, match="the picture cannot be drawn"):
        plot_results([("r", damaged)], tmp_path / "r.png")
    write_page([("r", damaged)], tmp_path / "r.html", None)
    assert "Critical batch size" in (tmp_path / "r.html").read_text()


def test_pages_and_pictures_show_the_trajectory(tmp_path: Path) -> None:
    found = probed(about(50), about(400), about(2000))
    for name in ("p.md", "p.html"):
        write_page([("r", found)], tmp_path / name, None)
        assert "A schedule of these batch sizes" in (tmp_path / name).read_text(encoding="utf-8")
    figure = draw([("r", found)])
    assert [axes.get_ylabel() for axes in figure.axes[-2:]] == ["batch size (examples)", "loss (dotted)"]
    assert "along training" in figure.axes[-2].get_title(loc="left")
    labels = legend(figure.axes[-2])
    assert {"adaptive batch", "tr(Σ)/|G|²", "B_noise, 95% interval"} <= set(labels)
    assert any(label.startswith("B_crit = ") for label in labels)
    unresolved = draw([("r", probed(about(50), OPEN, about(800)))])
    labels = legend(unresolved.axes[-2])
    assert "B_noise at least" in labels
    assert "adaptive batch" not in labels
    several = draw([("a", found), ("b", probed(about(20), OPEN, about(90)))])
    assert legend(several.axes[-1]) == ["a", "b"]
    alone = dataclasses.replace(found, points=(), tradeoff=())
    assert len(draw([("r", alone)]).axes) == 2
