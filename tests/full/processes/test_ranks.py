"""Several processes that measure together: the answer of one, and one message whatever happens to any of them."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cases import ROOT, user_code
from tests.full.processes.faults import prepare_rank
from tests.processes import free_port, start

# A model, and a loss that fails in a chosen way on a chosen rank from a chosen call on.
USER = user_code("ranks")
CONFIG = """\
version: 1
model: {_target_: train.py:model}
dataset: {_target_: train.py:data}
objective: {_target_: train.py:loss}
optimizer: {_target_: torch.optim.SGD, lr: 0.2}
training: {batch_size: 48, world_size: 1}
probe: {warmup_steps: 5, max_examples: 3000, precision: 0.01, budget: 1h, horizon: off}
sweep: {batch_sizes: [4, 8, 16], steps: 12, seeds: 1, max_steps: 200}
"""
# Long enough for any of these calls on a busy machine.
PATIENCE = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a call of several processes came to."""

    codes: list[int]
    out: list[str]
    err: list[str]
    seconds: float
    folder: Path

    def result(self, kind: str = "probe") -> dict[str, Any]:
        """What was stored."""
        found: dict[str, Any] = json.loads((self.folder / ".bnoise" / f"bnoise.{kind}.json").read_text())
        return found


# Call the program in several processes: their number, its arguments, and variables of the environment.
Together = Callable[..., Ended]
# Call `bnoise probe` in one process: its further arguments, and variables of the environment.
Alone = Callable[..., Ended]

ADAM = ["--set", "optimizer={_target_: torch.optim.AdamW, lr: 1e-3}", "--set", "training.max_grad_norm=0.1"]
FSDP = ["--set", "training.parallel=fsdp", "--set", "training.world_size=2"]
#: A third of the passes, each of which gathers the parameters of a sharded model.
FEW_PASSES = ["--set", "probe.batch_sizes=[32, 96, 256]"]


@pytest.fixture
def together(tmp_path: Path) -> Together:
    """Run the program in several processes without a launcher: what becomes of one is not the launcher's to decide."""
    return calls_in(tmp_path)


def calls_in(folder: Path) -> Together:
    (folder / "train.py").write_text(USER)
    (folder / "bnoise.yaml").write_text(CONFIG)

    def call(size: int, *arguments: str, **environment: str) -> Ended:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(size)}
        begun = time.monotonic()
        running = [
            start(
                arguments,
                folder,
                folder / f"rank{rank}",
                (shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else {}) | environment,
                prepare_rank,
            )
            for rank in range(size)
        ]
        first = running[0].end(PATIENCE)
        seconds = time.monotonic() - begun
        # The others should end soon; one that does not is killed, and its exit code shows it.
        codes, out, err = zip(first, *(other.end(20) for other in running[1:]), strict=True)
        return Ended(codes=list(codes), out=list(out), err=list(err), seconds=seconds, folder=folder)

    return call


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Run `bnoise probe` in one process; tests that give the same arguments share one call."""

    @cache
    def call(*arguments: str, **environment: str) -> Ended:
        return calls_in(tmp_path_factory.mktemp("alone"))(1, "probe", *arguments, **environment)

    return call


def launch(command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Start a launcher of processes."""
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _figures(result: dict[str, Any]) -> list[float]:
    return [
        *(result["noise_scale"][key] for key in ("value", "low", "high")),
        result["simple_noise_scale"]["value"],
        result["max_improvement"]["value"],
        *(point["improvement"] for point in result["points"]),
        *(point["step_size"] for point in result["points"]),
    ]


def _same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert _figures(one) == pytest.approx(_figures(other), rel=2e-3)
    for key in ("gradient_examples", "evaluation_examples"):
        assert one["cost"][key] == other["cost"][key]


