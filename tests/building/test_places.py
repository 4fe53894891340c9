"""The points of training that a config names, and their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bnoise_cli.errors import ConfigError, RunError
from bnoise_cli.measurement.building.places import Place, places_to_probe, training_steps
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.schema import Probe
from tests.building.checkpoints import CONFIG, Net, legacy, plain


def test_places_and_the_steps_between_them() -> None:
    one = places_to_probe(Probe(at_steps=[0, 5, 9]), [(Path("a.pt"), 100)])
    assert one[0] == Place(checkpoint=Path("a.pt"), warmup_steps=0, step=100)
    assert one[2] == Place(checkpoint=None, warmup_steps=9, step=109)
    assert training_steps(one) == 9
    assert [place.step for place in places_to_probe(Probe(warmup_steps=7), [])] == [7]
    assert [place.step for place in places_to_probe(Probe(warmup_steps=7), [(Path("v2.pt"), None)])] == [7]
    several = places_to_probe(Probe(warmup_steps=7), [(Path("checkpoint-500"), None), (Path("b1.pt"), 20)])
    assert [place.step for place in several] == [27, 507]
    assert training_steps(several) == 14


@pytest.mark.parametrize(("starts", "words"), [
    ([("a.pt", 1), ("b.pt", None)], "several checkpoints need the step of each; b.pt has no global_step, step, "
     "iter_num or iteration in it, and no number in its name. Name it by its step, as in step_1000.pt"),
    ([("a.pt", 1), ("b-1.pt", None)], "several checkpoints need steps that differ; a.pt and b-1.pt are both at step 1"),
])  # fmt: skip
def test_a_trajectory_needs_steps(starts: Any, words: str) -> None:
    with pytest.raises(RunError) as found:
        places_to_probe(Probe(warmup_steps=10), [(Path(name), step) for name, step in starts])
    assert words in str(found.value)


@pytest.mark.parametrize(("lines", "place", "words"), [
    ("checkpoint: none.pt", "8:13", "expected a file of weights, or a folder with one, of this name in {here}"),
    ("checkpoint: empty", "8:13", "found `checkpoint: empty`, a folder without weights; expected one of model"
     ".safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json in {here}/empty"),
    ("checkpoint:\n- w.pt\n- none.pt", "10:3", "found `checkpoint: none.pt`; expected a file of weights"),
    ("checkpoint: [w.pt]", "8:13", "expected text or two or more distinct checkpoints of one run"),
    ("checkpoint: [w.pt, w.pt]", "8:13", "two or more distinct checkpoints"),
    ("checkpoint: 3", "8:13", "found `checkpoint: 3`; expected text or a list"),
    ("checkpoint: [w.pt, 3]", "8:20", "found `checkpoint.1: 3`; expected text"),
])  # fmt: skip
def test_a_config_names_checkpoints_that_are_there(
    user: Path, saved: tuple[Net, torch.optim.Optimizer], lines: str, place: str, words: str
) -> None:
    plain(*saved)
    Path("empty").mkdir()
    user.write_text(CONFIG + lines + "\n")
    with pytest.raises(ConfigError) as found:
        load_spec(user)
    [problem] = found.value.problems
    assert problem.place == f"c.yaml:{place}"
    assert words.format(here=Path.cwd()) in str(problem)


def test_several_checkpoints_are_the_points(user: Path, saved: tuple[Net, torch.optim.Optimizer]) -> None:
    plain(*saved)
    legacy(*saved)
    user.write_text(CONFIG.replace("max_examples: 1024", "max_examples: 500") + "checkpoint: [w.pt, w.pth]\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:7:40: found `probe\.max_examples: 500` for 2 checkpoints; "
                       r"expected max_examples of at least 512"):  # fmt: skip
        load_spec(user)
    user.write_text(
        CONFIG.replace("max_examples", "at_steps: [3], max_examples") + "checkpoint: [w.pt, w.pth]\n"
    )
    with pytest.raises(ConfigError, match=r"c\.yaml:7:36: found both `probe\.at_steps` and 2 checkpoints; "
                       r"expected one of them"):  # fmt: skip
        load_spec(user)
