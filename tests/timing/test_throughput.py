"""Timing and memory: on devices that are written down, and real steps that leave everything as it was."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bnoise_cli.advice.advise import advise
from bnoise_cli.errors import RunError
from bnoise_cli.maths.fastest import Purpose
from bnoise_cli.measurement.task.memory import available_bytes
from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.user_code import OutOfMemoryError
from bnoise_cli.measurement.timing.throughput import TimedStep, measure_throughput
from bnoise_cli.measurement.timing.training_steps import TrainingSteps
from bnoise_cli.records import Law
from tests.cases import CPU, quadratic_task
from tests.samples import Device, result, timed


def test_a_device_of_known_times_is_found_exactly() -> None:
    found = timed(Device(fixed=3e-3, per_example=1e-4, optimizer=1e-3), most=1000)
    assert found.fixed_seconds == pytest.approx(3e-3)
    assert found.seconds_per_example == pytest.approx(1e-4)
    assert found.optimizer_seconds == pytest.approx(1e-3)
    assert found.worst_misfit < 1e-9
    assert [step.micro_batch_size for step in found.step_times] == [
        1,
        2,
        4,
        8,
        16,
        32,
        64,
        128,
        256,
        512,
        1000,
    ]
    assert (found.largest_micro_batch_size, found.limited_by) == (1000, "need")
    assert all(step.spread == 0 for step in found.step_times)


def test_an_exchange_never_takes_longer_than_the_step_it_is_part_of() -> None:
    """Of nine visits five wait for another program in the exchange; the step time is that of the other four."""

    class Busy:
        memory_bytes: int | None = None
        visits = 0

        def step(self, micro_batch_size: int) -> TimedStep:
            self.visits += 1
            waits = 1.0 if self.visits % 9 < 5 else 0.0
            return TimedStep(
                seconds=2e-3 + waits, optimizer_seconds=1e-4, loading_seconds=0.0, alone_seconds=1e-3
            )

    found = measure_throughput(Busy(), most=8, budget_seconds=1e4, purpose=Purpose(law=Law(8.0)))
    for step in found.step_times:
        assert step.seconds == pytest.approx(2e-3)
        assert step.exchange_seconds == pytest.approx(1e-3)


@pytest.mark.parametrize("tells_memory", [True, False])
@pytest.mark.parametrize("room", [1, 2, 3, 37, 500, 511, 513, 3000])
def test_the_largest_micro_batch_is_found_within_ten_percent(room: int, tells_memory: bool) -> None:
    device = Device(room=room, tells_memory=tells_memory)
    found = timed(device)
    assert found.limited_by == "memory"
    assert found.largest_micro_batch_size <= room
    assert found.largest_micro_batch_size >= 0.9 * room - 1
    if tells_memory and room > 100:
        assert found.largest_micro_batch_size <= 0.96 * room
        assert max(device.taken) <= room, "what memory would not hold was not even tried"


def test_one_example_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(RunError, match="on 1 example does not fit"):
        timed(Device(room=0))


@pytest.mark.parametrize("budget", [0.1, 1.0, 10.0])
def test_the_budget_holds_and_sizes_share_it(budget: float) -> None:
    device = Device()
    found = measure_throughput(device, most=1 << 20, budget_seconds=budget)
    assert found.seconds <= 1.2 * budget
    assert found.limited_by == "time"
    assert len(found.step_times) >= 2
    counts = {size: device.taken.count(size) for size in set(device.taken)}
    assert max(counts.values()) == min(counts.values()) >= 4


@pytest.mark.parametrize(
    ("steps", "sizes"), [(0.0, [1]), (1.5, [1]), (2.5, [1, 2]), (3.5, [1, 2]), (6.5, [1, 2])]
)
def test_no_step_begins_after_the_budget(steps: float, sizes: list[int]) -> None:
    """A step takes a second whatever its size; a size whose second step would come too late is known by its first."""
    device = Device(fixed=1.0, per_example=0.0, optimizer=0.0)
    found = measure_throughput(device, most=64, budget_seconds=steps)
    assert device.taken == [1, 1, 2, 2, 1, 2, 1, 2][: int(steps) + 1]
    assert [step.micro_batch_size for step in found.step_times] == sizes
    assert found.limited_by == "time"


def test_real_steps_leave_the_weights_and_the_random_stream_alone() -> None:
    task = quadratic_task()
    before = copy.deepcopy(task.model.state_dict())
    state = torch.get_rng_state()
    optimizer = torch.optim.SGD(task.parameters, lr=0.5, momentum=0.9, weight_decay=0.1)
    with preserved(task.model, 0, on_host=True) as origin:
        steps = TrainingSteps(task, optimizer, origin, max_grad_norm=1.0, seed=0)
        found = measure_throughput(steps, most=64, budget_seconds=0.2)
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in task.parameters)
    assert found.largest_micro_batch_size == 64
    assert all(step.seconds > 0 for step in found.step_times)
    assert 0 < found.optimizer_seconds < found.step_times[-1].seconds


def test_out_of_memory_is_an_answer_and_gives_the_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    task = quadratic_task()
    optimizer = torch.optim.SGD(task.parameters, lr=0.1)
    honest = task.loss

    def tight(batch: list[torch.Tensor], seed: int, what: str) -> torch.Tensor:
        if len(batch[0] if isinstance(batch, list) else batch) > 12:
            raise OutOfMemoryError
        return honest(batch, seed, what)

    monkeypatch.setattr(task, "loss", tight)
    with preserved(task.model, 0, on_host=True) as origin:
        steps = TrainingSteps(task, optimizer, origin, max_grad_norm=None, seed=0)
        steps.memory_bytes = None
        found = measure_throughput(steps, most=512, budget_seconds=1.0)
        assert (found.largest_micro_batch_size, found.limited_by) == (12, "memory")
        assert steps.step(8).seconds > 0, "the process goes on"


def test_the_process_knows_its_memory() -> None:
    held = available_bytes(CPU)
    assert held is None or held > 1 << 20
    # In a process of its own: one that ran other tests may make a block out of memory it has kept since.
    script = """
