"""The horizon's search on quadratics whose critical batch size is known exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnoise_cli.maths.rate_search import PER_DOUBLING
from bnoise_cli.measurement.horizon.curve import stands_still
from bnoise_cli.measurement.horizon.ladder import Ladder
from bnoise_cli.measurement.horizon.learning_rates import LearningRates, _next_mark
from bnoise_cli.measurement.horizon.nearby import around_recommended, most_useful
from bnoise_cli.measurement.horizon.search import Search
from bnoise_cli.measurement.horizon.trained import Trained, stream_of
from tests import samples
from tests.horizon.quadratics import BASE_RATE, Array, Quadratic, QuadraticRuns, search, spectra

#: The fourth, 1/i², takes 2 million examples a search: tests/statistics counts it alone.
NAMES = ["1/i", "1/i, sharp trained", "two curvatures"]


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_the_curve_is_the_exact_one(name: str) -> None:
    """At 16 steps the median error of three searches is below 25%, and two of three intervals hold the truth.

    Single errors are about 10%; tests/statistics counts them.
    """
    quadratic = spectra()[name]
    levels = [search(quadratic, seed, steps=16).levels[-1] for seed in range(3)]
    errors = [
        abs(level.fit.log_critical - math.log(quadratic.critical_batch_size(level.loss))) for level in levels
    ]
    assert np.median(errors) < math.log(1.25)
    assert sum(error < level.fit.log_error for error, level in zip(errors, levels, strict=True)) >= 2


def test_one_step_is_twenty_times_off_where_sharp_directions_are_trained() -> None:
    quadratic = spectra()["1/i, sharp trained"]
    [level] = search(quadratic, 0, steps=8, guess=10.0, most_examples=2e5).levels[-1:]
    assert quadratic.noise_scale == pytest.approx(100)
    assert level.fit.critical.value is not None
    assert 3.5 < level.fit.critical.value < 7


@pytest.mark.full
def test_a_curve_that_rises_does_not_stand_still() -> None:
    """The exact curve rises by a factor of 1.9 between the losses of the first level and the last."""
    quadratic = spectra()["rising"]
    found = search(quadratic, 0, steps=8, guess=60.0)
    first, last = found.levels[0], found.levels[-1]  # losses differ by seed, and so does the exact rise
    exact = [math.log(quadratic.critical_batch_size(level.loss)) for level in (first, last)]
    assert not found.stands_still
    assert exact[1] - exact[0] > math.log(1.5)
    assert last.fit.log_critical - first.fit.log_critical > math.log(1.2)
    assert abs(last.fit.log_critical - exact[1]) < 1.5 * last.fit.log_error


def test_a_loss_of_a_tenth_ends_the_search() -> None:
    """The curve rises for as long as it was looked at."""
    found = search(spectra()["1/i"], 0, most_examples=3e6)
    assert found.complete
    assert not found.stands_still
    *before, last = found.levels
    assert [level.steps for level in before] == [4, 8, 16, 32]
    assert min(level.loss for level in before) > last.loss == 0.1 * found.trained.start_loss
    assert 32 < last.steps < 64
    there = found.trained.steps_to(found.ladder[-1], last.loss)
    assert there is not None
    assert last.steps == pytest.approx(math.exp(there.log_steps), rel=0.05)


def test_a_budget_of_examples_keeps_the_levels_that_were_reached() -> None:
    quadratic = spectra()["two curvatures"]
    whole = search(quadratic, 0, steps=16, guess=30.0)
    shorter = search(quadratic, 0, steps=16, guess=30.0, most_examples=60_000)
    assert [level.steps for level in whole.levels] == [4, 8, 16]
    assert [level.steps for level in shorter.levels] in ([4], [4, 8])
    assert not shorter.complete


def test_the_last_level_is_as_far_as_the_budget_holds() -> None:
    """Between two doublings, and it is reached: what the runs on their way to a level have taken is not lost."""
    for seed in range(4):
        found = search(spectra()["two curvatures"], seed, steps=64, guess=30.0, most_examples=100_000)
        *_, last = (level.steps for level in found.levels)
        assert 8 < last < 16
        assert not found.complete


def test_a_budget_that_holds_no_level_leaves_none() -> None:
    found = search(spectra()["two curvatures"], 0, most_examples=500)
    assert found.levels == []
    assert found.obstacle is None


@pytest.mark.parametrize("guess", [1.0, 16.0, 1000.0])
def test_the_ladder_moves_to_the_critical_batch_size(guess: float) -> None:
    """From a guess 20 times too low and 60 times too high."""
    quadratic = spectra()["two curvatures"]
    found = search(quadratic, 0, steps=8, guess=guess)
    last = found.levels[-1]
    critical = math.exp(last.fit.log_critical)
    assert critical == pytest.approx(quadratic.critical_batch_size(last.loss), rel=0.4)
    assert found.ladder[0] * 2 < critical < found.ladder[-1] / 2


def test_the_planned_batch_is_trained_at_its_best_and_at_the_planned_rate() -> None:
    found = search(spectra()["two curvatures"], 0, steps=8)
    loss = found.levels[-1].loss
    best = found.trained.steps_to(64, loss)
    planned = found.trained.arrival_of(64, 0, loss)
    assert best is not None
    assert planned is None or planned > math.exp(best.log_steps)
    assert found.trained.known[64][0].steps[-1] >= math.exp(best.log_steps)


class LateDivergence(QuadraticRuns):
    """Replicates of the largest batch that are added later are not finite."""

    def extend(self, batch_size: int, points: list[int], replicates: range, step: int) -> list[list[float]]:
        found = super().extend(batch_size, points, replicates, step)
        return [[math.nan] * len(row) for row in found] if batch_size >= 256 and replicates.start else found


def test_a_rate_whose_later_replicates_diverge_has_diverged() -> None:
    """Otherwise the lowest loss is NaN, and all runs are sent after a loss that none can reach."""
    quadratic = spectra()["two curvatures"]
    runs = LateDivergence(quadratic, 0)
    found = Search(runs, start_loss=quadratic.start_loss, guess=150.0, planned=64, most_steps=4)  # type: ignore[arg-type]
    found.run()
    known = found.trained.known
    rates = [(size, point) for size, of_size in known.items() for point in of_size]
    broken = [(size, point) for size, point in rates if not np.isfinite(known[size][point].losses[-1]).all()]
    assert broken
    assert all(found.trained.has_diverged(size, point) for size, point in broken)
    assert [level.steps for level in found.levels] == [4]


class Spikes:
    """Sixteen runs, of which some are at another loss from step 2 to `last` and then go on like the others."""

    def __init__(self, spikes: int, loss: float, last: int) -> None:
        self.spikes, self.loss, self.last = spikes, loss, last

    def extend(self, size: int, points: list[int], replicates: range, step: int) -> list[list[float]]:
        high = self.loss if 2 <= step <= self.last else 1 / step
        return [[high if run >= 16 - self.spikes else 1 / step for run in replicates] for _ in points]


@pytest.mark.parametrize(
    ("spikes", "loss", "last", "diverged", "recommended"),
    [
        (0, 2.1, 8, False, True),
        (1, 2.1, 8, False, False),
        (2, 2.1, 6, False, False),
        (3, 2.1, 6, True, False),
        (16, 2.1, 5, False, True),
        (16, 1.9, 8, False, True),
        (1, math.nan, 2, True, False),
        (1, -math.inf, 2, True, False),
    ],
)
def test_a_rate_at_which_runs_diverge_is_too_high(
    spikes: int, loss: float, last: int, diverged: bool, recommended: bool
) -> None:
    """However low their loss is later. It is not recommended even if one does; the same if the runs are added later."""
    for at_once in (16, 1):
        trained = Trained(Spikes(spikes, loss, last), start_loss=1.0)  # type: ignore[arg-type]
        trained.begin(8, 0, at_once)
        for step in range(1, 10):
            trained.advance(8, [0], step)
        trained.add_replicates(8, 0, 16)
        assert trained.has_diverged(8, 0) is diverged
        assert trained.strict().has_diverged(8, 0) is not recommended


def test_a_small_batch_is_read_in_the_first_steps_and_then_seldom() -> None:
    """A rate that is too high shows it in the first steps, and may recover."""
    marks, step = [], 0
    while step < 150:
        step = _next_mark(step, quiet=100)
        marks.append(step)
    assert marks == [1, 2, 4, 8, 32, 100, 140, 196]


def test_a_ladder_that_goes_round_in_circles_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ladder, "move", lambda *_: True)
    found = search(spectra()["two curvatures"], 0, steps=8, guess=30.0)
    assert [level.steps for level in found.levels] == [4, 8]


@pytest.mark.full
def test_a_length_that_is_asked_for_is_reached() -> None:
    """Although the loss is lower than a tenth, or the curve stands still, before it."""
    low = search(spectra()["1/i"], 0, steps=64, most_examples=6e6)
    assert low.complete
    assert low.levels[-1].steps == 64
    assert low.levels[-1].loss < 0.1 * low.trained.start_loss
    still = search(spectra()["1/i, sharp trained"], 1, steps=40, guess=30.0, most_examples=4e6)
    assert still.complete
    assert [level.steps for level in still.levels] == [4, 8, 16, 32, 40]


class Still(Search):
    """A search whose curve stands still after 32 steps."""

    @property
    def stands_still(self) -> bool:
        return self._curve.steps >= 32


class Moving(Still):
    """A search at the end of whose first climb it turns out that the curve does not stand still."""

    moved_at: int | None = None

    def _finish(self) -> None:
        super()._finish()
        self.moved_at = self.moved_at or self._curve.steps

    @property
    def stands_still(self) -> bool:
        return self._curve.steps != self.moved_at and super().stands_still


@pytest.mark.full
def test_a_curve_that_moves_after_all_is_followed_further() -> None:
    """More replicates at the end of the climb can move B_crit: the runs go on."""
    quadratic = spectra()["1/i, sharp trained"]
    climbs = []
    for kind in (Still, Moving):
        runs = QuadraticRuns(quadratic, 5, 4e6)
        found = kind(runs, start_loss=quadratic.start_loss, guess=30.0, planned=64)  # type: ignore[arg-type]
        found.run()
        assert found.complete
        climbs.append(found.levels[-1].steps)
    assert climbs[1] > climbs[0] == 32


def test_a_rate_that_arrives_just_in_time_is_waited_for() -> None:
    """At step 20 the loss is reached; that is sure at 26, when the smoothed loss has its later half."""
    trained = Trained(Spikes(0, 1.0, 1), start_loss=1.0)  # type: ignore[arg-type]
    rates = LearningRates(trained, planned=8, replicates=lambda size: 1)
    [at] = rates.arrivals(8, [0], 1 / 20, limit=22).values()
    assert at == pytest.approx(20, rel=0.05)
    [late] = rates.arrivals(8, [1], 1 / 20, limit=18).values()
    assert late is None


def test_runs_on_their_way_to_a_level_that_is_left_go_no_further_back() -> None:
    """Their later readings are left out, so that further replicates end where the last level needs them."""
    trained = Trained(Spikes(0, 1.0, 1), start_loss=1.0)  # type: ignore[arg-type]
    trained.begin(8, 0, 2)
    for step in (1, 2, 4, 8, 16):
        trained.advance(8, [0], step)
    trained.cut(8, 0, 3.0)
    rate = trained.known[8][0]
    assert rate.steps == [0, 1, 2, 4]
    trained.add_replicates(8, 0, 4)
    assert [len(row) for row in rate.losses] == [4, 4, 4, 4]
    trained.cut(8, 0, 100.0)
    assert rate.last == 4


def test_the_first_replicates_share_their_draws_and_later_ones_do_not() -> None:
    streams = {point: [stream_of(point, replicate) for replicate in range(8)] for point in (-40, 0, 3)}
    assert len({tuple(of_rate[:4]) for of_rate in streams.values()}) == 1
    assert len({stream for of_rate in streams.values() for stream in of_rate}) == 4 + 3 * 4
    assert all(0 <= stream < 2**64 for of_rate in streams.values() for stream in of_rate)


def test_a_rate_that_has_diverged_arrives_nowhere() -> None:
    """It arrived before its further replicate diverged; it still counts as a worse rate on that side."""
    trained = Trained(Spikes(3, 2.1, 8), start_loss=1.0)  # type: ignore[arg-type]
    for point in (-8, 0):
        trained.begin(8, point, 1)
        for step in range(1, 10):
            trained.advance(8, [point], step)
    before = trained.steps_to(8, 0.3)
    assert before is not None
    trained.add_replicates(8, 0, 16)
    assert trained.has_diverged(8, 0)
    assert trained.arrival_of(8, 0, 0.3) is None
    after = trained.steps_to(8, 0.3)
    assert after is not None
    assert after.log_rate == -1


@pytest.mark.parametrize("most", [90_000, 110_000])
def test_wherever_the_budget_ends_the_levels_are_those_of_all_runs(most: int) -> None:
    """The losses fall from level to level, and one more look at the runs changes nothing."""
    for name in NAMES[1:]:
        found = search(spectra()[name], 4, guess=30.0, most_examples=most)
        levels = list(found.levels)
        losses = [level.loss for level in levels]
        assert losses == sorted(losses, reverse=True)
        found._curve.derive()
        assert found.levels == levels


def test_a_loss_that_diverges_at_every_rate_leaves_no_level() -> None:
    """With h = 1e9 the highest stable rate lies 2^27 below the planned one, further than the search goes."""
    stiff = Quadratic(np.full(4, 1e9), np.full(4, 1e9), np.ones(4))
    found = search(stiff, 0, guess=16.0)
    assert found.levels == []
    assert found.obstacle == "the loss diverges at every learning rate that was tried"
    assert BASE_RATE * 2**-12 > 2 / 1e9


class Floor(Quadratic):
    """A loss of 1 at the minimum."""

    def loss(self, weights: Array) -> float:
        return 1 + super().loss(weights)


def test_a_loss_that_does_not_fall_leaves_no_level_and_ends() -> None:
    """At the minimum every step makes the loss worse; it is never reached again."""
    flat = Floor(np.ones(4), np.full(4, 1e-3), np.full(4, 1e-9))
    found = search(flat, 0, guess=16.0, most_examples=2e5)
    assert found.levels == []
    assert found.obstacle == "the loss does not fall below 1, where it starts, at any learning rate tried"


class Momentum:
    """Steps that the start's momentum takes raise the loss at every learning rate; after the fifth it falls."""

    def extend(self, size: int, points: list[int], replicates: range, step: int) -> list[list[float]]:
        def loss(point: int) -> float:
            rate = 2.0 ** (point / 8)
            if rate > 1:
                return 2.0
            return 1.1 - 0.05 * rate if step < 6 else 1.05 / (1 + rate * (step - 5) / (1 + 16 / size))

        return [[loss(point) for _ in replicates] for point in points]

    def allow(self, part: float) -> None:
        pass

    def growth(self, part: float, wanted: float) -> float:
        return wanted


