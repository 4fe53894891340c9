"""Models and data that break the theory, each from its config to what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bnoise_cli.measurement.task.preserve import preserved
from bnoise_cli.measurement.task.user_code import OutOfMemoryError, user_code
from tests.cases import Call, Write

#: One file of the user's own, with every trap as a function.
USER = '''
import torch
from torch import nn
from torch.nn import functional as F


class Inputs(torch.utils.data.Dataset):
    def __init__(self, lengths=None):
        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(512, 6, generator=draw)
        self.y = torch.randint(3, (512,), generator=draw)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Sentences(Inputs):
    """Between 2 and 12 tokens, short ones harder."""

    def __getitem__(self, i):
        draw = torch.Generator().manual_seed(i)
        length = int(torch.randint(2, 13, (1,), generator=draw))
        step = 1 if length > 6 else 3
        return {"ids": (i + step * torch.arange(length)) % 16}


def pad(examples):
    ids = nn.utils.rnn.pad_sequence([e["ids"] for e in examples], batch_first=True)
    labels = nn.utils.rnn.pad_sequence([e["ids"] for e in examples], batch_first=True, padding_value=-100)
    return {"input_ids": ids, "labels": labels}


class Bigrams(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(16, 8), nn.Linear(8, 16)

    def forward(self, input_ids, labels):
        logits = self.out(self.embed(input_ids))[:, :-1]
        return {"loss": F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)}


def model(extra=None, freeze=False, bfloat16=False):
    body = nn.Linear(6, 16)
    body.requires_grad_(not freeze)
    layers = {None: nn.Tanh(), "norm": nn.BatchNorm1d(16), "dropout": nn.Dropout(0.3)}[extra]
    built = nn.Sequential(body, layers, nn.Linear(16, 3))
    return built.bfloat16() if bfloat16 else built


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.inner, self.outer, self.reentrant = nn.Linear(6, 16), nn.Linear(16, 3), reentrant

    def forward(self, x):
        x = x.requires_grad_()
        x = torch.utils.checkpoint.checkpoint(lambda x: self.inner(x).tanh(), x, use_reentrant=self.reentrant)
        return self.outer(x)


def compiled():
    return torch.compile(model(), backend="aot_eager")


def plain(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


own = torch.Generator().manual_seed(0)


def restless(model, batch):
    return plain(model, batch) * (1 + 0.1 * torch.rand(1, generator=own))


def contrastive(model, batch):
    z = F.normalize(model(batch[0]), dim=1)
    return F.cross_entropy(z @ z.T / 0.1, torch.arange(len(z)))


class Augmented(Inputs):
    def __getitem__(self, i):
        return self.x[i] + 0.3 * torch.randn(6), self.y[i]


def masking(examples):
    """Collation that leaves out some inputs at random."""
    x, y = torch.utils.data.default_collate(examples)
    return x * (torch.rand(x.shape) > 0.2), y


def listed():
    """Sequences of one length, each an example."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(16, (9,), generator=draw) for _ in range(300)]


def next_tokens(model, ids):
    return F.cross_entropy(model.out(model.embed(ids[:, :-1])).transpose(1, 2), ids[:, 1:])


def some_parameters(parameters, lr):
    return torch.optim.SGD([p for p in parameters if p.ndim > 1], lr=lr)


class Embedded(nn.Module):
    def __init__(self, sparse=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Embedding(16, 8, sparse=sparse), nn.Linear(8, 16)


def complex_model():
    return nn.Linear(6, 3, dtype=torch.complex64)


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = model()

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(x).float()


class Temperature(nn.Module):
    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, y):
        return F.cross_entropy(x * self.t, y)


class Averaging(nn.Module):
    """Puts a new tensor into the place of a buffer."""

    def __init__(self):
        super().__init__()
        self.inner = model()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.inner(x)


def summed(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


def pair_model():
    built = model()
    built.register_forward_hook(lambda module, inputs, output: (output, output))
    return built


class Own:
    pass


def own_dataset():
    return Own()


def moving(model, batch):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.999)
    return plain(model, batch)