@pytest.mark.parametrize(
    "changed",
    [
        [],
        ADAM,
        ["--set", "model.norm=true", "--set", "training.batch_size=12"],
        # Five steps at this learning rate diverge in groups of two.
        [
            "--set", "model.norm=true", "--set", "training.batch_size=4", "--set", "training.world_size=2",
            "--set", "probe.warmup_steps=0",
        ],
    ],
    ids=["SGD", "AdamW with clipping", "BatchNorm", "BatchNorm of two examples"],
)  # fmt: skip
def test_two_processes_find_what_one_finds(together: Together, alone: Alone, changed: list[str]) -> None:
    one = alone(*changed)
    both = together(2, "probe", *changed)
    assert one.codes[0] in (0, 3)
    assert both.codes == [one.codes[0], 0]
    _same(both.result(), one.result())
    assert both.out[1] == both.err[1] == ""


def test_sharded_parameters_give_the_same_answer(together: Together, alone: Alone) -> None:
    """The planned run is one of two devices with half of the examples each: the passes hold as many together."""
    both = together(2, "probe", *ADAM, *FSDP)
    assert both.codes == [0, 0], both.err
    _same(both.result(), alone(*ADAM).result())
    assert "Warning" not in both.err[0]


def test_tied_parameters_stay_tied_when_they_are_sharded(together: Together, alone: Alone) -> None:
    tied = ["--set", "model.tied=true", *FEW_PASSES, "--set", "probe.max_examples=2000"]
    both = together(2, "probe", *tied, *FSDP)
    assert both.codes == [0, 0], both.err
    _same(both.result(), alone(*tied).result())


#: Labels without noise, so that the critical batch size is small and a horizon takes few examples.
HORIZON = [
    "--set", "probe.horizon=1", "--set", "probe.precision=0.9", "--set", "probe.max_examples=8000",
    "--set", "probe.warmup_steps=1", "--set", "dataset.noise=0", "--set", "probe.batch_sizes=[8, 32, 128]",
    "--set", "optimizer={_target_: torch.optim.SGD, lr: 0.02, momentum: 0.9}",
]  # fmt: skip


@pytest.mark.parametrize("parallel", [[], FSDP], ids=["ddp", "fsdp"])
def test_two_processes_find_the_horizon_of_one(together: Together, alone: Alone, parallel: list[str]) -> None:
    """The same curve from the same runs; two processes make replicates two at a time, so that what is left differs."""
    one = alone(*HORIZON, FEW_REPLICATES="1")
    both = together(2, "probe", *HORIZON, *parallel, FEW_REPLICATES="1")
    assert both.codes == [one.codes[0], 0], both.err
    expected, found = one.result()["horizon"], both.result()["horizon"]
    assert _numbers(found["curve"]) == pytest.approx(_numbers(expected["curve"]), rel=2e-3)
    losses = _losses(expected)
    shared = {run: loss for run, loss in _losses(found).items() if run in losses}
    assert len(shared) > 0.8 * len(losses)
    assert shared == pytest.approx({run: losses[run] for run in shared}, rel=2e-3)


def _numbers(part: Any) -> list[float]:
    """Every number of a part of a result, in its order."""
    if isinstance(part, dict | list):
        inside = part.values() if isinstance(part, dict) else part
        return [number for one in inside for number in _numbers(one)]
    return [math.inf if part is None else float(part)]


def _losses(horizon: dict[str, Any]) -> dict[tuple[float, ...], float]:
    """The loss at the end of each run, by what was trained."""
    keys = ("batch_size", "learning_rate", "replicates", "steps")
    return {tuple(run[key] for key in keys): run["loss"] for run in horizon["runs"]}


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_steps_are_timed_as_the_ranks_take_them(together: Together, parallel: str) -> None:
    ended = together(
        2, "probe", "--set", "training.world_size=2", "--set", f"training.parallel={parallel}",
        "--set", "probe.max_examples=600", "--set", "probe.batch_sizes=[8, 32, 96]",
    )  # fmt: skip
    stored = ended.result()
    throughput = stored["throughput"]
    assert (throughput["world_size"], throughput["parallel"]) == (2, parallel)
    for step in throughput["step_times"]:
        assert 0 <= step["exchange_seconds"] < step["seconds"]
        assert parallel == "ddp" or step["exchange_seconds"] == 0
    assert stored["provenance"]["device"] == "2 × cpu"
    assert "communication" not in {doubt["code"] for doubt in stored["doubts"]}


