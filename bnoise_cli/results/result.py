"""A stored result: the fields of every kind, the plan that it is advised for, and the kind itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from bnoise_cli.amounts import Amounts
from bnoise_cli.records import (
    SCHEMA_VERSION,
    WIDEST_INTERVAL,
    Cost,
    CriticalBatchSize,
    Doubt,
    Provenance,
    Recommendation,
    Throughput,
    TradeoffRow,
)
from bnoise_cli.spec.identity import measured, measured_hash
from bnoise_cli.spec.load import Spec
from bnoise_cli.spec.schema import Advice, Check, Section, Training
from bnoise_cli.spec.targets import arguments, is_target, target_name

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The planned run and the user's own limits, as the config of a result states them."""

    training: Training
    advice: Advice
    #: The limits of the pre-training check, which a recommendation keeps if it can.
    check: Check
    #: The unit that reports show amounts in, beside examples.
    unit: Literal["examples", "tokens"]
    #: The dotted name of the optimizer.
    optimizer: str
    #: None if the config gives no finite number above zero.
    learning_rate: float | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Plan:
        """The plan in a resolved config; a key that is missing has its default.

        Raises:
            pydantic.ValidationError: a value of `training:`, `advice:` or `check:` is impossible.
        """
        optimizer = config.get("optimizer")
        named = optimizer if is_target(optimizer) else None
        return cls(
            training=_section(Training, config.get("training", {})),
            advice=_section(Advice, config.get("advice", {})),
            check=_section(Check, config.get("check", {})),
            unit="tokens" if config.get("unit") == "tokens" else "examples",
            optimizer=str(target_name(named)) if named else "",
            learning_rate=_learning_rate(named) if named else None,
        )

    def amounts(self, provenance: Provenance) -> Amounts:
        """How this plan writes numbers of examples. If it names no tokens per example, the measured number counts."""
        if self.unit == "examples":
            return Amounts()
        return Amounts(self.training.tokens_per_example or provenance.tokens_per_example)


def _section(model: type[S], data: Any) -> S:
    """A section of a stored config, without the keys that only another version knows."""
    known = {key: data[key] for key in data if key in model.model_fields} if isinstance(data, dict) else data
    return model.model_validate(known)


def _learning_rate(optimizer: dict[str, Any]) -> float | None:
    positional, keywords = arguments(optimizer)
    rate = keywords.get("lr", positional[0] if positional else None)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        return None
    return rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The fields that every stored result has."""

    kind: str
    #: The resolved config, as it was measured.
    config: dict[str, Any]
    config_hash: str
    provenance: Provenance
    critical_batch_size: CriticalBatchSize
    tradeoff: tuple[TradeoffRow, ...] = ()
    doubts: tuple[Doubt, ...]
    cost: Cost
    #: None: no step was timed on this device.
    throughput: Throughput | None = None
    recommendation: Recommendation | None = None
    alternatives: tuple[Recommendation, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def plan(self) -> Plan:
        """The planned run of the config."""
        return Plan.of(self.config)

    @property
    def amounts(self) -> Amounts:
        """How numbers of examples are written."""
        return self.plan.amounts(self.provenance)

    @property
    def best_rates(self) -> dict[int, float]:
        """Batch size → the learning rate at which it trained best; empty if none was tried."""
        return {}

    @property
    def trained_steps(self) -> dict[int, float]:
        """Batch size → the steps that it took over the fewest; empty if none was trained."""
        return {}

    @property
    def departures(self) -> dict[int, float]:
        """Batch size → the steps that it took over those of the law; empty if none was trained."""
        return {}

    @property
    def planned_steps_ratio(self) -> float | None:
        """Steps at the planned batch size and learning rate over the fewest; None if such a run did not arrive."""
        return None

    @property
    def resolved(self) -> bool:
        """Whether B_crit has a value, and limits within a factor of ten."""
        critical = self.critical_batch_size
        if critical.value is None or critical.high is None:
            return False
        return critical.high <= WIDEST_INTERVAL * critical.low

    @property
    def lacks_horizon(self) -> bool:
        """Whether a horizon was asked for and not measured: one step alone can be wrong by 20 times."""
        probe = self.config.get("probe")
        asked = probe.get("horizon", "off") if isinstance(probe, dict) else "off"
        return asked != "off" and any(doubt.code == "one_step" for doubt in self.doubts)

    def to_json(self) -> dict[str, Any]:
        """The result as plain data for `json.dumps`; a number that is not finite becomes null."""
        data: dict[str, Any] = _plain(dataclasses.asdict(self))
        return {"schema_version": data.pop("schema_version"), **data}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of result: the command that makes it, what it depends on, and how far it can be used."""

    name: str
    #: The command, which is also the section of the config with its settings.
    command: str
    result: type[Result]
    #: The settings of that section that the result depends on.
    identity: Callable[[Mapping[str, Any]], dict[str, Any]]
    #: Whether steps and examples follow the law of steps, so that B_crit gives a trade-off.
    follows_law: bool = True
    #: Codes of doubts that disqualify a result of this kind for judging a plan, besides the codes that hold for all.
    disqualifying: tuple[str, ...] = ()

    def measured(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a resolved config that a result of this kind depends on."""
        section = config.get(self.command)
        settings = self.identity(section if isinstance(section, Mapping) else {})
        return measured(config, {self.command: settings})

    def hash(self, spec: Spec) -> str:
        """The hash by which a stored result is found again."""
        return measured_hash(spec, self.measured(spec.config.model_dump()))