import torch
from bnoise_cli.measurement.task.memory import forget_peak, peak_bytes
cpu = torch.device("cpu")
peaks = [peak_bytes(cpu)]
block = torch.ones(1 << 25)
peaks.append(peak_bytes(cpu))
del block
forget_peak(cpu)
peaks.append(peak_bytes(cpu))
print(*peaks)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    if "None" in ran.stdout:
        pytest.skip("this system does not tell")
    before, most, after = map(int, ran.stdout.split())
    block = 4 << 25
    assert most - before >= 0.9 * block
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
    assert most - after >= 0.9 * block


class Odd(Device):
    """A device with a disturbance, a least size, or an error at some size."""

    def __init__(self, *, least: int = 1, broken_at: int | None = None, slow: int | None = None) -> None:
        super().__init__(fixed=4e-4, per_example=2e-6)
        self.least, self.broken_at, self.slow = least, broken_at, slow

    def step(self, micro_batch_size: int) -> TimedStep:
        if micro_batch_size < self.least:
            raise RunError("two examples are needed.")
        if self.broken_at is not None and micro_batch_size >= self.broken_at:
            raise RunError("the kernel refuses.")
        step = super().step(micro_batch_size)
        if micro_batch_size == self.slow and self.taken.count(self.slow) == 2:
            return TimedStep(seconds=50 * step.seconds, optimizer_seconds=1e-4, loading_seconds=0.0)
        return step


def test_one_disturbance_neither_ends_the_range_nor_moves_a_time() -> None:
    calm = measure_throughput(Odd(), most=4096, budget_seconds=0.2)
    disturbed = measure_throughput(Odd(slow=32), most=4096, budget_seconds=0.2)
    assert disturbed.largest_micro_batch_size >= calm.largest_micro_batch_size / 2
    assert disturbed.fixed_seconds == pytest.approx(4e-4)
    assert disturbed.seconds_per_example == pytest.approx(2e-6)


def test_a_model_that_needs_several_examples_is_timed_from_there() -> None:
    found = timed(Odd(least=4), most=64)
    assert found.step_times[0].micro_batch_size == 4
    assert found.optimizer_seconds == pytest.approx(1e-3)
    with pytest.raises(RunError, match="two examples are needed"):
        timed(Odd(least=500))


def test_a_failure_at_a_larger_size_keeps_what_was_timed_and_says_so() -> None:
    found = timed(Odd(broken_at=100), most=1000)
    assert (found.largest_micro_batch_size, found.limited_by) == (64, "failure")
    assert "a step of 128 examples failed: the kernel refuses" in (found.failure or "")
    advised = advise(dataclasses.replace(result(), throughput=found))
    assert "step_failed" in [doubt.code for doubt in advised.doubts]
    assert advised.recommendation is not None
    assert advised.recommendation.micro_batch_size <= 64


def test_beyond_what_was_tried_the_line_goes_on_and_a_doubt_says_so() -> None:
    found = timed(Device(fixed=1.0, per_example=1e-3), most=32)
    unlimited = {**result().config, "check": {"max_compute_overhead": 1000.0}}
    advised = advise(dataclasses.replace(result(), config=unlimited, throughput=found))
    best = advised.recommendation
    assert best is not None
    assert best.batch_size >= 192
    assert best.accumulation_steps == 1
    assert "not_tried" in [doubt.code for doubt in advised.doubts]
    full = timed(Device(fixed=1.0, per_example=1e-3, room=32))
    best = advise(dataclasses.replace(result(), throughput=full)).recommendation
    assert best is not None
    assert best.micro_batch_size <= 32, "memory is known to end there"


