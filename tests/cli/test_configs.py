"""Every config of configs/ is probed; some are swept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cases import ROOT, SMALL_IMAGES, Call, need_for

CONFIGS = [
    "digits", "digits_cnn", "gpt2", "nanogpt", "noisy_quadratic", "own_script", "resnet18", "stdlib_gpt",
    "stdlib_gpt_adamw",
]  # fmt: skip


# The first is swept at every merge, the others with the statistics.
SWEEPS = [
    "digits_cnn",
    pytest.param("digits", marks=pytest.mark.statistics),
    pytest.param("stdlib_gpt_adamw", marks=pytest.mark.statistics),
]


@pytest.mark.full
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_runs(bnoise: Call, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    need_for(name)
    Path("train.bin").write_bytes(b"".join(bytes([value, 0]) for value in b"abc abd acd " * 500))
    cheap = name.startswith(("digits", "noisy"))
    few = ["--set", f"probe.max_examples={8000 if cheap else 1000}"]
    few += [] if cheap else ["--set", "probe.warmup_steps=10"]
    few += SMALL_IMAGES if name == "resnet18" else []
    config = str(ROOT / "configs" / f"{name}.yaml")
    code, out, err = bnoise("probe", config, "--json", "--budget", "60s" if cheap else "8s", *few)
    assert code in (0, 3), err  # 3 if the budget did not hold 16 steps of a horizon
    data = json.loads(out)
    assert not cheap or data["noise_scale"]["low"] > 0
    if name not in ("noisy_quadratic", "own_script"):
        assert re.fullmatch("[0-9a-f]{64}", data["provenance"]["dataset_hash"])
    if (advised := data["recommendation"]) is not None:  # it passes the check, or says why not
        code, out, err = bnoise("check", config, "--batch-size", str(advised["batch_size"]), *few)
        assert code == 0 or "`bnoise check` a" in advised["reason"], (advised["reason"], out, err)


def test_every_config_has_a_test() -> None:
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} == set(CONFIGS)


@pytest.mark.full
@pytest.mark.parametrize("name", SWEEPS)
def test_the_sweeps_of_the_configs_train(
    name: str, bnoise: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a near goal at three batch sizes, one seed; the figures of the README take minutes."""
    monkeypatch.chdir(tmp_path)
    near = {"digits": "1.5", "digits_cnn": "2.0", "stdlib_gpt_adamw": "4.0"}
    code, out, err = bnoise("sweep", str(ROOT / f"configs/{name}.yaml"), "--set", f"sweep.goal={near[name]}",
                            "--set", "sweep.seeds=1", "--set", "sweep.batch_sizes=[8, 32, 128]",
                            "--verbose")  # fmt: skip
    assert code in (0, 3), err
    assert "Measured by training" in out
    data = json.loads(Path(f".bnoise/{name}.sweep.json").read_text())
    assert all(batch["steps"] for batch in data["batches"])
    assert [batch["batch_size"] for batch in data["batches"]] == [8, 32, 128]
