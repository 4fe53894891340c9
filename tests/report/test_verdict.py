"""The verdict: what it says to do, what it says that saves, and which doubts take its green away."""

from __future__ import annotations

import dataclasses

import pytest

from bnoise_cli.advice.advise import advise
from bnoise_cli.numbers import percent
from bnoise_cli.records import CriticalBatchSize, Doubt, Estimate, HorizonBatch
from bnoise_cli.report.document import Sentence, Tone
from bnoise_cli.report.sections import report_sections
from bnoise_cli.report.words.difference import difference
from bnoise_cli.results.horizon import horizon_record
from bnoise_cli.results.result import Result
from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.samples import HORIZON, ahead, plan, result, store


def verdict(found: Result) -> tuple[str, Tone, str]:
    """Its headline, the headline's tone, and the rest."""
    section = report_sections([("r", found)])[0]
    assert section.title == "Verdict"
    assert section.headline is not None
    assert len(section.parts) <= 3
    rest = " ".join(part.text for part in section.parts if isinstance(part, Sentence))
    return section.headline.text, section.headline.tone, rest


def doubted(found: Result, *codes: str) -> Result:
    doubts = tuple(Doubt(code=code, finding=f"about {code}", remedy="Look.") for code in codes)
    return dataclasses.replace(found, doubts=(*found.doubts, *doubts))


def test_the_planned_batch_is_kept_with_a_better_rate() -> None:
    found = advise(dataclasses.replace(plan(batch_size=64), horizon=horizon_record(HORIZON)))
    assert found.recommendation is not None
    same = dataclasses.replace(found.recommendation, batch_size=64, learning_rate=0.57)
    said, tone, _ = verdict(dataclasses.replace(found, recommendation=same))
    steps = (1 + 42 / 64) * 0.9 * 32
    assert said == (
        "Keep 64, but raise the learning rate from 0.2 to 0.57: "
        f"{steps:.0f} steps instead of 110 to a loss of 0.200"
    )
    assert tone is Tone.GOOD


def test_a_rate_that_saves_no_steps_is_not_advised() -> None:
    steps = (1 + 42 / 64) * 0.9 * 32
    runs = tuple(dataclasses.replace(run, arrived=1.01 * steps) for run in HORIZON.runs)
    horizon = horizon_record(dataclasses.replace(HORIZON, runs=runs))
    found = advise(dataclasses.replace(plan(batch_size=64), horizon=horizon))
    assert found.recommendation is not None
    same = dataclasses.replace(found.recommendation, batch_size=64, learning_rate=0.16)
    said, _, _ = verdict(dataclasses.replace(found, recommendation=same))
    assert said == "Keep 64 at the planned learning rate of 0.2: 0.16, the best one, takes as many steps"


def test_another_batch_is_told_in_differences_from_the_plan() -> None:
    found = plan(batch_size=8)
    advised = found.recommendation
    assert advised is not None
    said, tone, rest = verdict(found)
    assert said.startswith(f"Take {advised.batch_size} instead of 8, at learning rate ")
    assert tone is Tone.GOOD
    planned = next(row for row in found.tradeoff if row.batch_size == 8)
    assert f"It takes {difference(advised.row, planned)} than the planned 8." in rest


def test_it_is_compared_with_the_plan_as_it_stands_if_that_was_trained_to_its_end() -> None:
    found = ahead()
    advised, horizon = found.recommendation, found.horizon
    assert advised is not None
    assert advised.batch_size != 64
    assert horizon is not None
    planned = next(row for row in found.tradeoff if row.batch_size == 64)
    law = f"{difference(advised.row, planned)} than the planned 64 at its best learning rate."
    _, _, rest = verdict(found)
    assert f" than the plan, and {law}" in rest
    steps = (advised.row.measured_steps_ratio or advised.row.steps_ratio) * horizon.curve[-1].min_steps
    fewer = percent(1 - steps * advised.batch_size / (112 * 64))
    assert f"{fewer} fewer examples than the plan, and" in rest
    late = tuple(dataclasses.replace(run, arrived=None) for run in horizon.runs)
    _, _, rest = verdict(dataclasses.replace(found, horizon=dataclasses.replace(horizon, runs=late)))
    assert f"It takes {law}" in rest
    as_planned = HorizonBatch(batch_size=64, learning_rate=horizon.planned_learning_rate, steps=112.0)
    best = dataclasses.replace(horizon, batches=(*horizon.batches, as_planned))
    _, _, rest = verdict(dataclasses.replace(found, horizon=best))
    assert f"It takes {law}" in rest


def test_a_rate_that_stays_is_said_to_stay() -> None:
    found = plan(batch_size=8)
    assert found.recommendation is not None
    same = dataclasses.replace(found.recommendation, learning_rate=0.201)
    said, _, _ = verdict(dataclasses.replace(found, recommendation=same))
    assert said == f"Take {same.batch_size} instead of 8, at the same learning rate of 0.2"


