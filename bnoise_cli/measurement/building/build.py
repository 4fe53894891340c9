"""Build the task of a spec: model, data and loss on a device."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.launch import here
from bnoise_cli.measurement.building.checkpoint import read_checkpoint
from bnoise_cli.measurement.building.dataset import build_batches
from bnoise_cli.measurement.building.instantiate import build, function_part, part
from bnoise_cli.measurement.building.live import another, continue_from, own_copy
from bnoise_cli.measurement.building.weights import load_weights
from bnoise_cli.measurement.ranks import ALONE, Ranks
from bnoise_cli.measurement.task.preconditioner import require_known
from bnoise_cli.measurement.task.sharding import shard
from bnoise_cli.measurement.task.task import Objective, Task
from bnoise_cli.measurement.task.user_code import enough_memory, kind_of, user_code
from bnoise_cli.measurement.task.weighing import IGNORED
from bnoise_cli.spec.identity import contents
from bnoise_cli.spec.load import Spec

#: Largest number of examples that go through the model at once.
_LARGEST_MICRO_BATCH = 1024


def choose_device(name: str) -> torch.device:
    """The device of this process. `auto` is a GPU if there is one; each rank of a machine gets its own.

    Raises:
        CallError: torch knows no such device, or has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and here().local_rank is not None:
        name = f"cuda:{here().local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise CallError(
            f"--device needs a device that this torch can use; {name!r} is none ({reason}). "
            "Use auto, cpu or, with a GPU, cuda or cuda:0; under torchrun as many processes as there are GPUs."
        ) from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device, ranks: Ranks = ALONE) -> str:
    """Name of the device for the report, with the number of devices that measure together."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return name if ranks.size == 1 else f"{ranks.size} × {name}"


def build_task(spec: Spec, device: torch.device, ranks: Ranks = ALONE) -> Task:
    """Build model, dataset and loss, load the first checkpoint, and move all to `device`.

    All ranks begin with the weights of rank 0; with `training.parallel: fsdp` each holds a part of them.

    Raises:
        CallError: the ranks have different configs, code or checkpoints.
        ConfigError: a target or its arguments are wrong.
        RunError: the user's code failed, or what it built cannot be probed.
    """
    config = spec.config
    _require_alike(spec, ranks)
    spec.require_targets()
    torch.manual_seed(config.probe.seed)
    with enough_memory("building the model"), user_code("building the model"):
        model = own_copy(spec.given["model"]) if "model" in spec.given else part(spec, "model")
    if not isinstance(model, nn.Module):
        raise RunError(f"`model:` must build a torch.nn.Module; it built {kind_of(model)}.")
    if ranks.size > 1 and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise RunError(
            "the model has SyncBatchNorm layers, which take statistics over all processes in every pass, and here "
            "processes make passes of their own. Build it without convert_sync_batchnorm: a batch is then made of "
            "groups of what one device takes at once."
        )
    if checkpoints := spec.checkpoints():
        load_weights(model, read_checkpoint(checkpoints[0]))
    mixed = config.probe.precision_mode == "bf16-mixed"
    with enough_memory("moving the model to the device"), user_code("moving the model to the device"):
        if mixed:
            _in_float32(model)
        if ranks.size > 1 and config.training.parallel == "fsdp":
            shard(model, device, ranks)
        else:
            model.to(device)
            ranks.broadcast_([*model.parameters(), *model.buffers()])
    batches = build_batches(spec, device)
    lengths = ranks.all_gather(batches.length)
    if len(set(lengths)) > 1:
        raise RunError(
            f"all ranks need the same dataset; it has {', '.join(map(str, lengths))} examples on ranks 0 to "
            f"{ranks.size - 1}. Name the same files on every machine, and leave the sharing of examples to bnoise."
        )
    local = max(1, config.training.batch_size // config.training.world_size)
    return Task(
        model.train(),
        _objective(spec, device),
        batches,
        micro_batch_size=min(local, _LARGEST_MICRO_BATCH),
        autocast=torch.bfloat16 if mixed else None,
        ranks=ranks,
    )


def _require_alike(spec: Spec, ranks: Ranks) -> None:
    """Compare configs, code and checkpoints between ranks, because a machine may have old copies."""
    first, *others = ranks.all_gather(contents(spec) if ranks.size > 1 else {})
    for rank, other in enumerate(others, 1):
        if differing := sorted(
            key for key in first.keys() | other.keys() if first.get(key) != other.get(key)
        ):
            raise CallError(
                f"all ranks need the same files; on rank {rank} {', '.join(differing)} is not that of "
                "rank 0. Put the same files on every machine."
            )


def _in_float32(model: nn.Module) -> None:
    """Convert weights to float32, as mixed precision keeps them. The conversion is exact."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype in (torch.bfloat16, torch.float16):
            tensor.data = tensor.data.float()