def test_a_sweep_of_two_processes_finds_what_one_finds(together: Together) -> None:
    goal = ["--set", "sweep.goal=0.95"]
    alone = together(1, "sweep", *goal)
    one = alone.result("sweep")
    runs = alone.folder / ".bnoise" / "bnoise.sweep.runs.jsonl"
    runs.unlink()
    both = together(2, "sweep", *goal)
    two = both.result("sweep")
    assert both.codes == [alone.codes[0], 0]
    assert runs.exists()
    assert _steps(two) == pytest.approx(_steps(one), rel=1e-3)
    assert len(_steps(one)) > 5
    again = together(2, "sweep", *goal)
    assert again.codes == both.codes
    assert "Going on with" in again.err[0]
    assert again.result("sweep")["runs"] == two["runs"]


def _steps(result: dict[str, Any]) -> list[float]:
    return [run["steps"] for run in result["runs"] if run["reached"]]


def _told(ended: Ended) -> str:
    """The one message of a call that failed."""
    assert ended.out[1:] == [""] * (len(ended.out) - 1)
    assert ended.err[0].count("bnoise: ") == 1, ended.err[0]
    return ended.err[0].split("bnoise: ", 1)[1]


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [("raise:1:0", []), ("raise:1:12", []), ("raise:1:0", FSDP)],
    ids=["in the checks", "in the warm-up", "sharded"],
)
def test_an_error_of_one_rank_ends_all_with_one_message(
    together: Together, fault: str, arguments: list[str]
) -> None:
    ended = together(2, "probe", *arguments, FAULT=fault)
    assert ended.codes == [4, 0]
    told = _told(ended)
    assert "on rank 1: computing the loss of" in told
    assert "a file of this rank is missing" in told
    assert not list(ended.folder.rglob("*.json"))


@pytest.mark.parametrize(
    ("fault", "arguments", "words"),
    [
        ("raise:1:700", [], "on rank 1: computing the loss of"),
        ("raise:0:700", [], "on rank 0: computing the loss of"),
        ("nan:1:700", [], "on rank 1: the loss"),
        ("raise:1:700", FSDP, "on rank 1: computing the loss of"),
        ("SIGKILL:1:700", [], "another rank has ended or has said nothing for too long."),
        ("SIGKILL:1:700", FSDP, "another rank has ended or has said nothing for too long."),
    ],
)
def test_what_was_measured_before_a_rank_fails_is_kept(
    together: Together, fault: str, arguments: list[str], words: str
) -> None:
    ended = together(2, "probe", *arguments, FAULT=fault)
    assert ended.codes[0] == 4
    assert _told(ended).startswith(words)
    stored = ended.result()
    assert stored["cost"]["gradient_examples"] > 0
    assert "failed" in {doubt["code"] for doubt in stored["doubts"]}


@pytest.mark.parametrize("fault", ["reading", "exchange"])
def test_a_failure_of_one_rank_while_steps_are_timed_keeps_the_answer(together: Together, fault: str) -> None:
    """Another rank may be waiting for it then, in an exchange of gradients that it will not make."""
    ended = together(2, "probe", FAULT_OUTSIDE=f"{fault}:1")
    assert ended.codes == [4, 0]
    assert _told(ended).startswith("on rank 1: a file of this rank is missing.")
    stored = ended.result()
    assert stored["simple_noise_scale"]["value"] is not None
    assert "untimed" in {doubt["code"] for doubt in stored["doubts"]}
    assert ended.seconds < PATIENCE / 4


