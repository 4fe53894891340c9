"""Each doubt can be reached; a report reads the same today as yesterday; numbers are written plainly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnoise_cli.advice.doubts import probe_doubts
from bnoise_cli.errors import CallError, RunError
from bnoise_cli.maths.analysis import Analysis, Design, Limit
from bnoise_cli.maths.tradeoff import tradeoff
from bnoise_cli.measurement.outcome import DryRun, Measurement, ProbeRun, StopReason, TaskFindings
from bnoise_cli.numbers import percent, seconds, significant, size
from bnoise_cli.records import (
    Cost,
    CriticalBatchSize,
    Doubt,
    Estimate,
    Fit,
    NoiseScale,
    Point,
    ProbeResult,
    Provenance,
    Quadratic,
    TrajectoryPoint,
)  # fmt: skip
from bnoise_cli.report.plot import plot_probe, require_plot_format
from bnoise_cli.report.terminal import dry_run_report, probe_report, render
from bnoise_cli.spec.schema import Config
from bnoise_cli.storage import default_path, require_writable, write_json

GOOD = Estimate(value=100.0, low=90.0, high=112.0)
OPEN = Estimate(value=None, low=40.0, high=None)

POINTS = tuple(
    Point(
        batch_size=B,
        improvement=0.02 / (1 + 100 / B),
        std_error=0.001 / (1 + 100 / B),
        step_size=0.3 / (1 + 100 / B),
        fitted=0.0201 / (1 + 100 / B),
        gradient_error=(250 / B) ** 0.5,
        draws=40,
    )
    for B in (8, 32, 128, 512)
)

ANALYSIS = Analysis(
    noise_scale=GOOD,
    max_improvement=Estimate(value=0.02, low=0.018, high=0.022),
    simple_noise_scale=Estimate(value=250.0, low=200.0, high=310.0),
    quadratic=Quadratic(curvature=0.5, noise=52.0, noise_scale=104.0, ratio=1.04),
    points=POINTS,
    fit=Fit(chi2=1.5, dof=2, r_squared=0.999, p_value=0.6),
    law_holds=True,
    slope=0.1,
    slope_error=0.01,
    slope_gap=0.5,
    fitted_curvatures=np.ones(4),
    rough_noise_scale=100.0,
)
DESIGN = Design(batch_sizes=np.array([8.0, 32, 128, 512]), scales=np.ones(4), blocks=np.array([16, 6, 1, 0]))
POINT = Measurement(
    step=100,
    loss=1.5,
    analysis=ANALYSIS,
    design=DESIGN,
    replicates=40,
    stop=StopReason.PRECISION,
    failure=None,
    seconds=3.2,
    gradient_examples=20_000,
    evaluation_examples=60_000,
    micro_batch_size=64,
    shortened_from=None,
)
RUN = ProbeRun(
    points=(POINT,),
    findings=TaskFindings(loss=2.3, stochastic=False, batch_norms_held=0, mean_gap=1e-7, is_mean=True),
    from_checkpoint=False,
    momentum=0.0,
    weight_decay=0.0,
    device="cpu",
    dtype="float32",
    dataset_length=50_000,
    dataset_hash=None,
    warmup_seconds=0.5,
    interrupted=False,
    failure=None,
)
CONFIG = Config.model_validate(
    {"version": 1, "model": {}, "dataset": {}, "optimizer": {}, "training": {"batch_size": 64}}
)


def codes(run: ProbeRun = RUN, config: Config = CONFIG) -> list[str]:
    return [doubt.code for doubt in probe_doubts(run, config)]


def changed(**changes: Any) -> ProbeRun:
    """The run with its measurement or analysis changed."""
    analysis_fields = {field.name for field in dataclasses.fields(Analysis)}
    inner = {key: value for key, value in changes.items() if key in analysis_fields}
    outer = {key: value for key, value in changes.items() if key not in analysis_fields}
    point = dataclasses.replace(POINT, analysis=dataclasses.replace(ANALYSIS, **inner))
    return dataclasses.replace(RUN, points=(dataclasses.replace(point, **outer),))


def test_a_good_probe_leaves_no_doubt() -> None:
    assert codes() == []


@pytest.mark.parametrize(
    ("code", "run"),
    [
        ("failed", dataclasses.replace(RUN, failure=RunError("the disk fell out"))),
        ("interrupted", dataclasses.replace(RUN, interrupted=True)),
        ("unresolved", changed(noise_scale=OPEN)),
        ("imprecise", changed(noise_scale=Estimate(value=100.0, low=70.0, high=150.0), stop=StopReason.BUDGET)),
        ("few_replicates", changed(replicates=5)),
        ("memory", changed(shortened_from=256)),
        ("at_initialisation", changed(step=0)),
        ("not_a_mean", dataclasses.replace(
            RUN, findings=TaskFindings(loss=2.3, stochastic=False, batch_norms_held=0, mean_gap=0.3, is_mean=False))),
        ("batch_norm", dataclasses.replace(
            RUN, findings=TaskFindings(loss=2.3, stochastic=False, batch_norms_held=2, mean_gap=0.0, is_mean=True))),
        ("diverged", changed(loss=9.0)),
        ("below_one", changed(noise_scale=Estimate(value=0.5, low=0.4, high=0.6),
                              design=dataclasses.replace(DESIGN, batch_sizes=np.array([1.0, 4, 16, 64])))),
        ("momentum", dataclasses.replace(RUN, momentum=0.9)),
        ("weight_decay", dataclasses.replace(RUN, weight_decay=0.1)),
        ("range", changed(noise_scale=Estimate(value=9.0, low=8.0, high=10.0))),
        ("range", changed(noise_scale=Estimate(value=400.0, low=370.0, high=440.0))),
        ("rounding", dataclasses.replace(changed(loss=1e6), findings=dataclasses.replace(RUN.findings, loss=1e6))),
        ("law", changed(fit=Fit(chi2=30.0, dof=2, r_squared=0.8, p_value=1e-4), law_holds=False)),
        ("negative_curvature", changed(quadratic=Quadratic(curvature=-1.0, noise=3.0, noise_scale=None, ratio=None))),
        ("not_quadratic", changed(quadratic=Quadratic(curvature=1.0, noise=3.0, noise_scale=250.0, ratio=2.5))),
        ("slope", changed(slope_gap=1e-5)),
        ("small_dataset", dataclasses.replace(RUN, dataset_length=300)),
    ],
)  # fmt: skip
def test_every_doubt_can_be_reached(code: str, run: ProbeRun) -> None:
    doubts = probe_doubts(run, CONFIG)
    assert [doubt.code for doubt in doubts] == [code]
    assert doubts[0].finding
    assert doubts[0].remedy.endswith(".")


def test_clipping_is_a_doubt() -> None:
    training = CONFIG.training.model_copy(update={"max_grad_norm": 1.0})
    assert codes(config=CONFIG.model_copy(update={"training": training})) == ["clipping"]


def test_a_checkpoint_is_no_initialisation_and_an_exact_limit_no_end_of_the_range() -> None:
    assert codes(dataclasses.replace(changed(step=0), from_checkpoint=True)) == []
    limit = Limit(slope=1.0, signal=1.0, curve=np.zeros(4), scale=1.0)
    design = dataclasses.replace(DESIGN, limit=limit)
    assert codes(changed(noise_scale=Estimate(value=400.0, low=370.0, high=440.0), design=design)) == []


def result(**changes: Any) -> ProbeResult:
    base = ProbeResult(
        config={"training": {"batch_size": 64}, "probe": {"warmup_steps": 100, "at_steps": None}},
        config_hash="0" * 64,
        provenance=Provenance(
            bnoise="0.1.0", python="3.11.7", torch="2.13.0", device="cpu", dtype="float32", seed=0,
            time="2026-01-01T00:00:00+00:00", dataset_length=50_000, micro_batch_size=64, replicates=40,
        ),
        noise_scale=NoiseScale(value=100.0, low=90.0, high=112.0),
        max_improvement=ANALYSIS.max_improvement,
        simple_noise_scale=ANALYSIS.simple_noise_scale,
        quadratic=ANALYSIS.quadratic,
        critical_batch_size=CriticalBatchSize(value=100.0, low=90.0, high=112.0, basis="probe"),
        points=POINTS,
        fit=ANALYSIS.fit,
        trajectory=(),
        tradeoff=tradeoff(100.0, [64]),
        doubts=(Doubt(code="momentum", finding="measured without it", remedy="Nothing to do."),),
        cost=Cost(seconds=3.2, gradient_examples=20_000, evaluation_examples=60_000, warmup_seconds=0.5),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


GOLDEN = """\
Critical batch size  100 examples (95% interval 90.0 to 112)
  Training at this batch size takes twice the fewest steps and twice the fewest examples.
  The planned batch of 64 takes 2.56 times the fewest steps and 1.64 times the fewest examples.
  At step 100 of training; it changes along the way, as probe.at_steps shows.
  Simple noise scale tr(Σ)/|G|²: 250 examples (95% interval 200 to 310)

