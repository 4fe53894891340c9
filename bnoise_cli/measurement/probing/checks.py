"""Does this task fit the theory? Found out on a few examples, before anything is believed."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from bnoise_cli import clock
from bnoise_cli.errors import RunError, StoppedError
from bnoise_cli.measurement.outcome import TaskFindings
from bnoise_cli.measurement.probing.mean_over_examples import EXACT, MeanFindings, find_mean, mean_count
from bnoise_cli.measurement.task.activations import fit_micro_batch
from bnoise_cli.measurement.task.batch_norms import batch_norms
from bnoise_cli.measurement.task.draws import Draws, Indices, Stream
from bnoise_cli.measurement.task.losses import finite_loss_values, mean_loss, mean_values
from bnoise_cli.measurement.task.passes import same_on_all
from bnoise_cli.measurement.task.preserve import BufferPlace, HeldBuffers, buffer_places, preserved
from bnoise_cli.measurement.task.task import Task, Traits
from bnoise_cli.measurement.task.user_code import OutOfMemoryError
from bnoise_cli.measurement.task.weighing import leaves, tokens_in
from bnoise_cli.numbers import counted

#: Examples that are looked at: usually, and of a model that is slow for its budget.
EXAMPLES, FEW_EXAMPLES = 16, 4
#: The loss before and after the warm-up is compared on this many parts of this many examples.
_PARTS, _PART = 8, 16
#: Losses of the same examples and masks may differ by this fraction: the order of sums on a GPU.
_REPEATABLE = 1e-5
#: Reading a batch in the background pays if it takes longer than this many seconds: handing a batch from one thread to
#: another took 0.6 ms beside small operations of torch.
_HAND_OVER = 1e-3


def check_task(task: Task, seed: int, *, examples: int = EXAMPLES) -> TaskFindings:
    """Try the loss and the gradient on a few examples; the task adopts the `Traits` that are found.

    Args:
        examples: the number that the loss is tried on.

    Raises:
        RunError: the loss of a batch of the planned size fails, is not a finite scalar, does not repeat, depends on no
            parameter, or changes the parameters when it is computed.
    """
    draws = Draws(seed, Stream.CHECKS)
    normalised = batch_norms(task.model)
    with preserved(task.model, seed) as origin:
        task.adopt(Traits())
        indices = _batch_that_works(task, draws, examples)
        random_data = _read(task, indices)
        fit_micro_batch(task, Draws(seed, Stream.CHECK_MEMORY))
        changing = _changing_buffers(task, indices, draws)
        task.adopt(Traits(random_data=random_data, changing_buffers=changing))
        with task.holding_buffers():
            values = _three_values(task, len(indices), draws, examples)
            if any(not torch.equal(p, value) for p, value in zip(task.parameters, origin, strict=True)):
                raise RunError(
                    "computing the loss changed the model's parameters in place. The probe holds them fixed: "
                    "move the change out of forward()."
                )
            if not abs(values[0] - values[1]) <= _REPEATABLE * abs(values[0]):
                raise _not_repeatable(task, values, indices, draws)
            stochastic = not abs(values[0] - values[2]) <= _REPEATABLE * abs(values[0])
            for layer in normalised:
                layer.eval()  # with BatchNorm frozen: is the loss still not a mean over examples?
            with task.full_precision():
                mean = task.ranks.broadcast(
                    _find_mean(task, indices, draws, stochastic or random_data, examples)
                )
            for layer in normalised:
                layer.train()
            is_mean = mean.is_mean
            needs_groups = normalised or not is_mean or mean.refused is not None
            group = task.micro_batch_size if needs_groups else 1
            if group == 1 and not is_mean:
                raise RunError(
                    "the loss of a batch is not a mean over its examples, and one device of the planned run takes a "
                    "single one. Set training.batch_size (over world_size) to what a device takes at once, two or more."
                )
    task.adopt(replace(task.traits, stochastic=stochastic, group=group, weighing=mean.weighing))
    parameters = sum(p.numel() for p in task.model.parameters())
    population = task.batches.population
    return TaskFindings(
        stochastic=stochastic or random_data,
        batch_norms=len(normalised),
        group=group,
        mean_gap=mean.gap,
        is_mean=is_mean,
        weighted=mean.weighted,
        weighed_by=str(mean.weighing.form) if mean.weighing is not None else None,
        by_tokens=mean.weighing.per_example if mean.weighing is not None else None,
        refused=mean.refused,
        held_buffers=tuple(place.full_name for place in changing),
        drawn=None if population is None else str(population),
        batch_sampler=population.sampler if population is not None and population.structured else None,
        loader_batch_size=task.batches.loader_batch_size,
        streamed=task.batches.length if task.batches.streamed else None,
        frozen=1 - sum(p.numel() for p in task.trainable) / parameters,
        tokens_per_example=mean_count(task, draws, tokens_in),
        loss_parameters=getattr(task.objective, "parameters_left", 0),
    )


def losses_of_parts(task: Task, seed: int) -> list[float]:
    """Mean losses of several parts of the same examples with the same random masks, at the present weights.

    Raises:
        RunError: a loss is not finite, or the user's code failed.
    """
    draws, groups = Draws(seed, Stream.WARM_UP_LOSS), task.in_groups()
    each = max(1, _PART // task.traits.group)
    with preserved(task.model, seed), task.holding_buffers():
        return [mean_loss(groups, draws.indices(each, groups.batches.length), draws) for _ in range(_PARTS)]


def _batch_that_works(task: Task, draws: Draws, examples: int) -> Indices:
    """A few examples whose loss can be computed as one batch; if it cannot, the micro-batch of the planned run.

    Raises:
        RunError: a batch of that size fails too.
    """
    planned = task.micro_batch_size
    few = draws.indices(min(examples, planned), task.batches.length)
    if (failed := refusal(task, few, draws)) is None:
        return few
    if len(few) < planned:
        many = draws.indices(planned, task.batches.length)
        if (failed := refusal(task, many, draws)) is None:
            return many
    raise failed


def refusal(task: Task, indices: Indices, draws: Draws) -> RunError | None:
    """Why the loss of this batch fails, the same on all ranks; None if it does not fail or does not fit the memory."""
    what = f"a batch of {counted(len(indices))}"
    try:
        task.require_time()
        with same_on_all(task), suppress(OutOfMemoryError):
            finite_loss_values(task, task.batches.fetch(indices), (draws.seed(),), what, indices)
    except StoppedError:
        raise
    except RunError as error:
        if task.sharded:
            raise
        return error
    return None


def _changing_buffers(task: Task, indices: Indices, draws: Draws) -> tuple[BufferPlace, ...]:
    """The buffers that computing the loss changes, without the statistics of normalisations."""
    all_places = buffer_places(
        (name, module) for name, module in task.modules.items() if not isinstance(module, _NormBase)
    )
    task.adopt(replace(task.traits, changing_buffers=all_places))
    before = HeldBuffers(all_places)
    with task.holding_buffers():
        refusal(task, indices, draws)
        return before.changed()


def _three_values(task: Task, size: int, draws: Draws, examples: int) -> list[float]:
    """The mean loss of the same examples with the same random masks, again with the same, and with others.

    Args:
        size: the number of examples of a batch that is known to work.
    """
    same, other = draws.seed(), draws.seed()

    def thrice(batch: Any, part: Indices) -> list[float]:
        what = f"a batch of {counted(len(part))}"
        return finite_loss_values(task, batch, (same, same, other), what, part)

    fits = task.at_once <= examples
    total = examples // task.at_once * task.at_once if fits else max(size, examples)
    few = draws.indices(total, task.batches.length)
    with same_on_all(task):
        parts = [weight / len(few) * np.array(found) for weight, found in mean_values(task, few, thrice)]
    values: list[float] = task.ranks.broadcast(np.sum(parts, axis=0).tolist())
    return values


def _not_repeatable(task: Task, values: list[float], indices: Indices, draws: Draws) -> RunError:
    before = _attributes(task)
    refusal(task, indices, draws)
    after = _attributes(task)
    changed = [name for name, value in after.items() if not _same(before.get(name), value)]
    named = f" Computing it changed {', '.join(changed[:8])}." if changed else ""
    return RunError(
        "the loss must repeat on the same examples with the same random masks; it gave "
        f"{values[0]:.9g} and then {values[1]:.9g}.{named} Look for a random generator of its own, a counter or "
        "a cache in the model or the loss; line evaluations would measure that and not the step."
    )


def _attributes(task: Task) -> dict[str, Any]:
    """Attributes of modules besides parameters and buffers: numbers, tensors, random generators."""
    found: dict[str, Any] = {}
    for name, module in task.modules.items():
        for key, value in vars(module).items():
            if isinstance(value, torch.Generator):
                value = value.get_state()
            if isinstance(value, int | float | Tensor):
                found[f"{name}.{key}".lstrip(".")] = value.clone() if isinstance(value, Tensor) else value
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _find_mean(task: Task, indices: Indices, draws: Draws, is_random: bool, examples: int) -> MeanFindings:
    """`find_mean` on the largest batch that fits. A loss that fails with fewer examples is not a mean over them.

    Small batches are tried until one shows a gap, because two halves with equally many tokens show none.
    """
    planned, length = task.micro_batch_size, task.batches.length
    if planned == 1:
        indices = draws.indices(2, length)
        if refusal(task, indices, draws) is not None:
            return MeanFindings(gap=0.0)  # the planned run adds up losses of single examples
    for _ in range(max(examples // len(indices), 1)):
        found = _find_mean_that_fits(task, indices, draws, is_random)
        if found.gap > EXACT or found.weighing is not None or found.refused is not None:
            break
        indices = draws.indices(len(indices), length)
    # Even splits of a batch make passes of one example and of odd sizes.
    for size in (1, 3):
        if found.refused is None and size < min(planned, len(indices)):
            failed = refusal(task, indices[:size], draws)
            found = replace(found, refused=None if failed is None else str(failed))
    return found


def _find_mean_that_fits(task: Task, indices: Indices, draws: Draws, is_random: bool) -> MeanFindings:
    while len(indices) > 1:
        try:
            return find_mean(task, indices, draws, is_random=is_random)
        except OutOfMemoryError:
            indices = indices[: len(indices) // 2]
    return MeanFindings(gap=0.0)


def _read(task: Task, indices: Indices) -> bool:
    """Read a batch twice and another batch. Returns whether the dataset makes its examples anew each time.

    A dataset that is slow and leaves the global random streams alone is read ahead from now on.
    """
    before = _random_states()
    once, again = (dict(leaves(task.batches.fetch(indices))) for _ in range(2))
    # Other examples, which no cache holds yet; and nothing is done for the first time.
    begun = clock.perf_counter()
    task.batches.fetch((indices + task.batches.length // 2) % task.batches.length)
    if clock.perf_counter() - begun > _HAND_OVER and _random_states() == before:
        task.batches.read_ahead()
    differ = once.keys() != again.keys() or any(not torch.equal(once[path], again[path]) for path in once)
    return any(task.ranks.all_gather(differ))


def _random_states() -> tuple[bytes, bytes, int]:
    _, keys, position, *_ = np.random.get_state(legacy=True)
    own = torch.random.get_rng_state().numpy().tobytes()
    return own, np.asarray(keys).tobytes() + str(position).encode(), hash(random.getstate())