def test_a_gradient_that_is_not_finite_leaves_the_weights_whole() -> None:
    task = quadratic_task()
    before = copy.deepcopy(task.model.state_dict())
    optimizer = torch.optim.SGD(task.parameters, lr=0.5, momentum=0.9)
    with preserved(task.model, 0, on_host=True) as origin:
        steps = TrainingSteps(task, optimizer, origin, max_grad_norm=None, seed=0)
        handle = task.parameters[0].register_hook(lambda g: g * float("nan"))
        with pytest.raises(RunError, match="not finite"):
            steps.step(2)
        handle.remove()
        assert steps.step(2).seconds > 0
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())


class Busy(Device):
    """Every other step of a size takes ten times as long, as beside another program."""

    def step(self, micro_batch_size: int) -> TimedStep:
        step = super().step(micro_batch_size)
        if self.taken.count(micro_batch_size) % 2:
            return step
        return dataclasses.replace(step, seconds=10 * step.seconds)


def test_steps_beside_another_program_are_timed_by_their_fast_half_and_more_often() -> None:
    found = measure_throughput(Busy(), most=256, budget_seconds=1e9, purpose=Purpose(law=Law(100.0)))
    near = {step.micro_batch_size: step for step in found.step_times}
    for size in (32, 64, 128):  # sqrt(B_crit t₀/t₁) is 55
        assert near[size].seconds == pytest.approx(3e-3 + 1e-4 * size)
        assert near[size].limits == pytest.approx((near[size].seconds, near[size].seconds))
    once = measure_throughput(Busy(), most=256, budget_seconds=1e9)
    low, high = once.step_times[5].limits
    assert low < once.step_times[5].seconds < high == pytest.approx(10 * (3e-3 + 1e-4 * 32))


def test_rounds_end_when_the_fastest_is_known_or_the_time_is_spent() -> None:
    purpose = Purpose(law=Law(100.0))
    calm = Device()
    measure_throughput(calm, most=1024, budget_seconds=1e9, purpose=purpose)
    assert {calm.taken.count(size) for size in calm.taken} == {4}
    hopeless = Random(0.9)
    spent = measure_throughput(hopeless, most=1024, budget_seconds=20.0, purpose=purpose).seconds
    assert 10.0 < spent <= 20.0
    noisy = Random(0.05)
    spent = measure_throughput(noisy, most=1024, budget_seconds=20.0, purpose=purpose).seconds
    assert spent < 5.0


def test_only_the_sizes_that_matter_are_visited_more_often() -> None:
    device = Random(0.2, fixed=3e-3)
    measure_throughput(device, most=1 << 13, budget_seconds=60.0, purpose=Purpose(law=Law(10.0)))
    counts = {size: device.taken.count(size) for size in device.taken}
    assert counts[16] > 30  # sqrt(10 · 30) is 17
    assert counts[8192] == 4


def test_another_program_does_not_count_where_the_process_knows_its_own_time() -> None:
    """The kernel takes the core away for as long again from every step but the quickest ones."""
    found = measure_throughput(Shared(), most=64, budget_seconds=1e9)
    assert found.fixed_seconds == pytest.approx(3e-3)
    assert found.seconds_per_example == pytest.approx(1e-4)


def test_a_step_that_waits_is_timed_by_the_wall() -> None:
    found = measure_throughput(Waiting(), most=64, budget_seconds=1e9)
    assert found.fixed_seconds == pytest.approx(3e-3)


class Random(Device):
    """Step times vary by a factor, evenly between 1 and 1/(1 − spread)."""

    def __init__(self, spread: float, **known: float) -> None:
        super().__init__(**known)  # type: ignore[arg-type]
        self.spread, self.random = spread, np.random.default_rng(0)

    def step(self, micro_batch_size: int) -> TimedStep:
        step = super().step(micro_batch_size)
        return dataclasses.replace(step, seconds=step.seconds / (1 - self.spread * self.random.random()))


class Shared(Device):
    """A device whose steps on several examples take twice as long, beside a program that takes half of it."""

    def step(self, micro_batch_size: int) -> TimedStep:
        step = super().step(micro_batch_size)
        disturbed = 1 if micro_batch_size == 1 else 2
        return dataclasses.replace(step, seconds=disturbed * step.seconds, cpu_seconds=step.seconds)


class Waiting(Device):
    """A device whose steps wait for something else most of the time."""

    def step(self, micro_batch_size: int) -> TimedStep:
        step = super().step(micro_batch_size)
        return dataclasses.replace(step, cpu_seconds=0.2 * step.seconds)
