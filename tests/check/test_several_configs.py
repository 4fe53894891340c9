"""Several configs and patterns in one check."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.samples import store


def test_each_config_has_its_verdict_and_the_gravest_counts(bnoise: Call, write: Write) -> None:
    Path("configs/deep").mkdir(parents=True)
    for name, text in {
        "good": QUADRATIC_CONFIG,
        "deep/large": QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: 3200"),
        "open": QUADRATIC_CONFIG.replace("dimension: 16", "dimension: 17"),
        "wrong": QUADRATIC_CONFIG.replace("batch_size: 32", "batch_size: -1"),
    }.items():
        write(f"configs/{name}.yaml", text)
    store("configs/good.yaml")

    def codes(*arguments: str) -> tuple[int, dict[str, str]]:
        code, out, _ = bnoise("check", *arguments, "--format", "json")
        data = json.loads(out)
        assert data["exit_code"] == code
        return code, {Path(each["config"]).stem: each["verdict"] for each in data["checked"]}

    every = {"good": "pass", "large": "fail", "open": "cannot_tell", "wrong": "invalid"}
    assert codes("configs/**/*.yaml") == (2, every)
    assert codes("configs/*.yaml", "configs/good.yaml") == (
        2,
        {k: v for k, v in every.items() if k != "large"},
    )
    assert codes("configs/good.yaml", "configs/open.yaml")[0] == 3
    assert codes("configs/open.yaml", "configs/deep/large.yaml")[0] == 1
    assert codes("configs/open.yaml", "configs/deep/large.yaml", "--exit-zero")[0] == 0
    assert codes("configs/**/*.yaml", "--exit-zero")[0] == 2
    _, out, _ = bnoise("check", "configs/**/*.yaml")
    assert "4 configs  1 pass, 1 fail, 1 cannot tell, 1 invalid config" in out
    code, _, err = bnoise("check", "nothing/*.yaml")
    assert code == 2
    assert "no file matches 'nothing/*.yaml'" in err
    code, _, err = bnoise("check", "absent.yaml")
    assert code == 2


def test_patterns_end_and_count_each_file_once(bnoise: Call, write: Write) -> None:
    """Links that lead in circles, hidden folders, a file named twice."""
    Path("configs/.hidden").mkdir(parents=True)
    for name in ("configs/c.yaml", "configs/.hidden/c.yaml"):
        write(name, QUADRATIC_CONFIG)
    Path("configs/a").symlink_to(".")
    Path("configs/b").symlink_to(".")
    Path("configs/loop.yaml").symlink_to("loop.yaml")
    Path("configs/link.yaml").symlink_to("c.yaml")
    store("configs/c.yaml")
    for arguments in (
        ["configs/**/*.yaml"],
        ["configs/c.yaml", str(Path("configs").resolve() / "**/*.yaml")],
    ):
        code, out, _ = bnoise("check", *arguments, "--format", "json")
        assert code == 0
        assert len(json.loads(out)["checked"]) == 1
    code, _, err = bnoise("check", "configs/***.yaml")
    assert code in (0, 2)
    assert "Traceback" not in err
    assert bnoise("check", "configs/loop.yaml", "--format", "github")[0] == 2


def test_without_a_name_it_is_bnoise_yaml(bnoise: Call, write: Write) -> None:
    write("bnoise.yaml", QUADRATIC_CONFIG)
    store("bnoise.yaml")
    assert bnoise("check")[0] == 0


def test_a_warning_fails_where_that_is_asked_for(bnoise: Call, config: str) -> None:
    store(config)
    assert bnoise("check", config, "--batch-size", "105")[0] == 0
    code, out, _ = bnoise("check", config, "--batch-size", "105", "--strict")
    assert code == 1
    assert "more by the estimate, though not surely" in " ".join(out.split())
