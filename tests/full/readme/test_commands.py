"""Every command of the README and of the documentation runs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cases import ROOT, SMALL_IMAGES, Call, need_for
from tests.documents import PAGES, blocks

#: Commands that are run; the others install something.
_RUN = ("bnoise ", "torchrun ", "python -c ")
#: Options that make a command quick, on a busy machine too: a budget of seconds would end before anything is known.
_QUICK = {
    "probe": ["--budget", "20s", "--set", "probe.max_examples=500", "--set", "probe.warmup_steps=5"],
    "sweep": ["--set", "sweep.goal=1.5", "--set", "sweep.seeds=1", "--set", "sweep.batch_sizes=[8, 32, 128]"],
}


def command_blocks() -> dict[str, list[str]]:
    """The commands of each distinct block, with the page and the last command as its name."""
    found: dict[tuple[str, ...], str] = {}
    for page in PAGES:
        for block in blocks(page, "console", "bash", "sh"):
            calls = [
                call.strip() for line in block.splitlines() for call in line.removeprefix("$ ").split("&&")
            ]
            run = tuple(call for call in calls if call.startswith(_RUN))
            if run:
                found.setdefault(run, f"{page.stem}: {run[-1]}")
    return {name: list(commands) for commands, name in found.items()}


@pytest.mark.parametrize("commands", command_blocks().values(), ids=command_blocks().keys())
def test_every_command_of_the_documentation_runs(
    commands: list[str], bnoise: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shutil.copy(ROOT / "configs" / "own_script.py", "train.py")  # a training script as users have one
    for command in commands:
        arguments = shlex.split(command, comments=True)[1:]
        if command.startswith("python"):
            subprocess.run([sys.executable, *arguments], check=True)
            continue
        if command.startswith("torchrun"):
            launcher = ["-m", "torch.distributed.run", "--standalone"]
            few = ["--budget", "30s"]
            for setting in ("max_examples=300", "horizon=off", "warmup_steps=5"):
                few += ["--set", f"probe.{setting}"]
            subprocess.run([sys.executable, *launcher, *arguments, *few], check=True)
            continue
        need_for(Path(next((word for word in arguments if word.startswith("configs/")), "")).stem)
        quick = [] if "--budget" in arguments else _QUICK.get(arguments[0], [])
        quick = [*quick, *SMALL_IMAGES] if "configs/resnet18.yaml" in arguments else quick
        code, _, err = bnoise(*arguments, *quick)
        assert code in (0, 3), err