@pytest.mark.parametrize(
    ("fault", "code", "doubt"),
    [("horizon:1", 4, "failed"), ("horizon:0", 4, "failed"), ("interrupted horizon:0", 130, "interrupted")],
)
def test_a_horizon_that_ends_early_keeps_the_answer_of_one_step(
    together: Together, fault: str, code: int, doubt: str
) -> None:
    ended = together(2, "probe", *HORIZON, FAULT_OUTSIDE=fault)
    assert ended.codes == [code, 0]
    stored = ended.result()
    assert stored["noise_scale"]["value"] is not None
    assert doubt in {doubt["code"] for doubt in stored["doubts"]}
    assert ended.seconds < PATIENCE / 4


def test_a_rank_without_a_device_is_named(together: Together) -> None:
    ended = together(2, "probe", FAULT_OUTSIDE="device:1")
    assert ended.codes == [2, 0]
    assert _told(ended).startswith(
        "on rank 1: --device needs a device that this torch can use; 'cuda:7' is none"
    )


def test_a_rank_that_says_nothing_is_lost_after_the_timeout(together: Together) -> None:
    ended = together(2, "probe", FAULT="SIGSTOP:1:700")
    assert ended.codes == [4, -signal.SIGKILL]
    assert "Timed out waiting 12000ms" in _told(ended)
    assert "failed" in {doubt["code"] for doubt in ended.result()["doubts"]}


def test_too_little_memory_on_one_rank_makes_the_passes_of_all_smaller(together: Together) -> None:
    ended = together(2, "probe", FAULT="memory:1:0")
    assert ended.codes == [0, 0], ended.err
    assert "memory" in {doubt["code"] for doubt in ended.result()["doubts"]}


def test_sharded_parameters_need_the_memory_that_is_planned(together: Together) -> None:
    ended = together(2, "probe", *FSDP, FAULT="memory:1:0")
    assert ended.codes == [4, 0]
    told = _told(ended)
    assert "out of memory with 24 examples on one device, in a pass of all 2 of them" in told
    assert "training.batch_size" in told


def test_an_interrupt_keeps_what_was_measured(together: Together) -> None:
    ended = together(2, "probe", FAULT="SIGINT:0:700")
    assert ended.codes == [130, 0]
    assert "interrupted" in {doubt["code"] for doubt in ended.result()["doubts"]}


def test_layers_with_exchanges_of_their_own_are_refused(together: Together) -> None:
    ended = together(2, "probe", "--set", "model.norm=sync")
    assert ended.codes == [4, 0]
    assert "Build it without convert_sync_batchnorm" in _told(ended)


def test_datasets_of_different_length_are_refused(together: Together) -> None:
    ended = together(2, "probe", UNEQUAL="1")
    assert ended.codes == [4, 0]
    assert "it has 400, 401 examples on ranks 0 to 1" in _told(ended)