batch           best step               best  gradient     speed     steps  examples
 size               gains       law  step size     error  of limit  / fewest  / fewest
    8  0.00148 ± 7.4e-05   0.00149     0.0222      559%      7.4%     13.50      1.08
   32   0.00485 ± 0.00024   0.00487     0.0727      280%       24%      4.12      1.32
  128   0.0112 ± 0.00056    0.0113      0.168      140%       56%      1.78      2.28
  512   0.0167 ± 0.00084    0.0168      0.251       70%       84%      1.20      6.12

Reasons for doubt
  ! momentum: measured without it.
    Nothing to do.

3.2 s, after 0.5 s of warm-up; 20,000 gradient and 60,000 evaluation examples in 40 replicates on
cpu; dataset of 50,000.
"""


def squeezed(text: str) -> list[str]:
    """Lines with runs of blanks made one, which a table's padding is free to change."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_whole_report() -> None:
    text = render(probe_report(result(), 100), width=100, color=False, encoding="utf-8")
    assert squeezed(text) == squeezed(GOLDEN)
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = render(probe_report(result(), width), width=width, color=False, encoding="utf-8")
    assert max(len(line) for line in text.splitlines()) <= width
    assert "Critical batch size" in text


def test_a_terminal_without_unicode_gets_ascii() -> None:
    text = render(probe_report(result(), 100), width=100, color=False, encoding="ascii")
    assert text.isascii()
    assert "tr(S)/|G|^2" in text
    assert "+- " in text
    assert "?" not in text


