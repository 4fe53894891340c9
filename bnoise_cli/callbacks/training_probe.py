"""Probe a run while it trains, within a share of its time, and leave the run as it is."""

from __future__ import annotations

import dataclasses
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnoise_cli import clock
from bnoise_cli.advice.advise import advise
from bnoise_cli.api.calls import given_objects
from bnoise_cli.errors import BnoiseError
from bnoise_cli.numbers import count, percent
from bnoise_cli.records import Doubt
from bnoise_cli.result_file import ResultFile, default_path
from bnoise_cli.results.probe import ProbeResult
from bnoise_cli.spec.keywords import spec_of_call
from bnoise_cli.spec.load import Spec

if TYPE_CHECKING:
    from bnoise_cli.measurement.outcome import ProbeRun

#: Takes the figures of a probe by name, and the training step, as wandb.log and mlflow.log_metrics do.
Log = Callable[[Mapping[str, float], int], Any]
#: Seconds that must have been saved up before a probe; merely chosen.
_LEAST_SECONDS = 2.0
#: The shortest probe takes as long as training steps on about this many examples: 250 to 300 steps of 32 were measured
#: on a small CNN. Later probes are expected to take as long as the one before.
_LEAST_EXAMPLES = 10_000


class TrainingProbe:
    """Probes a run at given steps, or at its checkpoints, on a copy of the model. The run goes on to the same bits.

    Of several processes that train together the first one probes, and the others wait for it in their next exchange. A
    probe that fails is a warning, and training goes on.

    Args:
        model, dataset, loss, optimizer, objective, collate, config: as for `bnoise_cli.probe`.
        share: of the time since this object was made, which all probes together may take; None: any. A probe that is
            due waits until there is time for it.
        out: the file of the result; by default that of `bnoise probe`, of the config's name.
        log: is told the figures of every probe.
        settings: as for `bnoise_cli.probe`. `at_steps` are the steps to probe at; without them it is at checkpoints.
            No steps are trained before a probe.

    Attributes:
        seconds: what all probes have taken.

    Raises:
        ConfigError, CallError: an argument is wrong.
    """

    def __init__(
        self,
        model: Any,
        dataset: Any,
        loss: Any = None,
        *,
        optimizer: Any,
        objective: Any = None,
        collate: Any = None,
        config: str | Path | None = None,
        share: float | None = 0.01,
        out: str | Path | None = None,
        log: Log | None = None,
        **settings: Any,
    ) -> None:
        from bnoise_cli.measurement.building.live import process_number

        given = given_objects(model, dataset, loss, optimizer, objective, collate)
        self._spec = spec_of_call("probe", given, settings, config=config)
        self._share, self._log = share, log
        self._begun, self.seconds = clock.monotonic(), 0.0
        self._first_step, self._last_seconds = 0, 0.0
        self._run: ProbeRun | None = None
        self._due: list[int] = []
        self._left: list[int] | None = None
        self._late: dict[int, int] = {}  # steps that were asked for → steps that were probed
        self._active = process_number() == 0
        name = Path("training") if config is None else Path(config)
        self._file = ResultFile(default_path(name, "probe") if out is None else Path(out))
        if self._active:
            self._file.require()

    def after_step(self, step: int) -> None:
        """To be called after every training step.

        Args:
            step: training steps taken so far; 0 before the first one.
        """
        if self._left is None:  # what a run that is resumed has left behind is over
            self._first_step = step
            self._left = [asked for asked in self._spec.config.probe.at_steps or [] if asked >= step]
        self._due += [asked for asked in self._left if asked <= step]
        self._left = [asked for asked in self._left if asked > step]
        self._probe_if_due(step)

    def at_checkpoint(self, step: int) -> None:
        """To be called when the run has saved a checkpoint; counts unless `at_steps` are given."""
        if self._spec.config.probe.at_steps is None:
            self._due.append(step)
        self._probe_if_due(step)

    def _probe_if_due(self, step: int) -> None:
        if not self._active or not self._due or (self._run is not None and self._run.points[-1].step == step):
            return
        begun = clock.monotonic()
        saved = None if self._share is None else self._share * (begun - self._begun) - self.seconds
        if saved is not None and saved < self._needed_seconds(step, begun - self._begun):
            return
        asked, self._due = self._due, []
        try:
            self._probe(step, asked, saved)
        except Exception as error:
            said = str(error) if isinstance(error, BnoiseError) else traceback.format_exc()
            warnings.warn(f"bnoise: no probe at step {step}: {said}", RuntimeWarning, stacklevel=3)
        finally:
            self._last_seconds = clock.monotonic() - begun
            self.seconds += self._last_seconds

    def _needed_seconds(self, step: int, elapsed: float) -> float:
        """How long a probe will take at least, by the last one or by the time of the training steps so far."""
        if self.seconds:
            return max(_LEAST_SECONDS, self._last_seconds)
        examples = max(step - self._first_step, 1) * self._spec.config.training.batch_size
        return max(_LEAST_SECONDS, _LEAST_EXAMPLES * elapsed / examples)

    def _probe(self, step: int, asked: list[int], saved: float | None) -> None:
        """Measure at the present weights, and store the trajectory so far.

        Args:
            asked: the steps that are due.
            saved: seconds that it may take; None: what the budget allows.
        """
        from bnoise_cli.measurement.building.live import device_of
        from bnoise_cli.measurement.probing.session import Session
        from bnoise_cli.measurement.task.preserve import random_streams
        from bnoise_cli.results.probe import probe_result

        spec = self._spec
        with random_streams(*spec.given.values()):
            session = Session(self._spec_here(step, saved), device_of(spec.given["model"]))
            found = session.run(lambda _: None)
        self._late |= {due: step for due in asked if due < step}
        earlier = self._run.points if self._run is not None else ()
        self._run = dataclasses.replace(found, points=(*earlier, *found.points))
        result = advise(self._with_doubts(probe_result(self._run, spec)))
        self._file.store(result.to_json())
        if self._log is not None and (figures := _figures(probe_result(found, spec))):
            self._log(figures, step)
        if found.interrupted:
            raise KeyboardInterrupt

    def _spec_here(self, step: int, saved: float | None) -> Spec:
        """The spec of one point: no training before it, and its part of what is left of the budgets.

        The number of checkpoints is not known, so each may take a whole budget.
        """
        plan = self._spec.config.probe
        seconds, most = plan.budget, plan.max_examples
        if plan.at_steps is not None:
            points, shares = self._run.points if self._run is not None else (), len(self._left or []) + 1
            seconds = max(seconds - sum(point.seconds for point in points), 0.0) / shares
            if most is not None:
                most = (most - sum(point.gradient_examples for point in points)) // shares
        seconds = seconds if saved is None else min(seconds, saved)
        point = {"at_steps": None, "warmup_steps": 0, "budget": seconds, "max_examples": most}
        config = self._spec.config.model_copy(update={"probe": plan.model_copy(update=point)})
        return dataclasses.replace(self._spec, config=config, step=step)

    def _with_doubts(self, result: ProbeResult) -> ProbeResult:
        if not self._late:
            return result
        doubt = Doubt(
            code="late",
            finding="probes came later than probe.at_steps asks: at step "
            + ", ".join(f"{count(step)} instead of {count(asked)}" for asked, step in self._late.items())
            + f", because they may take {percent(self._share or 0.0)} of the time",
            remedy="The numbers are right for the steps that the trajectory names. Raise share for earlier ones.",
        )
        return dataclasses.replace(result, doubts=(*result.doubts, doubt))


def _figures(result: ProbeResult) -> dict[str, float]:
    """What a tracker is told of one probe, in examples; what is not resolved is left out."""
    found = {
        "bnoise/critical_batch_size": result.critical_batch_size.value,
        "bnoise/noise_scale": result.noise_scale.value,
        "bnoise/simple_noise_scale": result.simple_noise_scale.value,
    }
    return {name: value for name, value in found.items() if value is not None}
