"""The hash of a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from bnoise_cli.results.probe import PROBE
from bnoise_cli.spec.identity import weights_hash
from bnoise_cli.spec.load import load_spec
from bnoise_cli.storage import sampled_hash
from tests.building.checkpoints import Net, plain, trainer_shards


def test_the_hash_of_weights_is_of_every_file_of_them(
    user: Path, saved: tuple[Net, torch.optim.Optimizer]
) -> None:
    model, state = saved[0], saved[1].state_dict()
    plain(model, state)
    folder = trainer_shards(model, state)

    def found(checkpoint: str) -> str | None:
        return weights_hash(load_spec(user, [f"checkpoint={checkpoint}"], at_hand=False))

    assert found("w.pt") == sampled_hash(Path("w.pt"))
    assert found("absent.pt") is None
    assert found("[w.pt, absent.pt]") is None
    assert found("") is None
    for file in ("pytorch_model-00002-of-00002.bin", "optimizer.pt", "pytorch_model.bin.index.json"):
        before = [found(name) for name in (folder, f"[w.pt, {folder}]")]
        assert len({*before, None}) == 3
        whole = Path(folder, file).read_bytes()
        Path(folder, file).write_bytes(
            whole.replace(b"}", b" }", 1) if file.endswith("json") else whole + b"0"
        )
        assert not {*before} & {found(name) for name in (folder, f"[w.pt, {folder}]")}
    Path(folder, "pytorch_model-00001-of-00002.bin").unlink()
    assert found(folder) is None
    shutil.rmtree(folder)
    assert found(folder) is None


def test_one_checkpoint_has_the_hash_it_had(user: Path) -> None:
    """Stored results of earlier versions stay theirs."""
    spec = load_spec(user, ["checkpoint=w.pt", "model={_target_: torch.nn.Identity}",
                            "dataset={_target_: torch.nn.Identity}"], at_hand=False)  # fmt: skip
    assert PROBE.hash(spec) == "daf6578be81208c68f08dbe4789c871d1ef40b1e4f05450350f66f8d7dbf1d90"
