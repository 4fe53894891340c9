"""Attacks on whole calls of the program: storing, streams, user code that misbehaves, signals, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cases import QUADRATIC_CONFIG, Write
from tests.processes import start

BASE = "from bnoise_cli.examples.quadratic import mean_loss\n"
# User code that misbehaves after the warm-up, when replicates have been measured.
LATE = (
    BASE
    + "n = [0]\ndef loss(model, batch):\n    n[0] += 1\n    if n[0] > 2500: {0}\n    return mean_loss(model, batch)\n"
)


def call(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """The program in a process of its own: exit code, stdout, stderr."""
    code, out, err = start(arguments, Path.cwd(), Path("streams"), variables).end(120)
    assert "mistake in bnoise" not in err, err
    assert code is not None
    return code, out, err


def config(write: Write, code: str, name: str = "c.yaml", **values: str) -> str:
    """A config whose loss is in u.py."""
    write("u.py", code)
    text = QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "u.py:loss")
    text = text.replace("  max_examples", "  budget: 60s\n  max_examples")
    for old, new in values.items():
        text = text.replace(old, new)
    return str(write(name, text))


def test_a_failed_probe_does_not_replace_a_good_result(write: Write) -> None:
    plain = (
        BASE
        + "import os\ndef loss(model, batch):\n    if os.environ.get('FAIL'): raise OSError('disk gone')\n"
    )
    path = config(write, plain + "    return mean_loss(model, batch)\n")
    assert call("probe", path, "-q")[0] in (0, 3)
    before = Path(".bnoise/c.probe.json").read_bytes()
    assert call("probe", path, "-q", FAIL="1")[0] == 4
    assert Path(".bnoise/c.probe.json").read_bytes() == before


def test_user_code_that_changes_the_folder_does_not_move_the_result(write: Write) -> None:
    Path("other").mkdir()
    path = config(write, BASE + "import os; os.chdir('other')\nloss = mean_loss\n")
    code, _, err = call("probe", path, "--plot", "p.png")
    assert code in (0, 3), err
    assert Path(".bnoise/c.probe.json").exists()
    assert Path("p.png").exists()
    assert not list(Path("other").iterdir())
    assert call("check", path)[0] in (0, 1, 3)
    assert "no stored measurement" not in call("check", path)[1]


@pytest.mark.parametrize(
    "doing",
    [
        "raise __import__('asyncio').CancelledError('x')",
        "raise ValueError('bad file caf\\udce9.png')",
        "raise type('Own', (BaseException,), {})('x')",
        "raise SystemExit(0)",
    ],
)
def test_any_exception_of_user_code_keeps_what_was_measured(write: Write, doing: str) -> None:
    code, _, err = call(
        "probe", config(write, LATE.format(doing), **{"max_examples: 3000": "max_examples: 60000"}), "-q"
    )
    assert code == 4, err
    assert "Traceback" not in err
    assert Path(".bnoise/c.probe.json").exists()


def test_json_is_alone_on_stdout(write: Write) -> None:
    noisy = "import atexit, os, subprocess, sys, threading\nos.write(1, b'raw\\n'); subprocess.run(['echo', 'child'])\n"
    noisy += "print('print'); sys.__stdout__.write('dunder\\n')\natexit.register(lambda: os.write(1, b'atexit\\n'))\n"
    code, out, err = call("probe", config(write, BASE + noisy + "loss = mean_loss\n"), "--json")
    assert code in (0, 3), err
    assert json.loads(out)["kind"] == "probe"
    assert {"raw", "child", "print", "dunder", "atexit"} <= set(err.split())


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("swallows", [False, True])
def test_a_signal_ends_a_probe_and_keeps_what_was_measured(write: Write, sign: int, swallows: bool) -> None:
    inside = "    import time\n    try:\n        time.sleep(0.005)\n    except {0}:\n        pass\n"
    code = BASE + "def loss(model, batch):\n    open('running', 'a').write('x')\n"
    code += (
        inside.format("BaseException" if swallows else "ValueError") + "    return mean_loss(model, batch)\n"
    )
    path = config(write, code, **{"max_examples: 3000": "max_examples: 10000000"})
    running = start(["probe", path, "-q"], Path.cwd(), Path("streams"), {})
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not (
        Path("running").exists() and Path("running").stat().st_size > 300
    ):
        time.sleep(0.05)
    running.send(sign)
    ended, _, err = running.end(60)
    assert ended == 130, err


@pytest.mark.parametrize("command", ["probe", "sweep"])
def test_a_typo_or_an_input_as_output_changes_nothing(write: Write, command: str) -> None:
    path = config(write, BASE + "loss = mean_loss\n")
    before = Path("u.py").read_bytes()
    assert call(command, path, "--out", "u.py")[0] == 2
    assert Path("u.py").read_bytes() == before
    Path(".bnoise").mkdir()
    ledger = Path(".bnoise/c.sweep.runs.jsonl")
    ledger.write_text('{"ledger": 1, "belongs_to": "other"}\n')
    assert call(command, path, "--set", "optimizer.lrr=0.3")[0] == 2
    assert [each.name for each in Path(".bnoise").iterdir()] == [ledger.name]


def test_two_configs_of_one_name_keep_both_results(write: Write) -> None:
    for folder, rate in (("a", "0.01"), ("b", "0.02")):
        Path(folder).mkdir()
        write(f"{folder}/train.yaml", QUADRATIC_CONFIG.replace("lr: 0.01", f"lr: {rate}"))
        assert call("probe", f"{folder}/train.yaml", "-q")[0] in (0, 3)
    for folder in ("a", "b"):
        assert "no stored measurement" not in call("check", f"{folder}/train.yaml")[1]


def test_a_pipe_a_device_and_hidden_files_are_not_read(write: Write) -> None:
    os.mkfifo("f.yaml")
    Path("z.yaml").symlink_to("/dev/zero")
    write("c.yaml", QUADRATIC_CONFIG)
    Path(".bnoise").mkdir()
    write(".bnoise/.c.probe.json.abc.json", "{}")
    code, out, _ = call("check", "f.yaml", "z.yaml", "c.yaml", "--format", "json")
    assert code == 2
    assert [each["verdict"] for each in json.loads(out)["checked"]] == ["invalid", "invalid", "cannot_tell"]


def test_no_room_for_the_model_is_one_message(write: Write) -> None:
    write("u.py", "import torch\ndef model(): return torch.nn.Linear(10**6, 10**6)\n")
    text = QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.NoisyQuadratic", "u.py:model")
    text = text.replace("  dimension: 16\n  noise_scale: 20.0\n", "")
    code, _, err = call("probe", str(write("c.yaml", text)), "-q")
    assert code == 4
    assert "out of memory while building the model" in err


def test_user_code_that_ends_the_process_fails_its_own_config_alone(write: Write) -> None:
    """Not even the first config of a check, by the exit code of a check that passed."""
    leaving = config(write, LATE.replace("2500", "50").format("__import__('os')._exit(0)"))
    plain = str(write("plain.yaml", QUADRATIC_CONFIG))
    code, out, _ = call("check", leaving, plain, "--probe", "-q", "--format", "json")
    assert code == 4
    first, second = json.loads(out)["checked"]
    assert first["verdict"] == "error"
    assert "ended the process with exit code 0" in first["finding"]
    assert second["verdict"] != "error"
    assert [each.name for each in Path(".bnoise").glob("*.json")] == ["plain.probe.json"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_classes_and_functions_of_a_file_reach_other_processes(write: Write, method: str) -> None:
    """As in a script of the user's: a pool, and the workers of a DataLoader. What is forked would not start them so."""
    write("beside.py", "FOUR = 4\n")
    code = BASE + "import multiprocessing, torch\nfrom bnoise_cli.examples.quadratic import unit_noise\n"
    code += "from beside import FOUR\ndef square(x): return x * x * FOUR\n"
    code += "class Own(torch.utils.data.Dataset):\n    def __len__(self): return 8\n"
    code += "    def __getitem__(self, i): return square(i)\n"
    code += "def data(**settings):\n"
    code += f"    with multiprocessing.get_context({method!r}).Pool(1) as pool: assert pool.map(square, [3]) == [36]\n"
    code += f"    loader = torch.utils.data.DataLoader(Own(), 4, num_workers=1, multiprocessing_context={method!r})\n"
    code += "    assert len(list(loader)) == 2\n    return unit_noise(**settings)\nloss = mean_loss\n"
    path = config(write, code, **{"bnoise_cli.examples.quadratic.unit_noise": "u.py:data"})
    done = subprocess.run(
        [sys.executable, "-m", "bnoise_cli", "probe", path, "-q", "--dry-run"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("does", "code"),
    [
        ("import os; os.replace = None", 4),
        ("import os; os.fsync = os.unlink = None", 4),
        ("import secrets; secrets.token_hex = None", 4),
        ("import os; os.getpid = None", 0),
        ("import os; os.fork()", 0),
        ("import os, sys; os.fork() or sys.exit(0)", 0),
        ("import time; now = time.time(); time.time = time.monotonic = time.perf_counter = lambda: -now", 0),
    ],
)
def test_what_user_code_does_to_its_process_costs_no_result(write: Write, does: str, code: int) -> None:
    """A result that cannot be stored is printed. A child that comes back out of user code says and stores nothing."""
    path = config(write, f"{BASE}{does}\nloss = mean_loss\n")
    ended, out, err = call("probe", path, "-q", "--json")
    assert ended == code, err
    stored = [each.name for each in Path(".bnoise").rglob("*.json")]
    assert stored == (["c.probe.json"] if code == 0 else [])
    printed = json.loads(out)
    assert printed["critical_batch_size"]["value"] is not None
    assert printed["cost"]["seconds"] >= 0
    assert ("could not be written (TypeError" in err) == (code == 4)
