"""Whatever the files hold, a check ends in a verdict or a message."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnoise_cli.cli import app
from bnoise_cli.errors import ExitCode
from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.samples import store

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=4,
)


def called(*arguments: str) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    with patch.object(sys, "argv", ["bnoise", *arguments]), redirect_stdout(out), redirect_stderr(err):
        code = app.run()
    return code, out.getvalue(), err.getvalue()


def require_sane(code: int, out: str, err: str, known: tuple[ExitCode, ...]) -> None:
    """An exit code of 0 or 1 has a verdict with the figures that it follows from."""
    assert "Traceback" not in err
    assert code in known
    if code not in (0, 1):
        assert out or err
        return
    [checked] = json.loads(out)["checked"]
    least = checked["compute_overhead_limits"]["low"]
    assert checked["batch_size"] >= 1
    if code == 1:
        assert checked["verdict"] == "fail"
        assert least > 1
    else:
        assert checked["verdict"] in ("pass", "warn")
        assert least <= 1


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@pytest.mark.full
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_a_result_ends_in_a_verdict_or_a_message(config: str, data: st.DataObject) -> None:
    path = store(config, "r.json")
    stored = json.loads(path.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(stored)[1:]))
        inner = stored
        for key in place[:-1]:
            inner = inner[key]
        if data.draw(st.booleans()) and isinstance(inner, dict):
            del inner[place[-1]]
        else:
            inner[place[-1]] = data.draw(ANYTHING)
    path.write_text(json.dumps(stored))
    size = data.draw(st.sampled_from(["1", "95", "105", "4096"]))
    code, out, err = called("check", config, "--result", "r.json", "--batch-size", size, "--format", "json")
    require_sane(
        code, out, err, (ExitCode.DONE, ExitCode.CHECK_FAILED, ExitCode.WRONG_CALL, ExitCode.CANNOT_TELL)
    )
    Path(".bnoise").mkdir(exist_ok=True)
    Path(".bnoise/c.probe.json").write_bytes(path.read_bytes())
    code, out, err = called("check", config, "--batch-size", size, "--format", "json")
    require_sane(code, out, err, (ExitCode.DONE, ExitCode.CHECK_FAILED, ExitCode.CANNOT_TELL))


@pytest.mark.full
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.integers(0, 2000))
def test_any_bytes_are_a_verdict_or_a_message(config: str, noise: bytes, at: int) -> None:
    path = store(config, "r.json")
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + noise + whole[at:])
    code, out, err = called("check", config, "--result", "r.json", "--format", "json")
    require_sane(
        code, out, err, (ExitCode.DONE, ExitCode.CHECK_FAILED, ExitCode.WRONG_CALL, ExitCode.CANNOT_TELL)
    )
    text = QUADRATIC_CONFIG.encode()
    Path("d.yaml").write_bytes(text[: at % len(text)] + noise + text[at % len(text) :])
    code, out, err = called("check", "d.yaml", "--format", "json")
    require_sane(
        code, out, err, (ExitCode.DONE, ExitCode.CHECK_FAILED, ExitCode.WRONG_CALL, ExitCode.CANNOT_TELL)
    )


@pytest.mark.full
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["training", "check", "probe", "model", "optimizer", "sweep", "version", "training.batch_size",
                        "check.max_compute_overhead", "check.min_time_efficiency"]), ANYTHING)  # fmt: skip
def test_any_value_in_a_config_is_a_verdict_or_a_message(config: str, key: str, value: Any) -> None:
    store(config)
    code, out, err = called("check", config, "--set", f"{key}={json.dumps(value)}", "--format", "json")
    assert "Traceback" not in err
    assert code in (0, 1, 2, 3)
    if code in (0, 1):
        [checked] = json.loads(out)["checked"]
        assert checked["verdict"] in ("pass", "warn", "fail")


@pytest.mark.parametrize("text", [
    QUADRATIC_CONFIG.replace("batch_size: 32", f"batch_size: {'9' * 400}"),
    QUADRATIC_CONFIG.replace("lr: 0.01", "lr: !!timestamp foo"),
    QUADRATIC_CONFIG.replace("lr: 0.01", "lr: !!bool foo"),
    QUADRATIC_CONFIG.replace("lr: 0.01", "lr: !!binary Zm9v"),
    QUADRATIC_CONFIG + "x: &a0 [1]\n" + "".join(f"x{n}: &a{n} {'[' * 29}*a{n - 1}{']' * 29}\n" for n in range(1, 60)),
    QUADRATIC_CONFIG + "x0: &a0 [1]\n" + "".join(f"x{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 9)),
    QUADRATIC_CONFIG + '"\\ud800x": 1\n',
    QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "a" * 5000 + ".py:foo"),
    QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "/etc/passwd:foo"),
    QUADRATIC_CONFIG.replace("lr: 0.01", "lr: ${a0}") + "".join(f"a{i}: ${{a{i + 1}}}\n" for i in range(2000)),
    f"%YAML {'1' * 5000}.1\n---\n{QUADRATIC_CONFIG}",
    QUADRATIC_CONFIG + 'x: "\\UFFFFFFFF"\n',
    "- 1\n",
])  # fmt: skip
@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_every_strange_config_is_one_invalid_config(bnoise: Call, write: Write, text: str, form: str) -> None:
    write("good.yaml", QUADRATIC_CONFIG)
    store("good.yaml")
    write("c.yaml", text)
    code, out, err = bnoise("check", "c.yaml", "good.yaml", "--format", form)
    assert code == 2
    assert "Traceback" not in err
    assert "B_crit is 100" in " ".join(out.split()), "the other config has its verdict"


def test_a_target_of_any_length_and_a_device_in_the_folder_do_no_harm(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "a" * 5000 + ".foo"))
    assert bnoise("check", "c.yaml")[0] == 2
    write("c.yaml", QUADRATIC_CONFIG)
    Path(".bnoise").mkdir()
    Path(".bnoise/c.probe.json").symlink_to("/dev/zero")
    os.mkfifo(".bnoise/pipe.json")
    code, out, _ = bnoise("check", "c.yaml")
    assert code == 3
    assert "is not a plain file" in " ".join(out.split())
    assert bnoise("check", "a" * 5000)[0] == 2