'''


@pytest.fixture
def probed(bnoise: Call, write: Write) -> Any:
    """Probe a config of that file; the exit code, the result and what was said."""
    write("train.py", USER)

    def probe(*sets: str, **sections: Any) -> tuple[int, dict[str, Any], str]:
        defaults = {"warmup_steps": 20, "max_examples": 6000, "horizon": "off"}
        config = {
            "version": 1,
            "model": {"_target_": "train.py:model"},
            "dataset": {"_target_": "train.py:Inputs"},
            "loss": {"_target_": "torch.nn.CrossEntropyLoss"},
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
            "training": {"batch_size": 32},
            **sections,
            "probe": {**defaults, **sections.get("probe", {})},
        }
        config = {key: value for key, value in config.items() if value is not None}
        write("bnoise.yaml", json.dumps(config))
        code, out, said = bnoise("probe", "bnoise.yaml", "--json", "--quiet", *sets)
        return code, json.loads(out) if out else {}, said

    return probe


def codes(result: dict[str, Any]) -> set[str]:
    return {doubt["code"] for doubt in result["doubts"]}


@pytest.mark.parametrize(
    ("code", "sections"),
    [
        ("batch_norm", {"model": {"_target_": "train.py:model", "extra": "norm"}}),
        ("random_masks", {"model": {"_target_": "train.py:model", "extra": "dropout"}}),
        ("frozen", {"model": {"_target_": "train.py:model", "freeze": True}}),
        ("not_a_mean", {"loss": None, "objective": {"_target_": "train.py:contrastive"}}),
        (
            "not_a_mean",
            {
                "loss": None,
                "objective": {"_target_": "train.py:summed"},
                "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.003},
            },
        ),
        ("random_masks", {"dataset": {"_target_": "train.py:Augmented"}}),
        ("random_masks", {"collate": {"_target_": "train.py:masking"}}),
        ("loss_parameters", {"loss": {"_target_": "train.py:Temperature"}}),
        (
            "unequal_lengths",
            {
                "model": {"_target_": "train.py:Bigrams"},
                "dataset": {"_target_": "train.py:Sentences"},
                "collate": {"_target_": "train.py:pad"},
                "loss": None,
            },
        ),
    ],
)
def test_a_trap_is_named_among_the_doubts(probed: Any, code: str, sections: dict[str, Any]) -> None:
    exit_code, result, said = probed(**sections)
    assert exit_code in (0, 3), said
    assert code in codes(result)
    assert "diverged" not in codes(result)
    others = {"batch_norm", "random_masks", "frozen", "not_a_mean", "unequal_lengths"} - {code}
    assert not others & codes(result)


@pytest.mark.parametrize(
    ("words", "sections"),
    [
        ("must repeat", {"loss": None, "objective": {"_target_": "train.py:restless"}}),
        ("parameters in place", {"loss": None, "objective": {"_target_": "train.py:moving"}}),
        ("real parameters", {"model": {"_target_": "train.py:complex_model"}}),
        ("Use `objective:` with a function f(model, batch)", {"model": {"_target_": "train.py:pair_model"}}),
        ("it built an object of type train.py:Own.", {"dataset": {"_target_": "train.py:own_dataset"}}),
        (
            "takes a single one",
            {
                "loss": None,
                "objective": {"_target_": "train.py:contrastive"},
                "training": {"batch_size": 1},
            },
        ),
        ("precision_mode: bf16-mixed", {"model": {"_target_": "train.py:model", "bfloat16": True}}),
    ],
)
def test_a_trap_is_refused(probed: Any, words: str, sections: dict[str, Any]) -> None:
    exit_code, result, said = probed(**sections)
    assert (exit_code, result) == (4, {})
    assert words in " ".join(said.split())


@pytest.mark.parametrize(
    "model",
    [
        {"_target_": "train.py:Checkpointed", "reentrant": True},
        {"_target_": "train.py:Checkpointed", "reentrant": False},
        pytest.param({"_target_": "train.py:compiled"}, marks=pytest.mark.full),
    ],
)
def test_other_ways_to_run_the_same_model_measure_the_same(probed: Any, model: dict[str, Any]) -> None:
    """Gradient checkpointing of both kinds and torch.compile: equal to rounding, with the same draws."""
    code, result, said = probed(model=model)
    assert code in (0, 3), said
    _, plain, _ = probed()
    assert result["noise_scale"]["value"] == pytest.approx(plain["noise_scale"]["value"], rel=1e-3)
    assert result["cost"]["gradient_examples"] == plain["cost"]["gradient_examples"]


@pytest.mark.full
def test_bfloat16_is_measured_in_mixed_precision(probed: Any) -> None:
    """The weights are kept in float32; the number is that of float32, within its interval."""
    mixed = {"warmup_steps": 20, "max_examples": 20_000, "precision_mode": "bf16-mixed"}
    code, result, said = probed(model={"_target_": "train.py:model", "bfloat16": True}, probe=mixed)
    assert code in (0, 3), said
    assert result["provenance"]["dtype"] == "float32, computed in bfloat16"
    _, full, _ = probed(probe={**mixed, "precision_mode": "full"})
    value = result["noise_scale"]["value"]
    assert full["noise_scale"]["low"] / 1.1 <= value <= 1.1 * full["noise_scale"]["high"]
    assert result["simple_noise_scale"]["value"] == pytest.approx(
        full["simple_noise_scale"]["value"], rel=0.1
    )


def test_a_missing_local_file_is_named_with_its_absolute_path(probed: Any, tmp_path: Path) -> None:
    code, _, said = probed(
        dataset={"_target_": "bnoise_cli.data.TokenFile", "path": "train.bin", "context": 8}
    )
    assert code == 4
    assert str(tmp_path / "train.bin") in said.replace("\n", "")


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
        "Unable to find a valid cuDNN algorithm to run convolution",
    ],
)
def test_other_words_for_out_of_memory_are_understood(words: str) -> None:
    with pytest.raises(OutOfMemoryError), user_code("computing"):
        raise RuntimeError(words)


def test_a_script_that_parses_arguments_on_import_finds_none(probed: Any, write: Write) -> None:
    write(
        "script.py",
        "import argparse\nargparse.ArgumentParser().parse_args()\nfrom torch.nn import Linear\n"
        "def net():\n    return Linear(6, 3)\n",
    )
    code, _, said = probed(model={"_target_": "script.py:net"})
    assert code in (0, 3), said


@pytest.mark.parametrize("planned", [20, 256, *(pytest.param(n, marks=pytest.mark.full) for n in (33, 40))])
def test_every_planned_size_has_a_choice_of_batch_sizes(probed: Any, planned: int) -> None:
    """With groups of one device's part; and nothing beyond the dataset of 512 is recommended."""
    code, result, said = probed(
        model={"_target_": "train.py:model", "extra": "norm"},
        training={"batch_size": planned},
        probe={"max_examples": 30_000},
    )
    assert code in (0, 3), said
    if result["critical_batch_size"]["value"] is not None:
        assert len(result["tradeoff"]) >= min(3, 512 // planned)


def test_below_a_group_nothing_is_claimed(probed: Any) -> None:
    """A loss of pairs within a batch has little noise beyond that; with fewer examples it is another loss."""
    code, result, said = probed(
        loss=None,
        objective={"_target_": "train.py:contrastive"},
        training={"batch_size": 64},
        probe={"max_examples": 40_000},
    )
    assert code in (0, 3), said
    critical = result["critical_batch_size"]
    assert result["provenance"]["group"] == 64
    if critical["value"] is None:
        assert code == 3
    else:
        assert critical["value"] >= 64
    for row in result["tradeoff"]:
        assert row["batch_size"] % 64 == 0
        assert row["micro_batch_size"] in (None, 64)


@pytest.mark.full
def test_batch_norm_is_advised_in_its_groups(probed: Any) -> None:
    code, result, said = probed(
        model={"_target_": "train.py:model", "extra": "norm"},
        training={"batch_size": 5},  # 16 examples in groups of 5 would leave one
        probe={"max_examples": 20_000},
    )
    assert code == 0, said
    assert result["provenance"]["group"] == 5
    assert all(row["batch_size"] % 5 == 0 and row["micro_batch_size"] == 5 for row in result["tradeoff"])
    assert result["recommendation"]["micro_batch_size"] == 5


@pytest.mark.parametrize("sparse", [False, True])
def test_a_list_of_tensors_is_a_dataset_of_them(probed: Any, sparse: bool) -> None:
    """Also with the sparse gradients of an embedding."""
    code, result, said = probed(
        model={"_target_": "train.py:Embedded", "sparse": sparse},
        dataset={"_target_": "train.py:listed"},
        loss=None,
        objective={"_target_": "train.py:next_tokens"},
    )
    assert code in (0, 3), said
    assert result["provenance"]["dataset_length"] == 300


@pytest.mark.parametrize("model", ["Autocast", "Averaging"])
def test_what_is_harmless_is_no_doubt(probed: Any, model: str) -> None:
    code, result, said = probed(model={"_target_": f"train.py:{model}"})
    assert code in (0, 3), said
    assert "not_a_mean" not in codes(result)


def test_an_optimizer_that_leaves_parameters_out_is_refused(probed: Any) -> None:
    code, _, said = probed(optimizer={"_target_": "train.py:some_parameters", "lr": 0.1})
    assert code == 2
    assert "must hold every trainable parameter; 2 of 4 are in none" in " ".join(said.split())


def test_buffers_are_given_back_where_forward_replaces_them() -> None:
    class Replacing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: torch.Tensor
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = self.seen + x
            return x

    model = Replacing()
    before = model.seen
    with preserved(model, 0):
        model(torch.ones(3))
    assert model.seen is before
    assert not model.seen.any()
