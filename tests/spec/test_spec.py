"""Configs: YAML with places, overrides, targets, and every mistake reported at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bnoise_cli.errors import ConfigError
from bnoise_cli.measurement.building.instantiate import build, build_function
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.spec.code_files import code_hashes
from bnoise_cli.spec.identity import differences, ledger_hash
from bnoise_cli.spec.load import load_spec
from bnoise_cli.spec.override import apply_override
from bnoise_cli.spec.schema import parse_seconds
from bnoise_cli.spec.source import parse_source
from tests.cases import QUADRATIC_CONFIG, Write


def data(text: str) -> dict[str, object]:
    source = parse_source(text, "c.yaml", Path())
    assert not source.problems
    return source.data


def mistakes(write: Write, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_spec(write("c.yaml", text), overrides)
    return [str(problem) for problem in caught.value.problems]


# --- YAML ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1e3", 1e3), ("-1E+2", -100.0), (".5", 0.5), ("1.", 1.0), ("7", 7), ("1_000", 1000),
        ("0x1f", 31), ("on", "on"), ("no", "no"), ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("true", True),
        ("null", None), ("~", None), ("", None), ("'3'", "3"), (".inf", float("inf")), ("010", 10), ("60s", "60s"),
    ],
)  # fmt: skip
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    found = data(f"x: {text}")["x"]
    assert found == value
    assert type(found) is type(value)


_WORDS = st.text(st.characters(codec="latin-1", exclude_categories=["Cc", "Nd"]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | _WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_yaml_writes_is_read_back(value: object) -> None:
    assert data(yaml.safe_dump({"x": value}, allow_unicode=True))["x"] == value


def test_places_are_lines_and_columns() -> None:
    source = parse_source("a:\n  b:\n    - 1\n    - c: 2\n", "f.yaml", Path())
    assert source.place(("a", "b", 1, "c")) == "f.yaml:4:10"
    assert source.place(("a", "b", 1, "missing")) == "f.yaml:4:7"


def test_anchors_and_merges() -> None:
    assert data("base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n")["own"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", "c.yaml:2:11", "`c` a second time (first in line 2)"),
        ("a: !!python/object:os.system x\n", "c.yaml:1:4", "python/object"),
        ("a: &x [*x]\n", "c.yaml:1:4", "an alias"),
        ("a: !!set {x, y}\n", "c.yaml:1:4", "the tag"),
        ("? [1]\n: 2\n", "c.yaml", "a key that is not a word"),
    ],
)
def test_yaml_that_is_well_formed_but_wrong(text: str, place: str, found: str) -> None:
    problems = parse_source(text, "c.yaml", Path()).problems
    assert problems
    assert problems[0].place.startswith(place)
    assert found in problems[0].found


@pytest.mark.parametrize(
    "text", ["a: [1\n", "\ta: 1\n", "a: 1\n---\nb: 2\n", "", "- 1\n", "just text", "a: *b\n"]
)
def test_what_is_no_config_is_one_clear_mistake(write: Write, text: str) -> None:
    [problem] = mistakes(write, text)
    assert problem.startswith("c.yaml")
    assert "expected" in problem


def test_unreadable_files(write: Write, tmp_path: Path) -> None:
    write("deep.yaml", "a: " + "[" * 3000 + "]" * 3000)
    with pytest.raises(ConfigError, match="more than 50 deep"):
        load_spec(Path("deep.yaml"))
    with pytest.raises(ConfigError, match="no such file"):
        load_spec(Path("none.yaml"))
    with pytest.raises(ConfigError, match="it is a folder"):
        load_spec(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_spec(Path("latin.yaml"))


# --- overrides ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("probe.budget=5s", ("probe", "budget"), "5s"),
        ("model.widths=[1, 2]", ("model", "widths"), [1, 2]),
        ("model.widths.1=7", ("model", "widths", 1), 7),
        ("new.deep.key=1e-3", ("new", "deep", "key"), 1e-3),
        ("probe.at_steps=", ("probe", "at_steps"), None),
    ],
)
def test_overrides_set_values_read_as_yaml(override: str, path: tuple[object, ...], value: object) -> None:
    source = parse_source("model: {widths: [3, 4]}\nprobe:\n", "c.yaml", Path())
    apply_override(source, override)
    assert not source.problems
    found: object = source.data
    for part in path:
        found = found[part]  # type: ignore[index]
    assert found == value


@pytest.mark.parametrize("override", ["nothing", "=3", "a.b.c=1", "model.widths.9=1", "x=[1"])
def test_wrong_overrides_are_mistakes(override: str) -> None:
    source = parse_source("a: {b: 1}\nmodel: {widths: [3]}\n", "c.yaml", Path())
    apply_override(source, override)
    assert source.problems
    assert source.problems[0].place.startswith("--set")


def test_a_mistake_in_an_override_names_the_override(write: Write) -> None:
    [problem] = mistakes(write, QUADRATIC_CONFIG, "probe.precision=2")
    assert problem == ("--set probe.precision=2: found `probe.precision: 2`; expected a number less than 1.0")


# --- form ---------------------------------------------------------------------------------------------


def test_a_usual_package_that_is_missing_is_no_misspelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    config = tmp_path / "c.yaml"
    config.write_text(
        QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.NoisyQuadratic", "transformers.Net")
    )
    with pytest.raises(ConfigError, match=r"\(\S+ -m pip install transformers\)") as caught:
        load_spec(config)
    assert "did you mean" not in str(caught.value)


def test_every_mistake_is_reported_in_the_order_of_the_file(write: Write) -> None:
    text = QUADRATIC_CONFIG.replace("version: 1", "version: 2").replace("optimizer:", "optimiser:")
    text = text.replace("  warmup_steps: 3", "  warmup_step: three\n  seed: 0\n  seed: 1\n  batch_sizes: all")
    text = text.replace("bnoise_cli.examples.quadratic.unit_noise", "bnoise_kli.unit_noise")
    found = mistakes(write, text)
    assert found == [
        "c.yaml:1:1: found no `optimizer`; expected the key `optimizer`",
        "c.yaml:1:10: found `version: 2`; expected 1",
        "c.yaml:7:13: found `bnoise_kli.unit_noise`; expected an importable module, but there is no "
        "`bnoise_kli` here or among the installed packages; did you mean `bnoise_cli`?",
        "c.yaml:13:3: found unknown key `optimiser`; expected one of version, model, checkpoint, dataset, "
        "collate, loss, objective, optimizer, unit, training, probe, sweep, advice, check; did you mean `optimizer`?",
        "c.yaml:18:16: found unknown key `warmup_step`; expected one of warmup_steps, at_steps, batch_sizes, "
        "horizon, precision, budget, max_examples, "
        "precision_mode, seed; did you mean `warmup_steps`?",
        "c.yaml:20:3: found `seed` a second time (first in line 19); expected every key once",
        'c.yaml:21:16: found `probe.batch_sizes: "all"`; expected auto or a list',
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  warmup_steps: -1", "a number of at least 0"),
        ("  warmup_steps: 1.5", "a whole number"),
        ("  warmup_steps: '3'", "a whole number"),
        ("  warmup_steps: true", "a whole number"),
        ("  precision: 0", "a number greater than 0"),
        ("  budget: soon", "a time of at least 1s"),
        ("  budget: -3s", "a time of at least 1s"),
        ("  batch_sizes: [4, 2, 8]", "ascending, distinct numbers"),
        ("  batch_sizes: [4, 8]", "three batch sizes or more"),
        ("  batch_sizes: [0, 8, 9]", "a number greater than 0"),
        ("  at_steps: []", "a list that is not empty"),
        ("  at_steps: [5, 5]", "ascending, distinct numbers"),
    ],
)
def test_wrong_values_say_what_was_expected(write: Write, line: str, expected: str) -> None:
    [problem] = mistakes(write, QUADRATIC_CONFIG.replace("  warmup_steps: 3", line))
    assert problem.startswith("c.yaml:18:")
    assert expected in problem


@pytest.mark.parametrize(("text", "value"), [("60s", 60), ("2m", 120), ("1h", 3600), (5, 5), ("1.5 min", 90)])
def test_times(text: object, value: float) -> None:
    assert parse_seconds(text) == value


def test_loss_and_objective_exclude_each_other(write: Write) -> None:
    [problem] = mistakes(write, QUADRATIC_CONFIG + "loss: {_target_: torch.nn.MSELoss}\n")
    assert "both `loss` and `objective`" in problem


ALL, PROBE, SWEEP, BRANCH, NEITHER = set(KINDS), {"probe"}, {"sweep"}, {"branch"}, set[str]()


@pytest.mark.parametrize(("override", "changed"), [
    ("model.dimension=8", ALL),
    ("model.noise_scale=21.0", ALL),
    ("dataset.examples=99", ALL),
    ("objective._target_=torch.nn.functional.mse_loss", ALL),
    ("collate={_target_: torch.utils.data.default_collate}", ALL),
    ("optimizer.lr=1", ALL),
    ("optimizer.momentum=0.9", ALL),
    ("checkpoint=weights.pt", ALL),
    ("training.max_grad_norm=1", ALL),
    ("probe.warmup_steps=9", PROBE),
    ("probe.at_steps=[3, 4]", PROBE),
    ("probe.at_steps=[3]", NEITHER),  # where warmup_steps: 3 begins as well
    ("sweep.warmup_steps=9", SWEEP | BRANCH),
    ("sweep.goal=0.3", SWEEP),
    ("sweep.steps=99", SWEEP),  # where the goal is the loss then
    ("sweep.branch={examples: 999}", NEITHER),  # a check finds branches by their start
    ("training.batch_size=1024", NEITHER),
    ("training={batch_size: 64, world_size: 8}", NEITHER),
    ("training.parallel=fsdp", NEITHER),
    ("training.steps=10", NEITHER),
    ("probe.budget=5s", NEITHER),
    ("probe.precision=0.3", NEITHER),
    ("probe.batch_sizes=[1, 2, 4]", NEITHER),
    ("probe.max_examples=5000", NEITHER),
    ("probe.seed=9", NEITHER),
    ("sweep.batch_sizes=[1, 2, 4]", NEITHER),
    ("sweep.seeds=9", NEITHER),
    ("sweep.max_steps=99", NEITHER),
    ("sweep.budget=5s", NEITHER),
    ("advice.max_compute_overhead=3", NEITHER),
    ("check.max_compute_overhead=3", NEITHER),
])  # fmt: skip
def test_the_hash_is_of_what_is_measured(write: Write, override: str, changed: set[str]) -> None:
    write("weights.pt", "")
    path = write("c.yaml", QUADRATIC_CONFIG)
    before, after = load_spec(path), load_spec(path, [override])
    assert {name for name, kind in KINDS.items() if kind.hash(before) != kind.hash(after)} == changed
    for name, kind in KINDS.items():
        named = differences(kind.measured(before.resolved()), kind.measured(after.resolved()))
        assert bool(named) == (name in changed)


def test_a_difference_far_along_a_list_is_named(write: Write) -> None:
    path = write("c.yaml", QUADRATIC_CONFIG)
    before, after = (
        load_spec(path, [f"model.widths={[*range(99), last]}"], at_hand=False) for last in (1, 2)
    )
    [named] = differences(*(KINDS["probe"].measured(spec.resolved()) for spec in (before, after)))
    assert named.startswith("`model.widths` was [0, 1, 2")


def test_runs_from_other_weights_are_not_gone_on_with(write: Write) -> None:
    write("w.pt", "one")
    spec = load_spec(write("c.yaml", QUADRATIC_CONFIG + "checkpoint: w.pt\n"))
    before = ledger_hash(spec)
    write("w.pt", "two")
    assert ledger_hash(spec) != before


def test_a_goal_that_is_a_loss_does_not_depend_on_the_planned_steps(write: Write) -> None:
    path = write("c.yaml", QUADRATIC_CONFIG + "sweep: {goal: 0.3}\n")
    sweep = KINDS["sweep"]
    assert sweep.hash(load_spec(path)) == sweep.hash(load_spec(path, ["sweep.steps=99"]))


@pytest.mark.parametrize("target", ["mine.py:Net", "mine.Net", "deep/er.py:Net", "deep.er.Net"])
def test_the_hash_follows_the_users_code_but_not_its_comments(write: Write, target: str) -> None:
    """The config's text is the same; dotted names count where they are files in its folder."""
    file = target.partition(":")[0] if ":" in target else target.rpartition(".")[0].replace(".", "/") + ".py"
    path = write("c.yaml", QUADRATIC_CONFIG)
    absent = KINDS["probe"].hash(load_spec(path, ["model={_target_: its.Net}"], at_hand=False))
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text("class Net: pass")
    spec = load_spec(path, [f"model={{_target_: {target}}}"], at_hand=False)

    def hash_with(code: str) -> str:
        Path(file).write_bytes(code.encode())
        return KINDS["probe"].hash(spec)

    one = hash_with("class Net:\n    width = '# 3'\n")
    assert one != absent
    assert list(code_hashes(spec)) == [file]
    assert hash_with("# Mine.\nclass Net:  # a net\n\n    width = '# 3'  \n    # the end") == one
    assert hash_with("class Net:\r\n    width = '# 3'\r\n") == one
    assert hash_with("class Net:\n    width = '# 4'\n") != one
    assert hash_with("class Net:\n    width = '") not in (one, absent)


