"""B_crit of a probe has a value only if the law holds and a batch of that size exists, or if training shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnoise_cli.measurement.outcome import ProbeRun
from bnoise_cli.results.probe import ProbeResult, probe_result
from bnoise_cli.spec.load import load_spec
from tests.cases import QUADRATIC_CONFIG
from tests.samples import ANALYSIS, HORIZON, POINT, RUN

FEW_EXAMPLES: dict[str, Any] = {"dataset_length": 80}
MISFIT = dataclasses.replace(ANALYSIS, law_holds=False, fit=dataclasses.replace(ANALYSIS.fit, p_value=1e-4))
NO_LAW: dict[str, Any] = {"points": (dataclasses.replace(POINT, analysis=MISFIT),)}


@pytest.fixture
def result_of(write: Callable[[str, str], Path]) -> Callable[[ProbeRun], ProbeResult]:
    spec = load_spec(write("q.yaml", QUADRATIC_CONFIG))
    return lambda run: probe_result(run, spec)


@pytest.mark.parametrize(("changes", "code"), [(FEW_EXAMPLES, "beyond_dataset"), (NO_LAW, "law")])
def test_one_step_alone_is_no_answer(
    changes: dict[str, Any], code: str, result_of: Callable[[ProbeRun], ProbeResult]
) -> None:
    run = dataclasses.replace(RUN, **changes)
    result = result_of(run)
    assert result.critical_batch_size.value is None
    assert not result.resolved
    assert code in [doubt.code for doubt in result.doubts]


def test_a_noise_scale_beyond_the_dataset_is_kept_beside_a_limit_of_all_examples(
    result_of: Callable[[ProbeRun], ProbeResult],
) -> None:
    result = result_of(dataclasses.replace(RUN, **FEW_EXAMPLES))
    assert result.noise_scale.value == ANALYSIS.noise_scale.value
    assert (result.critical_batch_size.low, result.critical_batch_size.high) == (80.0, None)


@pytest.mark.parametrize("changes", [FEW_EXAMPLES, NO_LAW])
def test_a_horizon_answers_all_the_same(
    changes: dict[str, Any], result_of: Callable[[ProbeRun], ProbeResult]
) -> None:
    run = dataclasses.replace(RUN, **changes)
    points = tuple(dataclasses.replace(point, horizon=HORIZON, no_horizon=None) for point in run.points)
    result = result_of(dataclasses.replace(run, points=points))
    assert result.resolved
    assert result.critical_batch_size.basis == "horizon"
