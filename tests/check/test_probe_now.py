"""A check that measures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cases import QUADRATIC_CONFIG, ROOT, Call, Write


def test_a_device_that_there_is_not_is_a_wrong_call(bnoise: Call, config: str) -> None:
    assert bnoise("check", config, "--probe", "--device", "nonsense")[0] == 2
    code, _, err = bnoise("check", config, "--validate-only", "--probe")
    assert code == 2
    assert "--validate-only" in err


def test_probe_now_measures_keeps_and_judges(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG)
    code, out, _ = bnoise("check", "c.yaml", "--probe", "--quiet", "--batch-size", "2")
    assert code == 0, out
    assert Path(".bnoise/c.probe.json").exists()
    before = Path(".bnoise/c.probe.json").read_bytes()
    assert bnoise("check", "c.yaml", "--probe", "--quiet", "--batch-size", "2")[0] == 0
    assert Path(".bnoise/c.probe.json").read_bytes() == before, "what is known is not measured again"


def test_a_probe_that_fails_is_not_a_failed_check(bnoise: Call, write: Write) -> None:
    write("mine.py", "def loss(model, batch): raise KeyError('mine')\n")
    write("c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "mine.py:loss"))
    code, out, _ = bnoise("check", "c.yaml", "--probe", "--quiet")
    assert code == 4
    assert "error  c.yaml: " in out
    assert "mine" in out


@pytest.mark.full
def test_the_digits_from_probe_to_check(bnoise: Call, write: Write) -> None:
    text = (ROOT / "configs/digits.yaml").read_text()
    write("digits.yaml", text)
    code, out, err = bnoise(
        "probe", "digits.yaml", "--json", "--set", "probe.horizon=8", "--set", "probe.precision=0.3"
    )
    assert code == 0, err
    found = json.loads(out)
    recommended = found["recommendation"]["batch_size"]
    least_overhead = min(recommended, int(found["critical_batch_size"]["low"]))
    code, out, _ = bnoise("check", "digits.yaml", "--batch-size", str(least_overhead))
    assert code == 0
    assert out.startswith("pass")
    # The recommendation rests on the device as well, and may lie beyond B_crit where steps are dominated by t₀.
    allowed = (
        f"check.max_compute_overhead={max(1.0, 1.01 * recommended / found['critical_batch_size']['low'])}"
    )
    code, out, _ = bnoise("check", "digits.yaml", "--batch-size", str(recommended), "--set", allowed)
    assert code == 0
    assert out.startswith("pass")
    hundredfold = str(round(100 * found["critical_batch_size"]["value"]))
    code, out, _ = bnoise("check", "digits.yaml", "--batch-size", hundredfold)
    assert code == 1
    assert out.startswith("fail")
    write("digits.yaml", text.replace("widths: [64, 128, 10]", "widths: [64, 256, 10]"))
    code, out, _ = bnoise("check", "digits.yaml")
    assert code == 3
    assert "`model.widths` was [64, 128, 10] and is [64, 256, 10]" in " ".join(out.split())
    assert "Measure again with `bnoise probe digits.yaml`" in " ".join(out.split())