def make_optimizer(spec: Spec, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """The config's optimizer over some parameters.

    Raises:
        CallError: its construction failed, or it does not take plain descending steps.
    """
    try:
        with user_code("building the optimizer"):
            if "optimizer" in spec.given:
                optimizer = another(spec.given["optimizer"], spec.given["model"], parameters)
            else:
                optimizer = build(spec.config.optimizer, spec.folder, first=(list(parameters),))
    except RunError as error:
        raise CallError(f"`optimizer:` {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise CallError(f"`optimizer:` must build a torch.optim.Optimizer; it built {kind_of(optimizer)}.")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if left := sum(id(p) not in held for p in parameters):
        raise CallError(
            f"`optimizer:` must hold every trainable parameter; {left} of {len(parameters)} are in none of its groups. "
            "Give it all that it is called with, or freeze the others (requires_grad=False)."
        )
    for rate in (group.get("lr") for group in optimizer.param_groups):
        if rate is not None and not _is_rate(rate):  # Adafactor has None
            raise CallError(
                f"an optimizer with finite learning rates of at least 0 is needed; found lr: {rate}. Correct the `lr` "
                "of its groups."
            )
    if any(group.get("maximize") for group in optimizer.param_groups):
        raise CallError(
            "an optimizer that minimizes is needed; found maximize: true. Negate the loss instead."
        )
    return optimizer


def _is_rate(rate: Any) -> bool:
    try:
        return 0 <= float(rate) < math.inf
    except (TypeError, ValueError):
        return False


def build_optimizer(spec: Spec, task: Task) -> torch.optim.Optimizer:
    """The config's optimizer over the trainable parameters, for the probe.

    Raises:
        CallError: as `make_optimizer`; or its preconditioner is unknown and probe.horizon is off.
    """
    optimizer = make_optimizer(spec, task.trainable)
    if spec.config.probe.horizon == "off":
        require_known(optimizer)
    return optimizer


def resume(spec: Spec, optimizer: torch.optim.Optimizer) -> None:
    """Give a new optimizer the state of the one that the user's program trains with, if one was given."""
    if "optimizer" in spec.given:
        continue_from(spec.given["optimizer"], spec.given["model"], optimizer)


def learning_rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the first group.

    Raises:
        CallError: the optimizer has no learning rate, or it is not positive.
    """
    rate = float(optimizer.param_groups[0].get("lr", 0.0))
    if not rate > 0:
        raise CallError(f"a sweep needs an optimizer with a positive `lr` to start from; found {rate:g}.")
    return rate


def _objective(spec: Spec, device: torch.device) -> Objective:
    by_config = "objective" if spec.config.objective is not None else "loss"
    key = next((key for key in ("objective", "loss") if key in spec.given), by_config)
    with user_code(f"building the {key}"):
        function = function_part(spec, key)
    if key == "objective":
        objective: Objective = function
        return objective
    if isinstance(function, nn.Module):
        function = copy.deepcopy(function).to(device)
    return _own_loss if function is None else _Criterion(function)


class _Criterion:
    """loss(model(x), y) for examples (x, y)."""

    def __init__(self, criterion: Callable[[Any, Any], Tensor]) -> None:
        self.criterion = criterion
        self.ignore_index = getattr(criterion, "ignore_index", IGNORED)
        self.parameters_left = 0
        if isinstance(criterion, nn.Module):
            self.parameters_left = sum(p.numel() for p in criterion.parameters() if p.requires_grad)
            criterion.requires_grad_(False)

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, Sequence) or len(batch) != 2:
            shape = f"{len(batch)} parts" if isinstance(batch, Sequence) else kind_of(batch)
            raise RunError(
                f"`loss:` needs examples (x, y); a batch of this dataset is {shape}. "
                "Use `objective:` with a function f(model, batch) instead."
            )
        output = model(batch[0])
        try:
            return self.criterion(output, batch[1])
        except (TypeError, AttributeError) as error:
            if isinstance(output, Tensor):
                raise
            raise RunError(
                f"`loss:` gets what the model returns, which is {kind_of(output)}, and failed with "
                f"{type(error).__name__}: {str(error).splitlines()[0]} Use `objective:` with a function "
                "f(model, batch) that takes the parts it needs."
            ) from error


def _own_loss(model: nn.Module, batch: Any) -> Tensor:
    """model(**batch).loss, as transformers' models compute it."""
    if not isinstance(batch, Mapping):
        raise RunError(
            f"without `loss:` or `objective:` the model is called as model(**batch).loss, and a batch of this "
            f"dataset is {kind_of(batch)}, no mapping. Add `loss:` for examples (x, y), or an `objective:`."
        )
    output = model(**batch)
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None:
        raise RunError(
            f"model(**batch).loss was needed; the model returned {kind_of(output)} without a loss. "
            "Pass labels in the batch, or add `loss:` or `objective:`."
        )
    return loss  # type: ignore[no-any-return]