def test_colour_only_where_it_is_wanted() -> None:
    assert "\x1b[" in render(probe_report(result(), 100), width=100, color=True, encoding="utf-8")
    assert "\x1b[" not in render(probe_report(result(), 100), width=100, color=False, encoding="utf-8")


def test_an_open_interval_is_no_number() -> None:
    unknown = result(
        noise_scale=NoiseScale(value=None, low=40.0, high=None),
        critical_batch_size=CriticalBatchSize(value=None, low=40.0, high=None, basis="probe"),
        tradeoff=(),
    )
    text = render(probe_report(unknown, 100), width=100, color=False, encoding="utf-8")
    assert text.startswith("Critical batch size  cannot tell (at least 40.0 examples, no upper bound)\n")
    assert "planned batch" not in text
    assert not unknown.resolved
    wide = CriticalBatchSize(value=100.0, low=30.0, high=310.0, basis="probe")
    assert not result(critical_batch_size=wide).resolved
    assert result().resolved


def test_exact_answers_and_trajectories_are_shown() -> None:
    shown = result(
        noise_scale=NoiseScale(value=100.0, low=90.0, high=112.0, exact=104.0),
        critical_batch_size=CriticalBatchSize(value=60.0, low=50.0, high=70.0, basis="trajectory"),
        trajectory=(
            TrajectoryPoint(step=0, loss=2.3, noise_scale=OPEN, simple_noise_scale=GOOD),
            TrajectoryPoint(step=50, loss=1.5, noise_scale=GOOD, simple_noise_scale=GOOD),
        ),
    )
    text = render(probe_report(shown, 100), width=100, color=False, encoding="utf-8")
    assert "Exact noise scale of this task: 104; measured 100" in text
    assert "From several points of training" in text
    assert "cannot tell (at least 40.0 examples" in text


