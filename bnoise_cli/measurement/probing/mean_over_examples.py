"""Is the loss of a batch the mean over its examples? Tried on a batch and its two halves.

The whole and the halves come from the dataset and the collate function, as training gets them. If loss or examples are
random (dropout, noise drawn in the loss, augmentation), only a gap beyond what the randomness alone makes says that the
loss is not a mean. Evaluation mode, which switches dropout off, is tried too because it sees smaller gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from bnoise_cli.errors import RunError, StoppedError
from bnoise_cli.measurement.task.draws import Draws, Indices
from bnoise_cli.measurement.task.gradients import loss_and_gradient
from bnoise_cli.measurement.task.task import Task
from bnoise_cli.measurement.task.weighing import IGNORED, Form, Weighing, forms

#: The gradient of a batch may differ from the mean of its halves' by this fraction of its norm: bfloat16 inside a
#: model, a small term that balances experts.
ROUNDING = 1e-2
#: Nothing is looked for below the first. A weighing must leave at most the second part of the gap between whole and
#: halves, or the third of what the best weights leave.
EXACT, _BETTER, _NEAR_BEST = 1e-5, 0.02, 3.0
#: After this many random trials the test goes on only while at most this fraction of the sign flips exceeds what was
#: found. The last is the level of the test.
_LOOKS = ((4, 0.25), (8, 0.02), (12, 0.001))
#: A gradient is reduced to this many signed sums of each parameter, which keeps scalar products to a few percent.
_SUMS = 256
#: The mean count of an example is taken over this many.
COUNTED_EXAMPLES = 256

Sketch = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanFindings:
    """Whether a batch's loss is a mean, and of what."""

    #: |gradient of a batch − mean of its halves'| over its norm.
    gap: float
    #: Whether the loss is a mean with unequal weights.
    weighted: bool = False
    #: The weights of examples; None if they are equal or were not found.
    weighing: Weighing | None = None
    #: Why a smaller batch has no loss; None if it has one.
    refused: str | None = None

    @property
    def is_mean(self) -> bool:
        """Whether the gap is rounding."""
        return self.gap <= ROUNDING


class _RefusedError(Exception):
    """A half of a batch has no loss."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """Sketches of the gradient of a batch and of its halves, and the counts that each form gives for the halves.

    The last number of a sketch is the loss itself.
    """

    whole: Sketch
    first: Sketch
    second: Sketch
    #: The number of examples in the first half over that of all.
    share: float
    counts: dict[Form, tuple[float | None, float | None]]

    def gap(self, share: float) -> Sketch:
        """The difference between the whole and the halves, if the first has this share of the weight."""
        return self.whole - share * self.first - (1 - share) * self.second

    def share_by(self, form: Form) -> float | None:
        """The first half's share by a count."""
        first, second = self.counts.get(form, (None, None))
        if first is None or second is None or first <= 0 or second <= 0:
            return None
        return first / (first + second)

    def relative_gap(self, share: float) -> float:
        """That difference in the gradient over the norm of the gradient."""
        return float(np.linalg.norm(self.gap(share)[:-1])) / max(self.norm, 1e-300)

    @property
    def norm(self) -> float:
        """|gradient of the whole|."""
        return float(np.linalg.norm(self.whole[:-1]))


def find_mean(task: Task, indices: Indices, draws: Draws, *, is_random: bool) -> MeanFindings:
    """Compare the gradient of the examples at `indices` with the gradients of their halves.

    Args:
        is_random: whether the loss, or the examples of given indices, are random.

    Raises:
        RunError: the loss of the whole batch failed or is not finite.
        OutOfMemoryError: the batch does not fit.
    """
    try:
        if is_random:
            return _find_random(task, indices, draws, _without_dropout(task, indices, draws))
        return _find_exact(task, indices, draws)
    except _RefusedError as error:
        return MeanFindings(gap=0.0, refused=str(error))


def _without_dropout(task: Task, indices: Indices, draws: Draws) -> MeanFindings | None:
    """The findings of an exact comparison in evaluation mode; None if the model fails or is random there too."""
    modes = [(module, module.training) for module in task.model.modules()]
    try:
        task.model.eval()
        first, again = (_try(task, indices, draws) for _ in range(2))
        distance = max(
            float(np.linalg.norm(one - other))
            for one, other in ((first.whole, again.whole), (first.first, again.first))
        )
        if distance > EXACT * float(np.linalg.norm(first.whole)):
            return None
        return _find_exact(task, indices, draws)
    except StoppedError:
        raise
    except (RunError, _RefusedError):
        if task.sharded:
            raise
        return None
    finally:
        for module, mode in modes:
            module.training = mode