def test_a_loss_that_first_rises_at_every_rate_is_followed_until_it_falls() -> None:
    """The first level, after 4 steps, has no loss below the start's; that is not the end of the search."""
    found = Search(Momentum(), start_loss=1.0, guess=16.0, planned=16, most=128, most_steps=16)  # type: ignore[arg-type]
    found.run()
    assert [level.steps for level in found.levels] == [8, 16]
    assert min(point for rates in found.trained.known.values() for point in rates) > -8 * 8


class Spiked:
    """At every learning rate the loss is low after four and five steps alone."""

    def extend(self, size: int, points: list[int], replicates: range, step: int) -> list[list[float]]:
        loss = 0.99 if step < 4 else 0.5 if step < 6 else 1.9
        return [[loss for _ in replicates] for _ in points]

    def allow(self, part: float) -> None:
        pass


def test_where_no_rate_keeps_its_loss_the_reason_is_not_the_budget() -> None:
    found = Search(Spiked(), start_loss=1.0, guess=8.0, planned=8, most_steps=4)  # type: ignore[arg-type]
    found.run()
    assert found.levels == []
    assert found.obstacle == "no learning rate that was tried keeps the loss below 1, where it starts"


class Floors:
    """Batch sizes below the largest stay at a high loss."""

    def extend(self, size: int, points: list[int], replicates: range, step: int) -> list[list[float]]:
        assert step < 10_000
        return [[1 / step if size == 64 else 0.9 for _ in replicates] for _ in points]

    def allow(self, part: float) -> None:
        pass


