"""Which stored result a config is judged by."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bnoise_cli.spec.code_files import code_hashes
from bnoise_cli.spec.data_files import changed_data, data_hashes
from bnoise_cli.spec.identity import weights_hash
from bnoise_cli.spec.load import load_spec
from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.check.verdicts import critical
from tests.samples import result as probed
from tests.samples import store


def store_as_measured(config: str) -> None:
    """Keep a result of a config with its code, data and weights as they are."""
    spec = load_spec(Path(config), at_hand=False)
    made = dataclasses.replace(
        probed().provenance, code=code_hashes(spec), data=data_hashes(spec), weights=weights_hash(spec)
    )
    store(config, provenance=made)


def test_a_stored_probe_is_judged(bnoise: Call, config: str) -> None:
    store(config)
    code, out, _ = bnoise("check", config)
    assert code == 0
    text = " ".join(out.split())
    assert "pass c.yaml: a batch of 32 examples takes 1.32 (1.29 to 1.36) times the fewest examples" in text
    allowed = "and 4.12 times the fewest steps; 2.00 times the fewest examples are allowed: B_crit is 100 (90.0 to 112)"
    assert allowed in text
    assert "By .bnoise/c.probe.json." in text
    code, out, _ = bnoise("check", config, "--batch-size", "4096")
    assert code == 1
    assert "Set training.batch_size to 96 or less." in out
    assert bnoise("check", config, "--set", "training.batch_size=4096")[0] == 1
    assert bnoise("check", config, "--batch-size", "4096", "--exit-zero")[0] == 0


def test_a_sweep_outranks_a_probe_and_the_newest_counts(bnoise: Call, config: str) -> None:
    def found() -> Any:
        [checked] = json.loads(bnoise("check", config, "--format", "json")[1])["checked"]
        return checked["critical_batch_size"]["value"]

    base = probed().provenance
    store(config)
    assert found() == 100
    store(config, ".bnoise/other.json", critical_batch_size=critical(200.0, 180.0, 220.0),
          provenance=dataclasses.replace(base, time="2026-02-01T00:00:00+00:00"))  # fmt: skip
    assert found() == 200
    store(config, ".bnoise/a.json", critical_batch_size=critical(300.0, 280.0, 320.0),
          provenance=dataclasses.replace(base, time="2025-02-01T00:00:00+00:00"))  # fmt: skip
    assert found() == 200
    store(config, kind="sweep", critical_batch_size=critical(50.0, 40.0, 60.0, "sweep"),
          provenance=dataclasses.replace(base, time="2024-02-01T00:00:00+00:00"))  # fmt: skip
    assert found() == 50
    assert "by training" in bnoise("check", config)[1]
    assert found() == 50
    code, out, _ = bnoise("check", config, "--result", ".bnoise/a.json", "--format", "json")
    assert code == 0
    assert json.loads(out)["checked"][0]["critical_batch_size"]["value"] == 300


def test_results_are_also_looked_for_beside_the_config(bnoise: Call, write: Write) -> None:
    Path("deep").mkdir()
    write("deep/c.yaml", QUADRATIC_CONFIG)
    store("deep/c.yaml", "deep/.bnoise/c.probe.json")
    assert bnoise("check", "deep/c.yaml")[0] == 0


def test_another_config_is_told_from_this_one(bnoise: Call, config: str, write: Write) -> None:
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert "cannot tell  c.yaml: there is no stored measurement of this config" in out
    assert "`bnoise probe c.yaml`" in out
    store(config)
    write("c.yaml", QUADRATIC_CONFIG.replace("noise_scale: 20.0", "noise_scale: 21.0"))
    code, out, _ = bnoise("check", config)
    assert code == 3
    text = " ".join(out.split())
    assert (
        ".bnoise/c.probe.json was measured for another config: `model.noise_scale` was 20.0 and is 21.0"
        in text
    )
    code, out, _ = bnoise("check", config, "--set", "model.dimension=17", "--set", "optimizer.lr=3")
    assert "`model.dimension` was 16 and is 17" in " ".join(out.split())
    assert "`optimizer.lr` was 0.01 and is 3" in " ".join(out.split())


def test_changed_code_of_the_user_is_named(bnoise: Call, write: Write) -> None:
    write("mine.py", "def build(width): ...\n")
    write("c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.NoisyQuadratic", "mine.py:build"))
    store_as_measured("c.yaml")
    assert bnoise("check", "c.yaml")[0] == 0
    write("mine.py", "# Builds.\ndef build(width): ...\n")
    assert bnoise("check", "c.yaml")[0] == 0
    write("mine.py", "def build(width): return 3\n")
    code, out, _ = bnoise("check", "c.yaml")
    assert code == 3
    assert "mine.py has changed" in out


def test_what_cannot_be_read_is_said(bnoise: Call, config: str) -> None:
    path = store(config)
    whole = path.read_text()
    path.write_text(whole[:500])
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert ".bnoise/c.probe.json is not JSON, or torn" in " ".join(out.split())
    code, _, err = bnoise("check", config, "--result", str(path))
    assert code == 2
    assert "not JSON, or torn" in err
    path.write_text(whole.replace('"confidence": 0.95', '"confidence": 7', 99))
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert "is damaged" in out
    path.write_text(whole.replace('"schema_version": 1', '"schema_version": 2'))
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert "schema_version 2" in " ".join(out.split())
    code, _, err = bnoise("check", config, "--result", "nowhere.json")
    assert code == 2
    assert "nowhere.json" in err
    store("c.yaml", ".bnoise/good.json")
    assert bnoise("check", config)[0] in (0, 3), "one bad file does not hide a good one of the same age"


def test_a_result_that_says_nothing_gives_way(bnoise: Call, config: str) -> None:
    """An interrupted or damaged sweep beside a good probe."""
    store(config)
    store(config, kind="sweep", critical_batch_size=critical(None, 0.0, None, "sweep"))
    code, out, _ = bnoise("check", config)
    assert code == 0
    assert "by training runs of a probe" in " ".join(out.split())
    path = Path(".bnoise/c.sweep.json")
    path.write_text(path.read_text().replace('"confidence": 0.95', '"confidence": 7'))
    assert bnoise("check", config)[0] == 0
    path.write_text("{")
    assert bnoise("check", config)[0] == 0
    Path(".bnoise/c.probe.json").unlink()
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert ".bnoise/c.sweep.json is not JSON, or torn" in " ".join(out.split())


@pytest.mark.parametrize(("target", "file"), [("net.build", "net.py"), ("net.build", "net/__init__.py")])
def test_code_in_the_current_folder_counts(bnoise: Call, write: Write, target: str, file: str) -> None:
    Path("configs").mkdir()
    Path(file).parent.mkdir(exist_ok=True)
    write(file, "def build(dimension, noise_scale): ...\n")
    write("configs/c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.NoisyQuadratic", target))
    store_as_measured("configs/c.yaml")
    assert bnoise("check", "configs/c.yaml")[0] == 0
    write(file, "def build(dimension, noise_scale): return 3\n")
    code, out, _ = bnoise("check", "configs/c.yaml")
    assert code == 3
    assert f"{file} has changed" in " ".join(out.split())


@pytest.mark.parametrize(
    ("imports", "file", "is_part"),
    [
        ("import helper", "helper.py", True),
        ("import pkg.deep.er", "pkg/deep/er.py", True),
        ("import pkg.deep.er", "pkg/__init__.py", True),
        ("from pkg import deep", "pkg/deep.py", True),
        ("from pkg.deep import *", "pkg/deep.py", True),
        ("import first", "second.py", True),  # which first.py imports
        ("from pkg import first", "pkg/second.py", True),  # by `from . import`
        ("def build():\n import helper", "helper.py", True),
        ("import os", "helper.py", False),
        ("# import helper", "helper.py", False),
        ("from . import helper", "helper.py", False),  # a file by itself has no package
        ("import first", "elsewhere/second.py", False),
    ],
)
def test_the_users_modules_that_are_imported_count(
    bnoise: Call, write: Write, imports: str, file: str, is_part: bool
) -> None:
    for folder in ("configs", "code", "code/pkg/deep", "code/elsewhere"):
        Path(folder).mkdir(parents=True)
    write("code/first.py", "import second")
    write("code/pkg/first.py", "from . import second, third")
    write("code/pkg/deep/er.py", "")
    write("code/mine.py", f"{imports}\nbuild = len\n")
    target = "../code/mine.py:build"
    write("configs/c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.NoisyQuadratic", target))
    write(f"code/{file}", "WIDTH = 3  # of the layer\n")
    store_as_measured("configs/c.yaml")
    assert bnoise("check", "configs/c.yaml")[0] == 0
    write(f"code/{file}", "WIDTH = 3\n")
    assert bnoise("check", "configs/c.yaml")[0] == 0
    write(f"code/{file}", "WIDTH = 4\n")
    code, out, _ = bnoise("check", "configs/c.yaml")
    assert code == (3 if is_part else 0)
    assert (f"../code/{file} has changed" in " ".join(out.split())) == is_part


@pytest.mark.parametrize(
    ("changes", "is_seen"),
    [
        ({"labels.npy": "0" * 99 + "1"}, True),
        ({"labels.npy": "0" * 101}, True),
        ({"images/a/1.png": "other"}, True),
        ({"images/b/3.png": "new"}, True),
        ({"images/b/.cache": "new"}, False),
        ({"images/a.lock": "new"}, False),
        ({"beside.npy": "new"}, False),
        ({".bnoise/more.txt": "new"}, False),
    ],
)
def test_data_that_a_config_names_count(
    bnoise: Call, write: Write, changes: dict[str, str], is_seen: bool
) -> None:
    """Compared where both are at hand, as weights are."""
    named = "\n  labels: labels.npy\n  folders: {train: images, here: .}"
    target = "bnoise_cli.examples.quadratic.NoisyQuadratic"
    config = str(write("c.yaml", QUADRATIC_CONFIG.replace(target, target + named)))
    Path("images/a").mkdir(parents=True)
    Path("images/b").mkdir()
    write("labels.npy", "0" * 100)
    write("images/a/1.png", "whole")
    store_as_measured(config)
    assert bnoise("check", config)[0] == 0
    for name, text in changes.items():
        write(name, text)
    code, out, _ = bnoise("check", config)
    assert code == (3 if is_seen else 0)
    assert any(f"{name} has changed" in out for name in ("labels.npy", "images")) == is_seen
    shutil.rmtree("images")
    Path("labels.npy").unlink()
    assert bnoise("check", config)[0] == 0


def test_data_are_compared_by_samples(write: Write) -> None:
    """A file of 100 GB is not read, nor are all files of a folder."""
    target = "bnoise_cli.examples.quadratic.NoisyQuadratic"
    path = write("c.yaml", QUADRATIC_CONFIG.replace(target, target + "\n  file: big.bin\n  folder: many"))
    with Path("big.bin").open("wb") as file:
        file.truncate(100 << 30)
    Path("many").mkdir()
    for number in range(300):
        write(f"many/{number:04}", "some")
    spec = load_spec(path, at_hand=False)
    before = data_hashes(spec)
    with Path("big.bin").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    write("many/0299", "more than that")
    after = data_hashes(spec)
    assert changed_data(before, after) == ["big.bin", "many"]
    assert changed_data({"big.bin": [1], "many": None}, after) == ["big.bin", "many"]
    assert changed_data(["big.bin"], after) == []


def test_other_weights_are_another_start(bnoise: Call, write: Write) -> None:
    """Compared where both are at hand; a CI machine may have none."""
    config = str(write("c.yaml", QUADRATIC_CONFIG + "checkpoint: w.pt\n"))
    write("w.pt", "a" * 3_000_000)
    store_as_measured(config)
    assert bnoise("check", config)[0] == 0
    write("w.pt", "a" * 2_999_999 + "b")
    code, out, _ = bnoise("check", config)
    assert code == 3
    assert "w.pt has changed" in out
    Path("w.pt").unlink()
    assert bnoise("check", config)[0] == 0


def test_another_batch_size_is_held_against_the_devices(bnoise: Call, config: str) -> None:
    store(config)
    assert bnoise("check", config, "--batch-size", "70", "--set", "training.world_size=7")[0] == 0
    code, out, _ = bnoise("check", config, "--batch-size", "70", "--set", "training.world_size=8")
    assert code == 2
    assert "70 for 8 devices" in " ".join(out.split())


def test_the_command_that_measures_is_one_to_paste(bnoise: Call, write: Write) -> None:
    """Quoted for a shell, with the same settings, and into a file of its own where two configs have one name."""
    for folder in ("a b", "c"):
        Path(folder).mkdir()
        write(f"{folder}/x.yaml", QUADRATIC_CONFIG)
    _, out, _ = bnoise("check", "a b/x.yaml", "--set", "model.dimension=17")
    assert "`bnoise probe 'a b/x.yaml' --set model.dimension=17`" in " ".join(out.split())
    _, out, _ = bnoise("check", "*/x.yaml")
    assert "`bnoise probe 'a b/x.yaml' --out 'a b/.bnoise/x.probe.json'`" in " ".join(out.split())
    assert bnoise("probe", "c/x.yaml", "--out", "c/.bnoise/x.probe.json", "--quiet")[0] in (0, 3)
    _, out, _ = bnoise("check", "*/x.yaml", "--batch-size", "1")
    assert "2 configs 2" in " ".join(out.split()), "they are the same config, so one result serves both"


def test_a_batch_size_that_nobody_chose_is_not_judged(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG.replace("training:\n  batch_size: 32\n", ""))
    store("c.yaml")
    code, out, _ = bnoise("check", "c.yaml")
    assert code == 3
    assert "training.batch_size is not set" in out
    assert bnoise("check", "c.yaml", "--batch-size", "32")[0] == 0