def test_the_json_has_the_fields_of_the_contract_and_no_nan() -> None:
    data = json.loads(
        json.dumps(result(fit=Fit(chi2=float("nan"), dof=0, r_squared=None, p_value=None)).to_json())
    )
    assert list(data)[:2] == ["schema_version", "kind"]
    assert data["schema_version"] == 1
    assert data["fit"]["chi2"] is None
    contract = (
        "kind config config_hash provenance noise_scale max_improvement simple_noise_scale quadratic "
        "critical_batch_size points fit trajectory tradeoff recommendation doubts cost"
    )
    assert set(contract.split()) <= set(data)
    assert {"value", "low", "high", "confidence", "unit", "definition"} <= set(data["noise_scale"])
    fields = "batch_size improvement std_error step_size fitted gradient_error draws"
    assert set(fields.split()) <= set(data["points"][0])
    fields = (
        "batch_size steps_ratio examples_ratio time_efficiency compute_efficiency step_seconds "
        "examples_per_second relative_time relative_cost peak_memory_bytes fits"
    )
    assert set(fields.split()) <= set(data["tradeoff"][0])


def test_the_dry_run_names_time_and_memory() -> None:
    plan = DryRun(
        device="cpu", parameters=9610, dataset_length=1797, micro_batch_size=64, steps=(0, 100),
        seconds_per_example=1e-5, warmup_seconds=0.06, budget_seconds=60.0, extra_bytes=115_320, peak_bytes=None,
    )  # fmt: skip
    text = render(dry_run_report(plan), width=100, color=False, encoding="utf-8")
    for word in ("9,610", "1,797 examples", "0, 100", "at most about 60 s", "113 KiB"):
        assert word in text


def test_pictures_are_drawn_in_every_format(tmp_path: Path) -> None:
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        plot_probe(result(), tmp_path / f"p{ending}")
        assert (tmp_path / f"p{ending}").read_bytes().startswith(start)
    with pytest.raises(CallError, match=r"\.png, \.svg, \.pdf"):
        require_plot_format(Path("p.jpg"))
    with pytest.raises(RunError, match="nothing to draw"):
        plot_probe(result(points=()), tmp_path / "p.png")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (None, "?"), (float("inf"), "?"), (123456, "123,000"), (0.00123, "0.00123"), (99.96, "100"),
     (1.5, "1.50"), (2e-7, "2.00e-07"), (-3.14159, "-3.14")],
)  # fmt: skip
def test_significant_digits(number: float | None, text: str) -> None:
    assert significant(number) == text


def test_other_numbers() -> None:
    assert [percent(0.0512), percent(0.5), percent(2.5)] == ["5.1%", "50%", "250%"]
    assert [seconds(0.5), seconds(45), seconds(600), seconds(10_000)] == ["0.5 s", "45 s", "10 min", "2.8 h"]
    assert [size(10), size(2048), size(3 * 2**20), size(5 * 2**30)] == ["10 B", "2 KiB", "3 MiB", "5.0 GiB"]


# --- storage ------------------------------------------------------------------------------------------


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "r.json"
    write_json(path, {"x": 1})
    assert json.loads(path.read_text()) == {"x": 1}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


def test_what_cannot_be_written_is_found_before(tmp_path: Path) -> None:
    assert default_path(Path("configs/digits.yaml"), "probe") == Path(".bnoise/digits.probe.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(CallError, match="cannot"):
        require_writable(tmp_path / "file" / "r.json")
    with pytest.raises(CallError, match="is a folder or a device"):
        require_writable(tmp_path)
