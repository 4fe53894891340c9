"""Faults outside the user's code that one of several processes brings about."""

from __future__ import annotations

import os
from datetime import timedelta

from bnoise_cli.errors import RunError
from bnoise_cli.measurement import meeting
from bnoise_cli.measurement.building import build
from bnoise_cli.measurement.horizon import replicates, search
from bnoise_cli.measurement.horizon.learning_rates import LearningRates
from bnoise_cli.measurement.timing import training_steps
from bnoise_cli.measurement.timing.training_steps import TrainingSteps
from bnoise_cli.measurement.training.lanes import SingleLane


def prepare_rank() -> None:
    """Shorten waits, and let one rank fail outside the user's code as the environment says.

    Silent ranks are lost within seconds, and steps are timed for a fifth of a second. FAULT_OUTSIDE=KIND:RANK names a
    fault, ELSEWHERE=RANK:FOLDER the working folder of one rank. FEW_REPLICATES shortens a horizon.
    """
    if "FEW_REPLICATES" in os.environ:
        search._FIRST_REPLICATES = (1,)
        LearningRates.most_replicates = 2
        replicates._CONFIRMED = replicates._SETTLED = 2
    training_steps._SHARE = 1 / 18000  # of the budget of an hour
    meeting.TIMEOUT, meeting._PARTING = timedelta(seconds=12), timedelta(seconds=6)
    rank = os.environ.get("RANK", "")
    where, _, folder = os.environ.get("ELSEWHERE", "none").partition(":")
    if where == rank:
        os.chdir(folder)
    fault, _, faulty = os.environ.get("FAULT_OUTSIDE", "none:none").partition(":")
    if faulty != rank:
        return
    if fault == "device":
        choose = build.choose_device
        build.choose_device = lambda _: choose("cuda:7")
    if fault == "horizon":
        SingleLane.step = _missing_file
    if fault == "interrupted horizon":
        SingleLane.step = _interrupt
    if fault == "exchange":
        TrainingSteps._loss_together = _missing_file
    if fault == "reading":
        step = TrainingSteps.step

        def unread(self: TrainingSteps, size: int) -> object:
            self._task.batches.fetch = _missing_file
            return step(self, size)

        TrainingSteps.step = unread


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _missing_file(*_: object) -> None:
    raise RunError("a file of this rank is missing.")
