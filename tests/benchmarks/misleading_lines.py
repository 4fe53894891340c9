"""Probes of losses whose lines mislead, against brute force in float64: who is answered, and how far off.

    python -m tests.benchmarks.misleading_lines [--seeds 20] [--first 0] [--only graphs]

A row is one task at the weights of one training, with a budget in gradient examples. The truth is the law
fitted to the best mean gains of brute force, with its standard error. closed: seeds with a value and both
limits; median, least and most: of their values; off: closed ones that are wrong by more than a factor of two;
holds: intervals, open ones included, that hold the truth. The row of T5 needs transformers.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bnoise_cli.measurement.task.task import Task
from tests import brute_force


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A task, the budgets of its probes, and the batch sizes and draws of brute force."""

    build: Callable[[], Task]
    budgets: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    draws: tuple[int, ...]


def t5_task() -> Task:
    """A T5 of random weights after 300 steps of AdamW on noisy sentences that are written backwards."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=48, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    model, tensors = T5ForConditionalGeneration(config), brute_force.sentences()
    brute_force.train(model, _t5_loss, tensors, torch.optim.AdamW(model.parameters(), 1e-3), 300)
    return brute_force.task_of(model, _t5_loss, tensors)


def _t5_loss(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    source, target = batch
    loss: Tensor = model(input_ids=source, labels=target).loss
    return loss


ROWS = {
    "graphs": Row(
        build=brute_force.graph_task,
        budgets=(8000,),
        batch_sizes=(8, 32, 128, 512),
        draws=(30, 30, 30, 30),
    ),
    "tokens": Row(
        build=brute_force.token_task,
        budgets=(6000,),
        batch_sizes=(8, 32, 128),
        draws=(30, 20, 12),
    ),
    "policy": Row(
        build=brute_force.policy_task,
        budgets=(6000, 40_000),
        batch_sizes=(8, 64, 512),
        draws=(1500, 400, 200),
    ),
    "T5": Row(
        build=t5_task,
        budgets=(6000,),
        batch_sizes=(8, 32, 128, 512),
        draws=(24, 16, 10, 6),
    ),
}


def main() -> None:
    """Print the table, a line for each task and budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("task      budget        truth   closed   median    least     most  off  holds")
    for name, row in ROWS.items():
        if arguments.only not in name or (name == "T5" and importlib.util.find_spec("transformers") is None):
            continue
        task = row.build()
        truth = brute_force.brute_force(task, row.batch_sizes, row.draws)
        for budget in row.budgets:
            print(f"{name:<8}{_line(task, budget, truth, arguments.first, arguments.seeds)}", flush=True)


def _line(task: Task, budget: int, known: brute_force.Truth, first: int, seeds: int) -> str:
    truth = known.noise_scale
    found = [brute_force.found_of(task, seed, budget) for seed in range(first, first + seeds)]
    closed = np.array([e.value for e in found if e.value is not None and e.high is not None])
    off = sum(not truth / 2 < value < truth * 2 for value in closed)
    holds = sum(e.low <= truth and (e.high is None or truth <= e.high) for e in found)
    values = (np.median(closed), closed.min(), closed.max()) if len(closed) else (np.nan,) * 3
    figures = "".join(f"{value:>9.4g}" for value in values)
    about = f"{truth:.4g} ± {known.error:.2g}"
    return f"{budget:>8}{about:>13}{f'{len(closed)}/{seeds}':>9}{figures}{off:>5}{f'{holds}/{seeds}':>7}"


if __name__ == "__main__":
    main()
