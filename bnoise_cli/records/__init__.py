"""The parts of results: what was measured, what is advised, and why to doubt it."""

# ruff: noqa: F401  imported from here

from bnoise_cli.records.advice import BatchSizes, Recommendation, Role, TradeoffRow
from bnoise_cli.records.estimates import (
    WIDEST_INTERVAL,
    Basis,
    CriticalBatchSize,
    Estimate,
    Limits,
    NoiseScale,
    NotNegative,
    Positive,
    Size,
)
from bnoise_cli.records.horizon import Horizon, HorizonBatch, HorizonPoint, HorizonRun
from bnoise_cli.records.law import Law
from bnoise_cli.records.one_step import Fit, Point, Quadratic, Schedule, TrajectoryPoint
from bnoise_cli.records.origin import SCHEMA_VERSION, Cost, Doubt, Provenance, Subject
from bnoise_cli.records.timing import LimitedBy, Parallel, StepTime, Threads, Throughput
from bnoise_cli.records.training import BatchOutcome, BranchRun, Prediction, RunEnd, TrainingRun
