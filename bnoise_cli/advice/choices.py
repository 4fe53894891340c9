"""Every batch size worth comparing on every number of devices, with the time and the examples of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from types import MappingProxyType

import numpy as np

from bnoise_cli.maths.step_time import Line, Split, StepTimes, line_of
from bnoise_cli.maths.tradeoff import RANGE, pareto_front, usual_batch_sizes
from bnoise_cli.numbers import counted
from bnoise_cli.records import BatchSizes, CriticalBatchSize, Law, Limits, Throughput, TradeoffRow
from bnoise_cli.spec.schema import Training

#: Trained steps that leave the law by less than this, in logarithms, leave it by noise.
_NOISE = 0.15
#: Run times that differ by at most this fraction count as the same: near the least time they hardly change with the
#: batch size, and the examples do. On ten tasks measured steps are known to about this much.
SAME_TIME = 0.05
#: A batch size is near the closed form within this factor: neighbouring usual sizes lie closer together.
_NEAR = 2.0
#: The limits of a figure are the extremes at this many values of B_crit across its interval; merely chosen.
_ACROSS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One batch size on one number of devices."""

    batch_size: int
    world_size: int
    split: Split
    #: Steps over those of the law.
    departure: float = 1.0

    def time(self, law: Law) -> float:
        """S(B)/S_min · t(B): seconds for each of the fewest steps."""
        return self.departure * law.steps(self.batch_size) * self.split.seconds

    def cost(self, law: Law) -> float:
        """The same in device seconds, K times the time."""
        return self.world_size * self.time(law)

    @property
    def uncertainty(self) -> tuple[float, float]:
        """The least and the most that a step may take, over its measured time."""
        return self.split.low_seconds / self.split.seconds, self.split.high_seconds / self.split.seconds