# --- targets ------------------------------------------------------------------------------------------

USER_FILE = """\
import torch

class Net(torch.nn.Linear):
    def __init__(self, inputs, outputs=2):
        super().__init__(inputs, outputs)

def criterion(prediction, target, power=2):
    return ((prediction - target).abs() ** power).mean()

numbers = [1, 2, 3]
"""


def target_mistakes(write: Write, model: str, **files: str) -> list[str]:
    for name, content in files.items():
        write(f"{name}.py", content)
    text = QUADRATIC_CONFIG.replace(
        "  _target_: bnoise_cli.examples.quadratic.NoisyQuadratic\n  dimension: 16\n  noise_scale: 20.0\n",
        model,
    )
    with pytest.raises(ConfigError) as caught:
        load_spec(write("c.yaml", text)).require_targets()
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("  _target_: torch.nn.Linaer\n", ["c.yaml:3:13", "`torch.nn.Linaer`", "`Linear`"]),
        ("  _target_: torch.nn.Linear\n  in_feature: 3\n  out_features: 2\n",
         ["c.yaml:4:15", "argument `in_feature`", "torch.nn.Linear(in_features, out_features", "`in_features`"]),
        ("  _target_: torch.nn.Linear\n  in_features: 3\n", ["c.yaml:3:3", "missing a required", "out_features"]),
        ("  _target_: user_models.py:Net\n", ["a Python file of this name in", "did you mean `user_model.py`?"]),
        ("  _target_: user_model.py:Nett\n", ["it has no `Nett`", "`Net`"]),
        ("  _target_: user_model.py:Net\n  input: 3\n", ["argument `input`", "user_model.py:Net(inputs, outputs=2)"]),
        ("  _target_: lazy.Net\n", ["`lazy.Net`, whose import failed with RuntimeError: no kernel", "importable"]),
        ("  _target_: broken.py:Net\n", ["syntax error in line 1"]),
        ("  _target_: raising.py:Net\n", ["import failed with ValueError: no licence"]),
        ("  _target_: needing.Net\n", ["import failed with ModuleNotFoundError: No module named 'not_there'"]),
        ("  _target_: Net\n", ["a dotted path such as torch.nn.Linear, or file.py:name"]),
        ("  target: torch.nn.Linear\n", ["a mapping with `_target_: package.module.Name` under `model:`"]),
        ("  class_path: torch.nn.Linear\n  in_features: 3\n", ["arguments under `init_args:`"]),
        ("  _target_: torch.nn.Linear\n  class_path: torch.nn.ReLU\n", ["several of"]),
        ("  _target_: torch.nn.Sequential\n  _args_: [{_target_: torch.nn.ReLu}]\n", ["c.yaml:4:23", "`ReLU`"]),
    ],
)  # fmt: skip
def test_wrong_targets_say_why(write: Write, model: str, words: list[str]) -> None:
    [problem] = target_mistakes(
        write,
        model,
        user_model=USER_FILE,
        broken="class Net(:\n",
        raising="class Net: pass\nraise ValueError('no licence')\n",
        needing="import not_there\nclass Net: pass\n",
        lazy="def __getattr__(name):\n    raise ImportError(name) from RuntimeError('no kernel')\n",
    )
    for word in words:
        assert word in problem


