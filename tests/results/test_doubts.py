"""Each doubt can be reached; numbers are written plainly; a file is written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.maths.analysis import Analysis, Limit
from bnoise_cli.measurement.outcome import HorizonFound, LossChange, ProbeRun, StopReason
from bnoise_cli.numbers import percent, seconds, significant, size
from bnoise_cli.records import Estimate, Fit, Quadratic
from bnoise_cli.result_file import default_path
from bnoise_cli.results.horizon import horizon_estimate
from bnoise_cli.results.probe_doubts import probe_doubts
from bnoise_cli.spec.schema import Config
from bnoise_cli.storage import require_writable, write_json
from tests.samples import ANALYSIS, CONFIG, DESIGN, HORIZON, OPEN, POINT, RUN, level, plan


def codes(run: ProbeRun = RUN, config: Config = CONFIG) -> list[str]:
    """Codes of the doubts, but for the one that there is no horizon."""
    return [doubt.code for doubt in probe_doubts(run, config) if doubt.code != "one_step"]


def changed(**changes: Any) -> ProbeRun:
    """The run with its measurement or analysis changed."""
    analysis_fields = {field.name for field in dataclasses.fields(Analysis)}
    inner = {key: value for key, value in changes.items() if key in analysis_fields}
    outer = {key: value for key, value in changes.items() if key not in analysis_fields}
    point = dataclasses.replace(POINT, analysis=dataclasses.replace(ANALYSIS, **inner))
    return dataclasses.replace(RUN, points=(dataclasses.replace(point, **outer),))


def ahead(horizon: HorizonFound = HORIZON, **changes: Any) -> ProbeRun:
    """The run with a horizon, changed."""
    point = dataclasses.replace(POINT, horizon=dataclasses.replace(horizon, **changes), no_horizon=None)
    return dataclasses.replace(RUN, points=(point,))


def test_a_good_probe_leaves_no_doubt() -> None:
    assert codes(ahead()) == []


def test_without_training_runs_the_answer_is_that_of_one_step() -> None:
    assert [doubt.code for doubt in probe_doubts(RUN, CONFIG)] == ["one_step"]


def test_runs_that_end_before_the_steps_asked_for_are_short() -> None:
    last = HORIZON.levels[-1].steps
    assert codes(ahead(asked=last)) == []
    [doubt] = probe_doubts(ahead(asked=8 * last), CONFIG)
    assert doubt.code == "horizon_short"
    assert f"probe.horizon asks for {8 * last}" in doubt.finding


def test_an_optimizer_without_a_noise_scale_is_named() -> None:
    reason = "the one-step noise scale is not known for Muon"
    point = dataclasses.replace(
        POINT, horizon=HORIZON, no_horizon=None, analysis=None, design=None, replicates=0, no_one_step=reason
    )
    [doubt] = probe_doubts(dataclasses.replace(RUN, points=(point,)), CONFIG)
    assert doubt.code == "no_one_step"
    assert reason in doubt.finding


def test_a_horizon_has_the_momentum_and_the_clipping_of_the_plan() -> None:
    run = dataclasses.replace(ahead(), momentum=0.9, weight_decay=0.1)
    assert codes(run) == []


@pytest.mark.parametrize(
    ("values", "code", "low", "high"),
    [
        # Over so few steps it may rise or fall by as much.
        ((50.0,), "horizon_short", 20.0, None),
        ((100.0, 60.0), "horizon_moves", 48.0 * 0.6, 75.0),
        ((50.0, 70.0), "horizon_moves", 56.0, 87.5 * 1.4),
        ((20.0, 60.0), "horizon_moves", 48.0, 75.0 * 3),
    ],
)
def test_a_curve_that_moves_is_open_to_that_side(
    values: tuple[float, ...], code: str, low: float, high: float | None
) -> None:
    levels = tuple(level(8 << k, value, 0.3 - 0.05 * k) for k, value in enumerate(values))
    run = ahead(levels=levels, stands_still=False)
    assert codes(run) == [code]
    estimate = horizon_estimate(dataclasses.replace(HORIZON, levels=levels, stands_still=False))
    assert estimate.low == pytest.approx(low)
    assert estimate.high == (pytest.approx(high) if high is not None else None)


@pytest.mark.parametrize(
    ("values", "said"),
    [((100.0, 60.0), "still falls"), ((50.0, 60.0), "may still rise"), ((60.0, 50.0), "may still fall")],
)
def test_a_change_within_the_interval_is_not_said_to_be_sure(values: tuple[float, ...], said: str) -> None:
    levels = tuple(level(8 << k, value, 0.3 - 0.05 * k) for k, value in enumerate(values))
    [doubt] = probe_doubts(ahead(levels=levels, stands_still=False), CONFIG)
    assert f"the critical batch size {said} with the length of training: " in doubt.finding


def test_a_curve_that_moves_to_a_low_loss_is_about_the_way_there() -> None:
    levels = (level(8, 20.0, 0.2), level(16, 60.0, 0.04))  # from 0.41
    run = ahead(levels=levels, stands_still=False)
    [doubt] = probe_doubts(run, CONFIG)
    assert doubt.code == "horizon_moves"
    assert "Set probe.horizon: 64" in doubt.remedy
    found = dataclasses.replace(HORIZON, levels=levels, stands_still=False)
    assert horizon_estimate(found) == levels[-1].fit.critical


def test_a_start_at_the_noise_floor_is_named() -> None:
    low = dataclasses.replace(HORIZON.levels[0].arrivals[0], log_rate=-3.0)
    first = dataclasses.replace(HORIZON.levels[0], arrivals=(low, *HORIZON.levels[0].arrivals[1:]))
    assert "annealing" in codes(ahead(levels=(first,), stands_still=False))


@pytest.mark.parametrize(
    ("code", "run"),
    [
        ("failed", dataclasses.replace(RUN, failure=RunError("the disk fell out"))),
        ("interrupted", dataclasses.replace(RUN, interrupted=True)),
        ("unresolved", changed(noise_scale=OPEN)),
        ("imprecise", changed(half_width_by_chance=0.4, stop=StopReason.BUDGET)),
        ("few_replicates", changed(replicates=5)),
        ("memory", changed(shortened_from=256)),
        ("at_initialisation", changed(step=0)),
        ("not_a_mean", dataclasses.replace(
            RUN, findings=dataclasses.replace(RUN.findings, mean_gap=0.3, is_mean=False, group=64))),
        ("batch_norm", dataclasses.replace(
            RUN, findings=dataclasses.replace(RUN.findings, batch_norms=2, group=64))),
        ("diverged", dataclasses.replace(RUN, warmup=LossChange(before=2.3, after=9.0, error=0.5))),
        ("below_one", changed(noise_scale=Estimate(value=0.5, low=0.4, high=0.6),
                              design=dataclasses.replace(DESIGN, batch_sizes=np.array([1.0, 4, 16, 64])))),
        ("momentum", dataclasses.replace(RUN, momentum=0.9)),
        ("weight_decay", dataclasses.replace(RUN, weight_decay=0.1)),
        ("range", changed(noise_scale=Estimate(value=9.0, low=8.0, high=10.0))),
        ("range", changed(noise_scale=Estimate(value=400.0, low=370.0, high=440.0))),
        ("rounding", changed(rounding_floor=1.0)),
        ("unequal_lengths", dataclasses.replace(
            RUN, findings=dataclasses.replace(RUN.findings, weighed_by="labels of `labels`", by_tokens=31.5))),
        ("sampler", dataclasses.replace(
            RUN, findings=dataclasses.replace(RUN.findings, drawn="200 of 4,000 examples by its SubsetRandomSampler"))),
        ("batch_sampler", dataclasses.replace(
            RUN, findings=dataclasses.replace(RUN.findings, batch_sampler="Pairs"))),
        ("loader_batch_size", dataclasses.replace(
            RUN, findings=dataclasses.replace(RUN.findings, loader_batch_size=17))),
        ("weighted_mean", dataclasses.replace(
            RUN, findings=dataclasses.replace(RUN.findings, mean_gap=0.3, is_mean=False, weighted=True, group=64))),
        ("small_batches", dataclasses.replace(
            RUN, findings=dataclasses.replace(RUN.findings, refused="a batch of 1 example failed.", group=64))),
        ("held_buffers", dataclasses.replace(
            RUN, findings=dataclasses.replace(RUN.findings, held_buffers=("u", "v", "w", "x")))),
        ("random_masks", dataclasses.replace(RUN, findings=dataclasses.replace(RUN.findings, stochastic=True))),
        ("frozen", dataclasses.replace(RUN, findings=dataclasses.replace(RUN.findings, frozen=0.9))),
        ("law", changed(fit=Fit(chi2=30.0, dof=2, r_squared=0.8, p_value=1e-4), law_holds=False)),
        ("negative_curvature", changed(quadratic=Quadratic(curvature=-1.0, noise=3.0, noise_scale=None, ratio=None))),
        ("not_quadratic", changed(quadratic=Quadratic(curvature=1.0, noise=3.0, noise_scale=250.0, ratio=2.5))),
        ("slope", changed(slope_gap=-0.2)),
        ("small_dataset", dataclasses.replace(RUN, dataset_length=300)),
        ("beyond_dataset", dataclasses.replace(RUN, dataset_length=90)),
    ],
)  # fmt: skip
def test_every_doubt_can_be_reached(code: str, run: ProbeRun) -> None:
    first, doubt = probe_doubts(run, CONFIG)
    assert [first.code, doubt.code] == ["one_step", code]
    assert doubt.finding
    assert doubt.remedy.endswith(".")


@pytest.mark.parametrize(
    "warmup",
    [
        None,
        LossChange(before=2.3, after=3.4, error=0.01),  # less than half more
        LossChange(before=2.3, after=9.0, error=2.0),  # a few examples of large loss
        LossChange(before=-5.0, after=-4.0, error=0.01),
    ],
)
def test_a_warm_up_without_evidence_is_not_said_to_diverge(warmup: LossChange | None) -> None:
    assert codes(dataclasses.replace(RUN, warmup=warmup)) == []


def test_a_planned_batch_beyond_the_dataset_is_a_doubt() -> None:
    assert codes(dataclasses.replace(RUN, dataset_length=60)) == ["batch_beyond_dataset", "beyond_dataset"]


def test_clipping_is_a_doubt() -> None:
    training = CONFIG.training.model_copy(update={"max_grad_norm": 1.0})
    assert codes(config=CONFIG.model_copy(update={"training": training})) == ["clipping"]


def test_a_checkpoint_is_no_initialisation_and_an_exact_limit_no_end_of_the_range() -> None:
    assert codes(dataclasses.replace(changed(step=0), from_checkpoint=True)) == []
    limit = Limit(slope=1.0, signal=1.0, improvement=1.0, step_size=1.0, error=0.0, curvature=0.5)
    design = dataclasses.replace(DESIGN, limit=limit)
    assert codes(changed(noise_scale=Estimate(value=400.0, low=370.0, high=440.0), design=design)) == []


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"beyond_at": (256, 1024)}, "steps_too_short", "at batch sizes 256, 1,024 the loss"),
        ({"beyond_at": (256,)}, "steps_too_short", "at batch size 256 the loss"),
        ({"outgrown_at": (1024,)}, "outgrown", "one step at batch size 1,024 gains"),
        (
            {"design": dataclasses.replace(DESIGN, lower_at=3.0)},
            "two_descents",
            "the gradient of many examples",
        ),
    ],
)
def test_lines_that_support_no_law_are_doubts(changes: dict[str, Any], code: str, words: str) -> None:
    unknown = Estimate(value=None, low=0.0, high=None)
    run = changed(noise_scale=unknown, law_holds=False, **changes)
    assert code in codes(run)
    assert words in next(doubt.finding for doubt in probe_doubts(run, CONFIG) if doubt.code == code)


def test_the_json_has_the_fields_of_the_contract_and_no_nan() -> None:
    data = json.loads(
        json.dumps(
            dataclasses.replace(
                plan(), fit=Fit(chi2=float("nan"), dof=0, r_squared=None, p_value=None)
            ).to_json()
        )
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
    fields = "batch_size micro_batch_size accumulation_steps world_size learning_rate reason"
    assert set(fields.split()) <= set(data["recommendation"])


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (None, "?"), (float("inf"), "?"), (123456, "123,000"), (0.00123, "0.00123"), (99.96, "100"),
     (1.5, "1.50"), (2e-7, "2.00e-07"), (-3.14159, "-3.14")],
)  # fmt: skip
def test_significant_digits(number: float | None, text: str) -> None:
    assert significant(number) == text


def test_other_numbers() -> None:
    assert [percent(0.0512), percent(0.5), percent(2.5)] == ["5.1%", "50%", "250%"]
    times = [0, 2e-6, 1.234e-3, 0.5, 45, 600, 10_000, 864_000]
    texts = ["0 s", "2.00 µs", "1.23 ms", "500 ms", "45 s", "10 min", "2.8 h", "10.0 days"]
    assert [seconds(time) for time in times] == texts
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
