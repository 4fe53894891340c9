"""What the probe costs beside the bare passes it makes, in time and in memory, on the byte-level GPT.

    python -m tests.benchmarks.overhead

Time: every pass of a probe of configs/stdlib_gpt.yaml is recorded, then exactly those passes are replayed
alone, forward and backward or forward only, on batches of the same sizes that were fetched before; probe and
replay take turns. What is above 1 is fetching, adding up gradients, moving along lines and the fit.

Memory: the peak of a process that probes over that of one that trains on the same micro-batch, with SGD and with AdamW,
for a model whose parameters outweigh its activations, in copies of the parameters; then the same where two processes
hold a half of the parameters each (FSDP2), in copies of that half.

Where there is a GPU, both also for a GPT of 126 million parameters with sequences of 1024 bytes in mixed precision, and
the seconds to an answer to ±20%.

What was tried for speed, on one core of a shared x86-64 machine (torch 2.13.0, CPU, 2026-11-23); together it brought
the probe from 1.22 times its bare passes to 1.06 (median of 15 rounds in five processes, 0.91 to 1.20):

    no graph along lines                       a pass of 16 examples 6.7 ms instead of 7.2, and no activations kept
    torch._foreach_ instead of loops           0.04 ms instead of 0.07 for an operation on all parameters
    losses and norms read once, after passes   0.2 ms less for each gradient of 8 to 23 ms; a GPU is not waited for
    lines start at the weights as they are     one of five copies of the parameters less for each pass along a line
    norms of large tensors in pieces           an error of 0.5% (40 million numbers) became 3e-7; less memory
    no reading ahead of what is read in 1 ms   0.6 ms less for each batch, which takes 0.1 to 0.2 ms to read
    micro-batch by measured time               planned one of 1: twice the gradient examples a second, digits 7 times
    bfloat16 autocast                          0 to 10% slower on this processor; only where the config asks for it
    torch.compile                              no faster, after 11 s of compiling; left to the user's own model
    pinned memory, copies not waited for       for GPUs, of which none was at hand
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from bnoise_cli.measurement.building.build import build_optimizer, build_task
from bnoise_cli.measurement.meeting import joined
from bnoise_cli.measurement.outcome import Measurement
from bnoise_cli.measurement.probing.budget import ProbeSettings
from bnoise_cli.measurement.probing.probe import probe
from bnoise_cli.measurement.probing.session import Session
from bnoise_cli.measurement.task.draws import Draws, Stream
from bnoise_cli.measurement.task.preconditioner import preconditioner
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.spec.load import load_spec

_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "stdlib_gpt.yaml"
_CPU = torch.device("cpu")
_ROUNDS, _WARMUP_STEPS = 3, 50
#: Without a limit of time, so that every round makes the same passes.
_SETTINGS = ProbeSettings(max_examples=2048, budget_seconds=1e6)
#: 28.5 million parameters, which outweigh the activations of few tokens.
_LARGE = ("model.width=768", "model.layers=4", "model.context=16", "dataset.context=16")
#: 126 million parameters, in float32, computed in bfloat16.
_FOR_GPU = (
    "model={_target_: bnoise_cli.examples.models.ByteGPT, layers: 13, width: 896, heads: 14, context: 1024}",
    "dataset.context=1024",
    "optimizer={_target_: torch.optim.AdamW, lr: 3e-4}",
    "probe.precision_mode=bf16-mixed",
)
_SHARDED = ("training.world_size=2", "training.parallel=fsdp")
_OPTIMIZERS = {
    "SGD": "optimizer={_target_: torch.optim.SGD, lr: 0.1}",
    "AdamW": "optimizer={_target_: torch.optim.AdamW, lr: 1e-3}",
}
#: Few examples are enough, if some batch takes several passes: a replicate makes all there are.
_MEMORY_SETTINGS = ProbeSettings(max_examples=256, batch_sizes=(16, 32, 128), budget_seconds=1e6)
_TRAINING_STEPS = 10
#: glibc gives freed blocks above this size back at once: the peak is what was held, not what was kept.
_RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}

#: Examples of a pass, whether it went backward, and whether in lower precision.
Pass = tuple[int, bool, bool]


class Recorder:
    """Notes every forward pass through a model: its examples, and whether it keeps a graph to go back."""

    def __init__(self, model: nn.Module) -> None:
        self.passes: list[Pass] = []
        self._kind = next(model.parameters()).device.type
        self._handle = model.register_forward_pre_hook(self._note)

    def __enter__(self) -> list[Pass]:
        return self.passes

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _note(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        lower = torch.is_autocast_enabled(self._kind)
        self.passes.append((len(arguments[0]), torch.is_grad_enabled(), lower))


def time_overhead(session: Session) -> None:
    """Print the seconds of the probe and of its bare passes, round by round, and their ratio."""
    warm_up(session)
    task = session.task
    with Recorder(task.model) as passes:
        found = probe(task, _SETTINGS)
    backward = sum(goes_back for _, goes_back, _ in passes)
    print(
        f"after {_WARMUP_STEPS} steps: a probe of {found.gradient_examples} gradient examples in {backward} passes "
        f"and {found.evaluation_examples} evaluations in {len(passes) - backward} passes"
    )
    batches = batches_of(task, passes)
    print("round    probe (s)   bare passes (s)    ratio    ratio of CPU times")
    ratios = []
    for number in range(1, _ROUNDS + 1):
        whole, whole_cpu = timed(lambda: probe(task, _SETTINGS))
        bare, bare_cpu = timed(lambda: replay(task, passes, batches))
        ratios.append(whole / bare)
        print(
            f"{number:>5}{whole:>13.2f}{bare:>18.2f}{ratios[-1]:>9.3f}{whole_cpu / bare_cpu:>22.3f}",
            flush=True,
        )
    print(f"ratio: min {min(ratios):.3f}, median {median(ratios):.3f}, max {max(ratios):.3f}", flush=True)


def warm_up(session: Session) -> None:
    """Train as a call of the probe does before it measures."""
    session.trainer.train_until(_WARMUP_STEPS, lambda _: None)
    session.task.preconditioner = preconditioner(session.optimizer, session.task.trainable)


def on_gpu(device: torch.device) -> None:
    """Print overheads and the time to an answer on a GPU, with its name."""
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {date.today()}")
    session = Session(load_spec(_CONFIG, _FOR_GPU), device)
    time_overhead(session)
    task = session.task
    found: list[Measurement] = []
    seconds, _ = timed(lambda: found.append(probe(task, ProbeSettings(precision=0.2, budget_seconds=1e6))))
    analysis = found[0].analysis
    print(f"to ±20%: {seconds:.0f} s, {analysis.noise_scale if analysis is not None else 'no answer'}")
    peaks = {}
    for name, run in {
        "probe": lambda: probe(task, _MEMORY_SETTINGS),
        "training": lambda: train(task, session.optimizer),
    }.items():
        torch.cuda.reset_peak_memory_stats(device)
        run()
        peaks[name] = torch.cuda.max_memory_allocated(device)
    print_memory(peaks["training"], peaks["probe"], bytes_of(task), "AdamW")


def batches_of(task: Task, passes: Sequence[Pass]) -> dict[int, Any]:
    """A batch of each size that the passes have."""
    draws = Draws(0, Stream.REPLICATE)
    return {
        size: task.batches.fetch(draws.indices(size, task.batches.length))
        for size in {size for size, *_ in passes}
    }


def replay(task: Task, passes: Sequence[Pass], batches: dict[int, Any]) -> None:
    """Make the recorded passes and nothing else."""
    kind = task.parameters[0].device.type
    for size, goes_back, lower in passes:
        with torch.set_grad_enabled(goes_back), torch.autocast(kind, task.autocast, enabled=lower):
            loss = task.objective(task.model, batches[size])
        if goes_back:
            torch.autograd.grad(loss, task.trainable)


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU time; the second is steady also where others use the machine."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun, time.process_time() - begun_cpu


def memory_overhead() -> None:
    """Print the peaks of both processes and their difference in copies of the parameters, for each optimizer."""
    for processes in (1, 2):
        for optimizer in _OPTIMIZERS:
            (trains, size), (probes, _) = (
                _peak_of(what, optimizer, processes) for what in ("train", "probe")
            )
            print_memory(trains, probes, size, f"{optimizer}, {processes} process(es)")


def print_memory(trains: int, probes: int, size: int, what: str) -> None:
    """A line about two peaks and the size of the parameters, in bytes."""
    mebibyte = 2**20
    print(
        f"{size / mebibyte:.1f} MiB of parameters, {what}: peak memory {trains / mebibyte:.0f} MiB in training, "
        f"{probes / mebibyte:.0f} MiB in the probe: {(probes - trains) / size:.2f} copies of the parameters more",
        flush=True,
    )


def _peak_of(what: str, optimizer: str, processes: int) -> tuple[int, int]:
    """Peak resident memory of a fresh process and the size of what it holds of the parameters, in bytes."""
    start = (
        []
        if processes == 1
        else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    )
    command = [sys.executable, *start, __file__, "--alone", what, optimizer]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | _RETURN_MEMORY
    )
    peak, size = done.stdout.split()
    return int(peak), int(size)


def _alone(what: str, name: str) -> None:
    """Train or probe the larger model, and print this process's peak and the size of the parameters."""
    with joined(lambda: _CPU) as (_, ranks):
        spec = load_spec(_CONFIG, (*_LARGE, *(_SHARDED if ranks.size > 1 else ()), _OPTIMIZERS[name]))
        if what == "probe":
            session = Session(spec, _CPU, ranks)
            session.trainer.train_until(2, lambda _: None)
            task = session.task
            task.preconditioner = preconditioner(session.optimizer, task.trainable)
            probe(task, _MEMORY_SETTINGS)
        else:
            task = build_task(spec, _CPU, ranks)
            train(task, build_optimizer(spec, task))
        if ranks.rank == 0:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, bytes_of(task))


def train(task: Task, optimizer: torch.optim.Optimizer) -> None:
    """A few steps as anyone would write them, on one micro-batch each."""
    draws, kind = Draws(0, Stream.REPLICATE), task.parameters[0].device.type
    for _ in range(_TRAINING_STEPS):
        batch = task.batches.fetch(draws.indices(task.micro_batch_size, task.batches.length))
        optimizer.zero_grad()
        with torch.autocast(kind, task.autocast, enabled=task.autocast is not None):
            loss = task.objective(task.model, batch)
        loss.backward()
        optimizer.step()


def bytes_of(task: Task) -> int:
    """The size of what this process holds of the trainable parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in task.parameters)


def main() -> None:
    """Print both overheads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.alone is not None:
        _alone(*arguments.alone)
        return
    print(f"{_CONFIG.name}, torch {torch.__version__}, one thread, {date.today()}")
    time_overhead(Session(load_spec(_CONFIG), _CPU))
    memory_overhead()
    if torch.cuda.is_available():
        on_gpu(torch.device("cuda", 0))


if __name__ == "__main__":
    main()