def _find_exact(task: Task, indices: Indices, draws: Draws) -> MeanFindings:
    """From trials that are not random."""
    trial = _try(task, indices, draws)
    gap = trial.relative_gap(trial.share)
    if trial.norm == 0 or gap <= EXACT:
        return MeanFindings(gap=gap)
    trials = [trial, _try(task, _others(task, indices), draws)]

    def largest_gap(share: Callable[[_Trial], float | None]) -> float:
        shares = [(trial, share(trial)) for trial in trials]
        return max(
            float("inf") if of_first is None else trial.relative_gap(of_first) for trial, of_first in shares
        )

    gap, least = (
        largest_gap(lambda trial: trial.share),
        largest_gap(lambda trial: _common_share([trial, trial])),
    )
    enough = min(ROUNDING, max(_NEAR_BEST * least, _BETTER * gap))
    if gap <= enough:
        return MeanFindings(gap=gap)
    gaps = {form: largest_gap(partial(_Trial.share_by, form=form)) for form in trial.counts}
    if (weighing := _first_of_best(task, draws, gaps, enough)) is not None:
        return MeanFindings(gap=gaps[weighing.form], weighted=True, weighing=weighing)
    return MeanFindings(gap=gap, weighted=least <= min(ROUNDING, _BETTER * gap))