def test_a_rank_whose_first_one_never_comes_says_nothing(tmp_path: Path) -> None:
    """Neither does torch, whose level of messages is set before it is imported: a process that is not forked."""
    program = (
        "from bnoise_cli.cli.torchrun import join_ranks; join_ranks()\n"
        "from tests.full.processes.faults import prepare_rank; prepare_rank()\n"
        "from bnoise_cli.__main__ import main; main()"
    )
    ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2", "RANK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, "probe", "absent.yaml"], cwd=tmp_path, check=False, capture_output=True,
        env={**os.environ, **ranks, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_mistakes_in_the_call_are_told_once(together: Together) -> None:
    wrong = together(2, "probe", "--set", "training.btch=3")
    assert wrong.codes == [2, 0]
    assert wrong.err[0].count("unknown key `btch`") == 1
    assert wrong.err[1] == ""


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.yaml", None, "on rank 1: c.yaml: found no such file"),
        (
            "c.yaml",
            CONFIG.replace("batch_size: 48", "batch_size: 96"),
            "on rank 1 `training.batch_size` is not that",
        ),
        ("train.py", USER.replace("n=400", "n=300"), "on rank 1 train.py is not that"),
        ("w.pt", "old", "on rank 1 the checkpoint is not that"),
    ],
    ids=["missing", "config", "code", "checkpoint"],
)
def test_the_files_of_another_machine_are_missing_or_old(
    together: Together, tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    """The second process works in a folder of its own."""
    here = {"c.yaml": CONFIG, "train.py": USER, "w.pt": "new"}
    other = tmp_path / "other"
    other.mkdir()
    for folder, files in ((tmp_path, here), (other, here | {name: text})):
        for file, content in files.items():
            if content is not None:
                (folder / file).write_text(content)
    arguments = ["c.yaml", "--out", "o.json", "--set", "checkpoint=w.pt"]
    ended = together(2, "probe", *arguments, ELSEWHERE=f"1:{other}")
    assert ended.codes == [2, 0]
    assert words in _told(ended)
    assert ended.seconds < PATIENCE / 4
    assert not list(tmp_path.rglob("*.json"))


def test_torchrun_starts_it(alone: Alone, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(USER)
    (tmp_path / "bnoise.yaml").write_text(CONFIG)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = launch([*torchrun, "-m", "bnoise_cli", "probe", "--json", "--budget", "90s"], tmp_path)
    out, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, err
    _same(json.loads(out), alone().result())


@pytest.mark.parametrize(
    ("there", "code", "words"),
    [("c.yaml", 0, "The result is in"), ("d.yaml", 1, "bnoise: on rank 1: c.yaml: found no such file")],
    ids=["done", "a file is missing"],
)
def test_two_machines_end_together(tmp_path: Path, there: str, code: int, words: str) -> None:
    """A launcher whose process ends well would wait five minutes for that of a machine where one failed."""
    machines = [tmp_path / "0", tmp_path / "1"]
    for folder, name in zip(machines, ("c.yaml", there), strict=True):
        folder.mkdir()
        (folder / "train.py").write_text(USER)
        (folder / name).write_text(CONFIG)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
                "--master-addr=127.0.0.1", f"--master-port={free_port()}"]  # fmt: skip
    short = ["--budget", "90s"]
    started = [
        launch([*launcher, f"--node-rank={node}", "-m", "bnoise_cli", "probe", "c.yaml", *short], folder)
        for node, folder in enumerate(machines)
    ]
    try:
        told = [process.communicate(timeout=PATIENCE) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [code, code], told
    assert words in told[0][1]
    assert "bnoise: " not in told[1][0] + told[1][1]


def test_a_checkpoint_and_its_optimizer_state_are_spread_over_the_ranks(
    together: Together, tmp_path: Path
) -> None:
    """Two checkpoints of a run, the second of which is loaded when the model is sharded already."""
    sys.path.insert(0, str(tmp_path))
    try:
        train = importlib.import_module("train")
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["train"]
    torch.manual_seed(3)
    model, data = train.model(), train.data()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in (3, 6):
        for _ in range(3):
            optimizer.zero_grad()
            train.loss(model, data[:64]).backward()
            optimizer.step()
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(saved, tmp_path / f"step_{step}.pt")
    arguments = [
        "--set", "optimizer={_target_: torch.optim.AdamW, lr: 1e-3}",
        "--set", "checkpoint=[step_3.pt, step_6.pt]", "--set", "probe.warmup_steps=0",
        "--set", "probe.max_examples=4000", *FEW_PASSES,
    ]  # fmt: skip
    alone = together(1, "probe", *arguments)
    one = alone.result()
    both = together(2, "probe", *arguments, *FSDP)
    assert (alone.codes, both.codes) == ([0], [0, 0]), both.err  # both points are resolved
    _same(both.result(), one)
    assert len(one["trajectory"]) == 2
    found = [point["noise_scale"]["value"] for point in both.result()["trajectory"]]
    assert found == pytest.approx([point["noise_scale"]["value"] for point in one["trajectory"]], rel=2e-3)