def test_where_only_the_largest_batch_arrives_the_reason_is_not_the_budget() -> None:
    found = Search(Floors(), start_loss=1.0, guess=8.0, planned=8, most=64, most_steps=4)  # type: ignore[arg-type]
    found.run()
    assert found.levels == []
    assert found.obstacle is not None
    assert found.obstacle.startswith("smaller batch sizes did not come to the loss of 64 after 4 steps")


def test_a_budget_that_ends_on_the_way_to_a_level_leaves_the_one_before_as_it_was() -> None:
    """Its loss stays the one that its runs were trained to, however far the next level has come."""
    quadratic = spectra()["two curvatures"]
    whole = search(quadratic, 0, steps=8)
    for most in (190_000, 200_000):  # a little less, and its ladder moves once more
        cut = search(quadratic, 0, steps=32, most_examples=most)
        losses = {level.steps: level.loss for level in cut.levels}
        for level in whole.levels:
            assert losses.get(level.steps, level.loss) == level.loss


def test_rates_that_diverge_after_they_arrived_are_not_replicated() -> None:
    found = search(spectra()["1/i"], 0, steps=8)
    size = found.levels[-1].arrivals[0].batch_size
    for rate in found.trained.known[size].values():
        rate.diverged = [True] * rate.replicates
    found._replicates.sharpen(1.001)
    assert most_useful(found.levels[-1], found._rates, found.trained) != size


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_batch_size_is_trained_where_one_is_recommended(name: str) -> None:
    """The ladder's batch sizes lie a factor of 4 apart; those around B_crit a factor of 2."""
    for seed in range(3):
        found = search(spectra()[name], seed, steps=8, guess=30.0)
        level = found.levels[-1]
        there = math.exp(level.fit.log_critical)
        between = [size for size in level.sizes if size not in found.ladder and size != 64]
        assert any(0.45 * there < size < 2.2 * there for size in between)
        assert all({size // 2, 2 * size} <= {*found.ladder} for size in between)


class Cliff(QuadraticRuns):
    """One run in eight diverges at rates just below those that all diverge."""

    edge = 26

    def extend(self, batch_size: int, points: list[int], replicates: range, step: int) -> list[list[float]]:
        found = super().extend(batch_size, points, replicates, step)
        for point, row in zip(points, found, strict=True):
            for i, replicate in enumerate(replicates):
                if point > self.edge or (point == self.edge and replicate % 8 == 7):
                    row[i] = math.nan
        return found


def test_the_rates_near_a_recommended_batch_size_diverge_in_none_of_sixteen_runs() -> None:
    """The four runs that a rate has otherwise do not show that one in eight diverges."""
    quadratic = spectra()["1/i"]
    beside = 0
    for seed in range(3):
        runs = Cliff(quadratic, seed)
        found = Search(runs, start_loss=quadratic.start_loss, guess=60.0, planned=64, most_steps=8)  # type: ignore[arg-type]
        found.run()
        level = found.levels[-1]
        for size in around_recommended(found.levels[-1]):
            there, rates = found.safe.steps_to(size, level.loss), found.safe.known[size]
            assert there is not None
            best = round(PER_DOUBLING * there.log_rate)
            assert best < Cliff.edge
            if found.safe.has_diverged(size, Cliff.edge):
                assert best >= Cliff.edge - 4
                assert rates[best].replicates == 16
                beside += 1
    assert beside > 2


class Stuck:
    """The loss halves at once and stays there."""

    def extend(self, size: int, points: list[int], replicates: range, step: int) -> list[list[float]]:
        assert step < 1000
        return [[0.5 for _ in replicates] for _ in points]


def test_a_loss_that_no_rate_reaches_ends_the_confirmation() -> None:
    """More runs can show that the only rate that arrived diverges. Those above the others are not trained for ever."""
    trained = Trained(Stuck(), start_loss=1.0)  # type: ignore[arg-type]
    trained.begin(8, 0, 1)
    trained.advance(8, [0], 4)
    LearningRates(trained, planned=8, replicates=lambda size: 1).confirm(8, 0.1, 8, 4, 16)
    assert trained.known[8][PER_DOUBLING].last < 100


def test_the_rates_near_the_critical_batch_size_are_settled_at_the_end() -> None:
    """Rates of a valley have four replicates, and none near the best was given up before 1.5 times its steps."""
    quadratic = spectra()["1/i, sharp trained"]
    found = search(quadratic, 1, steps=8, guess=10.0)
    level = found.levels[-1]
    critical = math.exp(level.fit.log_critical)
    near = [size for size in level.sizes if critical / 4.5 <= size <= 2.2 * critical]
    assert near
    for size in near:
        best = found.trained.steps_to(size, level.loss)
        assert best is not None
        assert all(rate.replicates >= 4 for rate in found._rates.valley(size, level.loss).values())
        for point, rate in found.trained.converging(size).items():
            if abs(point / PER_DOUBLING - best.log_rate) <= 0.9:
                arrived = found.trained.arrival_of(size, point, level.loss)
                assert arrived is not None or rate.last >= 1.5 * math.exp(best.log_steps)


@pytest.mark.parametrize(
    ("curve", "still"),
    [
        ((265, 170, 116), False),  # each doubling within its interval, and both fall
        ((134, 97, 75, 74), True),
        ((50, 75, 50), True),
        ((40, 60, 90), False),
    ],
)
def test_a_curve_that_moves_the_same_way_twice_does_not_stand_still(
    curve: tuple[int, ...], still: bool
) -> None:
    levels = []
    for doublings, critical in enumerate(curve):
        found = samples.level(8 * 2**doublings, float(critical), 0.1)
        levels.append(replace(found, fit=replace(found.fit, log_error=0.5)))
    assert stands_still(levels) is still