def _find_random(task: Task, indices: Indices, draws: Draws, quiet: MeanFindings | None) -> MeanFindings:
    """From trials with independent randomness, every other one of the same examples.

    Args:
        quiet: what was found in evaluation mode; a mean there may still be none in training mode.
    """
    if quiet is not None and not quiet.is_mean:
        return quiet
    form = None if quiet is None or quiet.weighing is None else quiet.weighing.form
    other = _others(task, indices)
    trials: list[_Trial] = []
    for most, level in _LOOKS:
        while len(trials) < most:
            trials.append(_try(task, other if len(trials) % 2 else indices, draws))
        supposed = [trial.share if form is None else trial.share_by(form) or trial.share for trial in trials]
        if _chance(trials, supposed) > level:
            return quiet or MeanFindings(gap=0.0)
    level = _LOOKS[-1][1]
    gap = _expected_gap(trials, supposed)
    if gap <= ROUNDING:
        return quiet or MeanFindings(gap=gap)
    best = [_common_share(trials[start::2]) for start in (0, 1)] * (len(trials) // 2)
    if _chance(trials, best) <= level:
        return MeanFindings(gap=gap)
    gaps = {}
    for form in trials[0].counts:
        shares = [share for trial in trials if (share := trial.share_by(form)) is not None]
        if len(shares) == len(trials) and _chance(trials, shares) > level:
            gaps[form] = _expected_gap(trials, shares)
    if (weighing := _first_of_best(task, draws, gaps, gap / 2)) is not None:
        return MeanFindings(gap=0.0, weighted=True, weighing=weighing)
    return MeanFindings(gap=gap, weighted=True)


def _chance(trials: list[_Trial], shares: Sequence[float]) -> float:
    """How likely gaps as large are if these shares make the loss a mean: of the gradient or of the loss itself."""
    gaps = np.stack([trial.gap(share) for trial, share in zip(trials, shares, strict=True)])
    values = _chance_of_no_mean(gaps[:, -1])
    if abs(gaps[:, -1].mean()) <= ROUNDING * abs(np.mean([trial.whole[-1] for trial in trials])):
        values = 1.0
    return min(_part_above(gaps[:, :-1]), values)


def _chance_of_no_mean(values: NDArray[np.float64]) -> float:
    """The p-value of Student's two-sided test that the mean is zero. `scipy.stats` takes half a second to import."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = values.mean() / np.sqrt(values.var(ddof=1) / len(values))
    return float(2 * special.stdtr(len(values) - 1, -abs(t)))


def _expected_gap(trials: list[_Trial], shares: Sequence[float]) -> float:
    """The gap without what noise adds to it, of the gradient or of the loss itself, whichever is larger."""
    gaps = [trial.gap(share) for trial, share in zip(trials, shares, strict=True)]
    whole = [trial.whole for trial in trials]
    of_loss = abs(np.mean([gap[-1] for gap in gaps])) / max(abs(np.mean([one[-1] for one in whole])), 1e-300)
    signal, norm = _signal([gap[:-1] for gap in gaps]), _signal([one[:-1] for one in whole])
    return max(float(np.sqrt(max(signal, 0.0) / norm)) if norm > 0 else 0.0, float(of_loss))


def _first_of_best(task: Task, draws: Draws, gaps: dict[Form, float], enough: float) -> Weighing | None:
    """The most common form among those that leave about the smallest gap."""
    least = min(gaps.values(), default=float("inf"))
    if least > enough:
        return None
    form = next(form for form, gap in gaps.items() if gap <= 1.5 * least + EXACT)
    return Weighing(form, mean_count(task, draws, form.count) or 1.0)


def mean_count(task: Task, draws: Draws, count: Callable[[object], float | None]) -> float | None:
    """The mean of a count over some examples; None if batches have no such form."""
    size = task.micro_batch_size
    indices, total = draws.indices(max(COUNTED_EXAMPLES // size, 1) * size, task.batches.length), 0.0
    for begin in range(0, len(indices), size):
        found = count(task.batches.read(indices[begin : begin + size]))
        if found is None:
            return None
        total += found
    return total / len(indices)


def _try(task: Task, indices: Indices, draws: Draws) -> _Trial:
    middle = len(indices) // 2
    whole = task.batches.fetch(indices)
    of_whole = _sketch(task, whole, len(indices), draws)
    halves, sketches = [], []
    for part in (indices[:middle], indices[middle:]):
        try:
            halves.append(task.batches.fetch(part))
            sketches.append(_sketch(task, halves[-1], len(part), draws))
        except StoppedError:
            raise
        except RunError as error:
            if task.sharded:
                raise
            raise _RefusedError(str(error)) from error
    ignored = getattr(task.objective, "ignore_index", IGNORED)
    counts = {form: (form.count(halves[0]), form.count(halves[1])) for form in forms(whole, ignored)}
    return _Trial(of_whole, sketches[0], sketches[1], middle / len(indices), counts)


def _others(task: Task, indices: Indices) -> Indices:
    """As many other examples."""
    return (indices + task.batches.length // 2) % task.batches.length


def _sketch(task: Task, batch: object, examples: int, draws: Draws) -> Sketch:
    """The loss, and before it a linear map of its gradient to a few numbers, so that many can be held and compared.

    Source: Charikar, Chen and Farach-Colton 2002 (count sketch): sums with random signs keep scalar products.
    """
    generator = torch.Generator(task.parameters[0].device).manual_seed(0)
    sums = []
    loss, gradient = loss_and_gradient(task, batch, examples, draws)
    for part in gradient:
        flat = part.reshape(-1)
        if len(flat) > _SUMS:
            signs = torch.empty_like(flat).bernoulli_(generator=generator).mul_(2).sub_(1)
            padded = torch.nn.functional.pad(flat * signs, (0, -len(flat) % _SUMS))
            flat = padded.reshape(-1, _SUMS).sum(0, dtype=torch.float64)
        sums.append(flat.double())
    own: Sketch = torch.cat(sums).cpu().numpy()
    return np.append(np.concatenate(task.ranks.all_gather(own)) if task.sharded else own, loss)


def _common_share(trials: list[_Trial]) -> float:
    """The first half's share of the weight that leaves the smallest gap, without the bias that noise would make.

    Args:
        trials: of the same examples, with independent randomness or none.
    """
    halves = [(trial.first - trial.second)[:-1] for trial in trials]
    across = _signal(halves)
    if across <= 0:
        return trials[0].share
    rests = [(trial.whole - trial.second)[:-1] for trial in trials]
    sums = [
        _signal([rest + sign * half for rest, half in zip(rests, halves, strict=True)]) for sign in (1, -1)
    ]
    return (sums[0] - sums[1]) / (4 * across)


def _signal(vectors: list[Sketch]) -> float:
    """|E v|² from independent v, without the part that noise adds: the mean of scalar products of different ones."""
    together = np.stack(vectors)
    n, squares = len(vectors), float((together**2).sum())
    return (float((together.sum(0) ** 2).sum()) - squares) / (n * (n - 1))


def _part_above(together: NDArray[np.float64]) -> float:
    """The part of all flips of signs that make their scalar products' sum at least as large as it is.

    If the mean is zero, and v and −v are equally likely, every flip is as likely as none: the test is exact.
    """
    products = together @ together.T
    flips = np.array([(1, *signs) for signs in product((1, -1), repeat=len(together) - 1)], dtype=float)
    sums = np.einsum("fi,ij,fj->f", flips, products, flips)
    return float(np.mean(sums >= sums[0] * (1 - 1e-12)))