class Options:
    """The choices that a plan leaves open, for a known B_crit and measured step times.

    Args:
        found: B_crit with a value and both limits.
        throughput: step times. They stand for any number of devices; one device alone exchanges no gradients.
        training: the planned run.
        most: the largest batch size to compare: the examples of the dataset.
        group: examples that a device must take at once, because the loss is not a mean over them; 1 if it is.
        departures: batch size → steps over those of the law, of the sizes that were trained.
    """

    def __init__(
        self,
        found: CriticalBatchSize,
        throughput: Throughput,
        training: Training,
        most: int,
        group: int = 1,
        departures: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        assert found.value is not None
        self.law = found.law(found.value)
        self.across = across(found)
        self.training = training
        self.throughput = throughput
        self._times = StepTimes(throughput)
        self._most, self._group = max(most, group * training.world_size), group
        self._departures = departures

    def on(self, world_size: int) -> list[Option]:
        """Options on `world_size` devices by ascending batch size. The planned batch size is among them."""
        needed = max(RANGE * self.law.critical, world_size * self._group)
        if math.isfinite(closed := self.closed_form(world_size)):
            needed = max(needed, 4 * closed)
        most = max(self._most, world_size * self._group)
        while True:
            options = self._up_to(min(needed, most), world_size)
            if needed >= most or options[-1] is not min(options, key=lambda option: option.time(self.law)):
                return options
            needed *= 4  # the best is the largest: look further

    def _up_to(self, largest: float, world_size: int) -> list[Option]:
        each = world_size * self._group
        sizes = {each, *usual_batch_sizes(largest, each)}
        if world_size == self.training.world_size:
            sizes.add(self.training.batch_size)
        return [
            Option(
                batch_size=size,
                world_size=world_size,
                split=self._split(size // world_size, world_size),
                departure=departure(self._departures, size),
            )
            for size in sorted(sizes)
        ]

    def _split(self, examples: int, world_size: int) -> Split:
        return self._times.best_split(examples, exchange=world_size > 1, group=self._group)

    def line(self, world_size: int) -> Line:
        """The line t₀ + t₁·m through the step times. On several devices t₀ includes the exchange of gradients."""
        return line_of(self.throughput, exchange=world_size > 1)

    def closed_form(self, world_size: int) -> float:
        """The fastest batch size by the line through the step times, not rounded."""
        line = self.line(world_size)
        return self.law.fastest(line.fixed_seconds, line.seconds_per_example, world_size)

    def bound(self, option: Option) -> str | None:
        """What keeps a batch size away from the closed form, as the end of a sentence; None if it is near it.

        Groups always keep it away: each group is a pass of its own, so that the step time is not a straight line in the
        batch size.
        """
        if self._group > 1:
            return f"batches are made of groups of {counted(self._group, 'example')}"
        closed = self.closed_form(option.world_size)
        if not math.isfinite(closed) or closed <= _NEAR * option.batch_size:
            return None
        if self._most < _NEAR * option.batch_size:
            return f"no batch is larger than the dataset of {counted(self._most, 'example')}"
        largest = self.throughput.largest_micro_batch_size
        if largest * option.world_size < _NEAR * option.batch_size:
            return f"a device takes at most {counted(largest, 'example')} at once"
        return None

    def within(self, options: list[Option]) -> list[Option]:
        """The options without batch sizes above the dataset; only the planned batch size can be above."""
        return [option for option in options if option.batch_size <= self._most]

    @cached_property
    def planned(self) -> list[Option]:
        """Options on the planned devices."""
        return self.on(self.training.world_size)

    @cached_property
    def all(self) -> list[Option]:
        """Options on the planned devices and on divisors of their number; fewer devices may not hold an FSDP model."""
        world, timed = self.training.world_size, self.throughput
        fewest = min(timed.world_size, world) if timed.parallel == "fsdp" else 1
        return [option for n in range(fewest, world + 1) if world % n == 0 for option in self.on(n)]

    def first(self, options: Sequence[Option], measure: Callable[[Option], float]) -> Option | None:
        """Of the options whose `measure` counts as the same as the least the planned one, or else the first.

        A change that gains nothing is not worth it. None: there are no options.
        """
        least = min(map(measure, options), default=math.inf)
        same = [option for option in options if measure(option) <= (1 + SAME_TIME) * least]
        return next((option for option in same if self.is_planned(option)), same[0] if same else None)

    def is_planned(self, option: Option) -> bool:
        """Whether it is the planned batch size on the planned devices."""
        plan = self.training
        return (option.batch_size, option.world_size) == (plan.batch_size, plan.world_size)

    @cached_property
    def fastest(self) -> Option:
        """The option of least time on the planned devices; of those of the same time the planned or the smallest."""
        found = self.first(self.within(self.planned), lambda option: option.time(self.law))
        assert found is not None
        return found

    @cached_property
    def cheapest(self) -> Option:
        """The option of least device time; of those that take the same the planned one, or on the fewest devices."""
        found = self.first(self.within(self.all), lambda option: option.cost(self.law))
        assert found is not None
        return found

    @cached_property
    def balanced(self) -> Option | None:
        """The option nearest to B_crit on the planned devices; None if none is near."""
        found = self.nearest(self.within(self.planned))
        return found if abs(math.log(found.batch_size / self.law.critical)) <= math.log(2) else None

    def nearest(self, options: Sequence[Option]) -> Option:
        """The option whose batch size is nearest to B_crit."""
        return min(options, key=lambda option: abs(math.log(option.batch_size / self.law.critical)))

    def same_time(self, chosen: Option) -> BatchSizes:
        """The batch sizes around an option, on as many devices, with which a run takes the same time."""
        options = self.within(self.on(chosen.world_size))
        here = next(i for i, option in enumerate(options) if option.batch_size == chosen.batch_size)
        time = chosen.time(self.law)

        def same(option: Option) -> bool:
            return abs(option.time(self.law) / time - 1) <= SAME_TIME

        below = [*takewhile(same, reversed(options[: here + 1]))]
        above = [*takewhile(same, options[here:])]
        return BatchSizes(low=below[-1].batch_size, high=above[-1].batch_size)

    @cached_property
    def least_time(self) -> float:
        """S(B)·t(B)/S_min of the fastest option on the planned devices."""
        return min(option.time(self.law) for option in self.within(self.planned))

    @cached_property
    def least_cost(self) -> float:
        """K·S(B)·t(B)/S_min of the cheapest option on K devices."""
        return min(option.cost(self.law) for option in self.within(self.all))

    @property
    def planned_steps(self) -> float | None:
        """Steps of the planned run; None if the plan does not say."""
        plan = self.training
        if plan.examples is not None:
            return plan.examples / plan.batch_size
        return plan.steps

    def run_steps(self, batch_size: int, law: Law) -> float:
        """Steps after which a run gets as far as the planned run, which must have a length."""
        assert self.planned_steps is not None
        planned, other = (
            law.steps(size) * departure(self._departures, size)
            for size in (self.training.batch_size, batch_size)
        )
        return self.planned_steps * other / planned

    def run_seconds(self, option: Option, law: Law) -> float:
        """Seconds of the run of `run_steps`."""
        return self.run_steps(option.batch_size, law) * option.split.seconds

    def rows(self) -> tuple[TradeoffRow, ...]:
        """The trade-off on the planned devices, without the far ends."""
        marked = {self.fastest.batch_size, self.training.batch_size}
        marked |= {self.balanced.batch_size} if self.balanced is not None else set()
        low, high = min(marked) / 4, max(*marked, RANGE * self.law.critical)
        rows = [self.row(option) for option in self.planned if low <= option.batch_size <= high]
        front = pareto_front([(row.relative_time or 0.0, row.examples_ratio) for row in rows])
        return tuple(replace(row, pareto=best) for row, best in zip(rows, front, strict=True))

    def row(self, option: Option) -> TradeoffRow:
        """An option as a row of the trade-off."""
        B, split, law = option.batch_size, option.split, self.law
        row = replace(
            untimed_row(B, law, self.across, option.departure),
            micro_batch_size=split.micro_batch_size,
            accumulation_steps=split.accumulation_steps,
            step_seconds=split.seconds,
            examples_per_second=B / split.seconds,
            relative_time=option.time(law) / self.least_time,
            relative_time_limits=self._relative_time_limits(option),
            relative_cost=option.cost(law) / self.least_cost,
            peak_memory_bytes=self._memory(split.micro_batch_size),
            fits=B // option.world_size <= self.throughput.largest_micro_batch_size,
        )
        if self.planned_steps is None:
            return row
        seconds, hourly = self.run_seconds(option, law), self.training.price_per_device_hour
        return replace(
            row,
            run_steps=self.run_steps(B, law),
            run_seconds=seconds,
            run_price=hourly * option.world_size * seconds / 3600 if hourly is not None else None,
        )

    @cached_property
    def _least_times(self) -> list[float]:
        return [min(option.time(law) for option in self.planned) for law in self.across]

    def _relative_time_limits(self, option: Option) -> Limits:
        times = [option.time(law) for law in self.across]
        ratios = [time / least for time, least in zip(times, self._least_times, strict=True)]
        return Limits(low=min(ratios), high=max(ratios))

    def _memory(self, micro_batch_size: int) -> int | None:
        known = [step for step in self.throughput.step_times if step.peak_memory_bytes is not None]
        if not known:
            return None
        sizes = [step.micro_batch_size for step in known]
        peaks = [float(step.peak_memory_bytes or 0) for step in known]
        return round(float(np.interp(micro_batch_size, sizes, peaks)))


def across(found: CriticalBatchSize) -> Sequence[Law]:
    """The law at values of B_crit at even distances across its interval, the limits among them."""
    assert found.value is not None
    assert found.high is not None
    low = max(found.low, 1e-9 * found.value)
    return [found.law(float(value)) for value in np.geomspace(low, found.high, _ACROSS)]


def departure(departures: Mapping[int, float], batch_size: int) -> float:
    """Steps at a batch size over those of the law, interpolated on logarithms between the sizes that were trained.

    A departure of less than `_NOISE` counts as noise, and of a larger one the part beyond it counts. BatchNorm, for
    one, takes many more steps at small batch sizes than any law through the others says.
    """
    if not departures:
        return 1.0
    sizes, ratios = np.log(np.array(sorted(departures.items()), dtype=np.float64)).T
    found = float(np.interp(math.log(batch_size), sizes, ratios))
    return math.exp(math.copysign(max(abs(found) - _NOISE, 0.0), found))


def untimed_row(batch_size: int, law: Law, laws: Sequence[Law], departure: float = 1.0) -> TradeoffRow:
    """Steps and examples at a batch size, with their ranges over the interval of B_crit; see `departure`."""
    low, high = laws[0], laws[-1]
    steps, examples = departure * law.steps(batch_size), departure * law.examples(batch_size)
    return TradeoffRow(
        batch_size=batch_size,
        steps_ratio=steps,
        examples_ratio=examples,
        time_efficiency=1 / steps,
        compute_efficiency=1 / examples,
        steps_limits=Limits(low=departure * low.steps(batch_size), high=departure * high.steps(batch_size)),
        examples_limits=Limits(
            low=departure * high.examples(batch_size), high=departure * low.examples(batch_size)
        ),
    )