def test_the_verdict_says_which_sizes_take_the_same_time_or_that_times_chose_none() -> None:
    found = plan(batch_size=8)
    assert found.recommendation is not None
    same = found.recommendation.same_time
    assert same is not None
    assert f"{same.low} to {same.high} take the same time within 5%." in verdict(found)[2]
    assert found.throughput is not None
    steps = tuple(
        dataclasses.replace(step, low_seconds=step.seconds / 2) for step in found.throughput.step_times
    )
    unknown = advise(
        dataclasses.replace(found, throughput=dataclasses.replace(found.throughput, step_times=steps))
    )
    _, tone, rest = verdict(unknown)
    assert tone is Tone.UNSURE
    assert "the batch size nearest to the critical one: step times did not choose it" in rest
    assert "differ too much to tell which batch size is the fastest" in rest
    assert "the same time" not in rest


@pytest.mark.parametrize(
    ("time", "examples", "said"),
    [
        (1.09, 0.84, "9.0% more time and 16% fewer examples"),
        (0.91, 2.5, "9.0% less time and 150% more examples"),
    ],
)
def test_differences(time: float, examples: float, said: str) -> None:
    planned = dataclasses.replace(
        plan().tradeoff[0], relative_time=1.0, relative_cost=1.0, examples_ratio=1.0
    )
    row = dataclasses.replace(planned, relative_time=time, relative_cost=time, examples_ratio=examples)
    assert difference(row, planned) == said


@pytest.mark.parametrize(
    "code", ["one_step", "annealing", "law", "not_a_mean", "diverged", "at_initialisation", "timing"]
)
def test_a_doubt_that_undermines_it_takes_its_green_away_and_stands_in_it(code: str) -> None:
    _, tone, rest = verdict(doubted(plan(), "momentum", code))
    assert tone is Tone.UNSURE
    assert f"about {code}" in rest


def test_the_gravest_doubt_stands_first_and_others_are_counted() -> None:
    _, _, rest = verdict(doubted(plan(), "data_loading", "one_step", "diverged", "clipping"))
    assert "But about diverged (and 2 more doubts)." in rest
    assert "Look." not in rest


def test_without_a_recommendation_the_remedy_of_the_gravest_doubt_stands_in_it() -> None:
    undecided = dataclasses.replace(plan(), recommendation=None, alternatives=())
    _, _, rest = verdict(doubted(undecided, "one_step"))
    assert rest.endswith("But about one_step. Look.")


def test_a_doubt_about_details_leaves_it_green() -> None:
    _, tone, rest = verdict(doubted(plan(), "frozen", "random_masks", "step_time"))
    assert tone is Tone.GOOD
    assert "Nothing found puts this in doubt." in rest


def test_an_open_interval_is_no_verdict() -> None:
    open_one = Estimate(value=42.0, low=20.0, high=None)
    moving = CriticalBatchSize(value=42.0, low=open_one.low, high=None, basis="horizon")
    found = advise(result(critical_batch_size=moving))
    said, tone, rest = verdict(doubted(found, "horizon_moves"))
    assert said == "Cannot tell whether another batch size than the planned 64 is better"
    assert tone is Tone.UNSURE
    assert "about horizon_moves" in rest


def test_without_a_batch_size_the_best_rate_of_the_planned_one_is_told() -> None:
    horizon, trained = horizon_record(HORIZON), HorizonBatch(batch_size=64, learning_rate=0.57, steps=52)
    assert horizon is not None
    horizon = dataclasses.replace(horizon, batches=(*horizon.batches, trained))
    moving = CriticalBatchSize(value=42.0, low=20.0, high=None, basis="horizon")
    found = advise(dataclasses.replace(plan(batch_size=64), horizon=horizon, critical_batch_size=moving))
    said, tone, _ = verdict(found)
    assert said == (
        "Cannot tell whether another batch size than the planned 64 is better, but raise the learning rate from 0.2 "
        "to 0.57: 52 steps instead of 110 to a loss of 0.200"
    )
    assert tone is Tone.UNSURE


def test_planned_and_recommended_rows_are_marked() -> None:
    found = plan(batch_size=8)
    [grid] = [part for s in report_sections([("r", found)]) if s.title == "Trade-off" for part in s.parts[:1]]
    marked = {grid.rows[i][-1]: grid.rows[i][0] for i in grid.strong}  # type: ignore[union-attr]
    assert found.recommendation is not None
    assert marked == {"planned": "8", "recommended": str(found.recommendation.batch_size)}


def test_quiet_prints_the_verdict_alone(bnoise: Call, write: Write) -> None:
    write("quad.yaml", QUADRATIC_CONFIG)
    path = store("quad.yaml")
    _, full, _ = bnoise("report", str(path))
    _, quiet, err = bnoise("report", str(path), "-q")
    assert quiet.startswith("Verdict  ")
    assert full.startswith(quiet)
    assert "Critical batch size  " not in quiet
    assert err == ""


def test_one_step_recommends_nothing_if_a_horizon_was_asked_for() -> None:
    """One step has recommended 512 on the digits, where training shows 32; the trade-off by it is still shown."""
    found = doubted(plan(), "one_step")

    def advised(horizon: str) -> Result:
        settings = {**found.config, "probe": {**found.config.get("probe", {}), "horizon": horizon}}
        return advise(dataclasses.replace(found, config=settings))

    assert advised("off").recommendation is not None
    missing = advised("auto")
    assert missing.recommendation is None
    assert missing.alternatives == ()
    assert missing.tradeoff
    said, tone, _ = verdict(missing)
    assert said.endswith("no horizon was measured, and one step is not enough")
    assert tone is Tone.UNSURE