def test_targets_are_built_at_any_depth_in_every_spelling(write: Write, tmp_path: Path) -> None:
    import torch

    write("user_model.py", USER_FILE)
    built = build(
        {
            "_target_": "torch.nn.Sequential",
            "_args_": [
                {"_target_": "user_model.py:Net", "inputs": 3},
                {"_component_": "torch.nn.ReLU"},
                {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 1}},
            ],
        },
        tmp_path,
    )
    assert built(torch.zeros(1, 3)).shape == (1, 1)
    partial = build({"_target_": "torch.nn.Linear", "_partial_": True, "in_features": 4}, tmp_path)
    assert partial(out_features=5).weight.shape == (5, 4)
    assert build({"_target_": "user_model.py:numbers"}, tmp_path) == [1, 2, 3]


def test_a_loss_class_is_built_and_a_function_is_bound(write: Write, tmp_path: Path) -> None:
    import torch

    write("user_model.py", USER_FILE)
    one, three = torch.tensor([1.0]), torch.tensor([3.0])
    assert build_function({"_target_": "torch.nn.MSELoss"}, tmp_path)(one, three) == 4
    assert build_function({"_target_": "user_model.py:criterion"}, tmp_path)(one, three) == 4
    assert build_function({"_target_": "user_model.py:criterion", "power": 3}, tmp_path)(one, three) == 8


def test_a_package_that_a_users_file_lacks_names_the_python(write: Write) -> None:
    write("own.py", "import none_such.part\n")
    text = QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "own.py:none_such")
    spec = load_spec(write("c.yaml", text))
    said = r"No module named 'none_such' \(if it is a package: \S+ -m pip install none_such\)"
    with pytest.raises(ConfigError, match=said):
        spec.require_targets()
