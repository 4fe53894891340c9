"""A result reaches each tracker with nothing invented, and what a tracker raises is one clear failure."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bnoise_cli.errors import CallError, ExitCode, RunError
from bnoise_cli.report.export.trackers import Tracker, log_result, require_tracker
from tests.samples import ADVISED

# Of ADVISED, whose simple noise scale is only bounded below; written out by hand.
SCALARS = {
    "noise_scale/value": 100.0, "noise_scale/low": 90.0, "noise_scale/high": 112.0,
    "simple_noise_scale/low": 200.0,
    "critical_batch_size/value": 100.0, "critical_batch_size/low": 90.0, "critical_batch_size/high": 112.0,
    "max_improvement/value": 0.02, "max_improvement/low": 0.018, "max_improvement/high": 0.022,
    "recommendation/batch_size": 96, "recommendation/micro_batch_size": 8,
    "recommendation/accumulation_steps": 4, "recommendation/world_size": 3,
    "recommendation/learning_rate": 3e-05,
    "throughput/fixed_seconds": 0.002, "throughput/seconds_per_example": 0.001,
}  # fmt: skip
CURVES = [
    (8, {"points/improvement": 0.001, "points/std_error": 1e-4, "points/fitted": 0.0015}),
    (64, {"points/improvement": 0.008, "points/std_error": 1e-4}),
]
PARAMETERS = {
    "model._target_": "my.Model", "model.widths": "[64, 10]", "training.batch_size": 64, "probe.precision": 0.15,
    "config_hash": ADVISED.config_hash, "provenance.device": "cpu",
}  # fmt: skip
DOUBT = "- **momentum**: measured without it. Nothing to do.\n"


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from matplotlib.figure import Figure

    path = tmp_path / "curve.png"
    Figure(figsize=(3, 2), dpi=100).savefig(path)
    return path


class FakeRun(SimpleNamespace):
    """Remembers what a run was given; for wandb and for mlflow."""

    failed: bool | None = None

    def __enter__(self) -> FakeRun:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.failed = kind is not None

    def log(self, numbers: dict[str, Any], step: int | None = None) -> None:
        self.logged.append((step, numbers))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    run = FakeRun(
        logged=[], summary={}, offline=False, url="https://wandb.example/r/1", dir="wandb/run-1/files"
    )

    def init(**how: Any) -> FakeRun:
        print("wandb greets")
        run.how = how
        return run

    monkeypatch.setitem(
        sys.modules, "wandb", SimpleNamespace(init=init, Image=lambda path: f"image of {path}")
    )
    return run


def test_wandb_gets_all_of_it(
    wandb: FakeRun, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = log_result(ADVISED, Tracker.WANDB, {"curve": picture})
    assert said == "Logged to Weights & Biases: https://wandb.example/r/1."
    assert wandb.summary == SCALARS
    assert wandb.logged == [*CURVES, (None, {"pictures/curve": f"image of {picture}"})]
    assert wandb.how["project"] == "bnoise"
    assert wandb.how["name"].startswith("bnoise-01234567-")
    assert wandb.how["config"]["model"]["widths"] == [64, 10]
    assert wandb.how["config"]["config_hash"] == ADVISED.config_hash
    assert DOUBT in wandb.how["notes"]
    assert wandb.failed is False
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "wandb greets\n")

    monkeypatch.setenv("WANDB_PROJECT", "mine")
    wandb.offline = True
    assert log_result(ADVISED, Tracker.WANDB, {}) == "Logged to Weights & Biases: wandb/run-1."
    assert wandb.how["project"] == "mine"


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    run = FakeRun(info=SimpleNamespace(run_id="r1"))
    fake = SimpleNamespace(run=run, experiments=[], params={}, metrics=[], artifacts=[], how={})

    def start_run(**how: Any) -> FakeRun:
        fake.how = how
        return run

    fake.set_experiment = fake.experiments.append
    fake.start_run = start_run
    fake.log_params = fake.params.update
    fake.log_metrics = lambda numbers, step=None: fake.metrics.append((step, numbers))
    fake.log_artifact = lambda path, folder: fake.artifacts.append((path, folder))
    fake.get_tracking_uri = lambda: "https://me:secret@mlflow.example:5000/a"
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_mlflow_gets_all_of_it(
    mlflow: SimpleNamespace, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = log_result(ADVISED, Tracker.MLFLOW, {"curve": picture})
    assert said == "Logged to MLflow: run r1 of the experiment bnoise in https://mlflow.example:5000/a."
    assert mlflow.metrics == [(None, SCALARS), *CURVES]
    assert mlflow.params.items() >= PARAMETERS.items()
    assert not {"training.steps", "provenance.dataset_hash"} & set(mlflow.params)  # null
    assert mlflow.artifacts == [(str(picture), "pictures")]
    assert DOUBT in mlflow.how["description"]
    assert mlflow.run.failed is False

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    log_result(ADVISED, Tracker.MLFLOW, {})
    assert mlflow.experiments == ["bnoise", "mine"]


def test_tensorboard_shows_all_of_it(picture: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    before = set(sys.modules)
    said = log_result(ADVISED, Tracker.TENSORBOARD, {"curve": picture})
    assert not {"torch", "tensorflow"} & (set(sys.modules) - before)
    [folder] = Path("runs").iterdir()
    assert folder.name.startswith("bnoise-01234567-")
    assert said == f"Logged to TensorBoard: {folder}; tensorboard --logdir runs shows it."

    read = EventAccumulator(str(folder)).Reload()
    tags = read.Tags()
    numbers = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in tags["scalars"]}
    # Event files hold single precision.
    for tag, value in SCALARS.items():
        assert numbers.pop(tag) == [(0, pytest.approx(value, rel=1e-6))]
    for tag in ("points/improvement", "points/std_error", "points/fitted"):
        assert numbers.pop(tag) == [(B, pytest.approx(v[tag], rel=1e-6)) for B, v in CURVES if tag in v]
    assert not numbers
    assert DOUBT in read.Tensors("doubts")[0].tensor_proto.string_val[0].decode()
    image = read.Images("pictures/curve")[0]
    assert (image.width, image.height, image.encoded_image_string) == (300, 200, picture.read_bytes())
    start = read.PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    hparams = metadata.parse_session_start_info_plugin_data(start).hparams
    assert hparams["training.batch_size"].number_value == 64
    assert hparams["model.widths"].string_value == "[64, 10]"


def test_a_result_that_knows_little_invents_nothing(mlflow: SimpleNamespace) -> None:
    bare = dataclasses.replace(ADVISED, recommendation=None, throughput=None, points=(), doubts=())
    log_result(bare, Tracker.MLFLOW, {})
    parts = ("noise_scale", "simple_noise_scale", "critical_batch_size", "max_improvement")
    assert mlflow.metrics == [(None, {k: v for k, v in SCALARS.items() if k.split("/")[0] in parts})]
    assert "- none" in mlflow.how["description"]


@pytest.mark.parametrize("name", Tracker)
def test_whatever_a_tracker_raises_is_one_failure_of_the_run(
    name: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(module: str) -> None:
        assert module.split(".")[0] == name
        raise LookupError(f"no server at\n  https://me:secret@host.example {'and so on ' * 100}")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(RunError) as caught:
        log_result(ADVISED, name, {})
    text = str(caught.value)
    assert text.startswith(
        f"{name} could not log the result (LookupError: no server at https://host.example and"
    )
    assert text.endswith("The result itself is stored.")
    assert "\n" not in text
    assert len(text) < 400
    assert caught.value.exit_code == ExitCode.RUN_FAILED


def test_a_run_that_breaks_off_is_closed_as_failed(mlflow: SimpleNamespace) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    mlflow.log_params = full
    with pytest.raises(RunError, match="No space left on device"):
        log_result(ADVISED, Tracker.MLFLOW, {})
    assert mlflow.run.failed


@contextlib.contextmanager
def on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        importlib.invalidate_caches()


def test_what_cannot_log_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        CallError, match=r"needs the package mlflow, which is not installed.*pip install mlflow"
    ) as no:
        require_tracker(Tracker.MLFLOW)
    assert no.value.exit_code == ExitCode.WRONG_CALL


@pytest.mark.parametrize("name", Tracker)
def test_a_package_is_found_without_importing_it_and_a_folder_is_no_package(
    name: Tracker, tmp_path: Path
) -> None:
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    (tmp_path / name).mkdir()
    with on_path(tmp_path):
        with pytest.raises(CallError, match=f"pip install {name}"):
            require_tracker(name)
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
        importlib.invalidate_caches()
        require_tracker(name)
