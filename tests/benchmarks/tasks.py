"""Tasks whose exact noise scale is known, for the other benchmarks; nothing to run by itself.

Each builder returns the task at the weights to measure and its exact answer: derived on paper for the
linear regression, written down in the noisy quadratic, computed over the whole dataset for the digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.functional import cross_entropy, mse_loss, one_hot
from torch.utils.data import Dataset, TensorDataset

from bnoise_cli.examples.datasets import Digits
from bnoise_cli.examples.models import MLP
from bnoise_cli.examples.quadratic import NoisyQuadratic, mean_loss, unit_noise
from bnoise_cli.measurement.task.batches import Batches
from bnoise_cli.measurement.task.task import Objective, Task, Traits

#: The linear regression's dataset is never stored: an example is drawn when its index asks for it.
_VIRTUAL_EXAMPLES = 2**30
#: SGD steps after which the digits MLP's exact B_noise is nearest to 169, of all from 30 to 200.
DIGITS_STEPS = 159
_DIGITS_LEARNING_RATE, _DIGITS_BATCH_SIZE, _DIGITS_SEED = 0.2, 64, 0
#: Examples that go through a model at once.
_MICRO_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """What a probe should find, without error."""

    noise_scale: float  # B_noise = tr(HΣ)/(GᵀHG), in examples
    simple_noise_scale: float  # B_simple = tr(Σ)/|G|², in examples
    best_step: float  # ε_max = |G|²/(GᵀHG), the best step size at B → ∞


def linear_regression(
    inputs: int = 10_000, outputs: int = 1, noise_scale: float = 116.0
) -> tuple[Task, Exact]:
    """Least squares on normal inputs with variances 1, 1/2, 1/3, …, one unit away from the optimum.

    With H = diag(1/i), w − w* = (1, …, 1), G = H·1 and twice the loss 2L = Σ1/i + σ², normal inputs give
    Σ = 2L·H + GGᵀ, so that B_noise = 1 + 2L·tr(H²)/(GᵀHG) and B_simple = 1 + 2L·tr(H)/|G|². Several outputs
    of the same distance and independent noise, whose losses add up, leave both ratios as they are.

    Args:
        noise_scale: B_noise, which sets σ².
    """
    variances = 1 / torch.arange(1, inputs + 1, dtype=torch.float64)
    tr_h, tr_h2, signal, curvature = (
        float((variances**power).sum()) for power in (1, 2, 2, 3)
    )  # tr H, tr H², |G|², GᵀHG
    twice_loss = (noise_scale - 1) * curvature / tr_h2
    data = _Regression(variances.sqrt().float(), (twice_loss - tr_h) ** 0.5, outputs)
    exact = Exact(
        noise_scale=noise_scale,
        simple_noise_scale=1 + twice_loss * tr_h / signal,
        best_step=signal / curvature,
    )
    model = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    nn.init.ones_(model.weight)
    return _task(model, _half_squared_error, data), exact


def digits_mlp() -> tuple[Task, Exact]:
    """The 64-128-10 MLP of the examples on scikit-learn's digits, after `DIGITS_STEPS` steps of SGD."""
    data = Digits()
    model = train_digits_mlp(data, DIGITS_STEPS)
    return _task(model, _classification, data), _exact_digits()


def noisy_quadratic(
    noise_scale: float,
    decay: float,
    noise_decay: float,
    aligned: bool,
    degrees_of_freedom: float,
    examples: int = 2**16,
) -> tuple[Task, Exact]:
    """A quadratic loss with G, H and Σ written down.

    Args:
        noise_scale, decay, noise_decay, aligned: of `NoisyQuadratic`.
        degrees_of_freedom: of the noise's Student t; infinite for normal noise.
        examples: in the dataset.
    """
    model = NoisyQuadratic(decay=decay, noise_decay=noise_decay, noise_scale=noise_scale, aligned=aligned)
    hessian, noise = model.hessian.double(), model.noise_std.double() ** 2
    gradient = hessian * model.theta.detach().double()
    signal = float((gradient**2).sum())
    exact = Exact(
        noise_scale=model.exact_noise_scale(),
        simple_noise_scale=float(noise.sum()) / signal,
        best_step=signal / float((gradient**2 * hessian).sum()),
    )
    return _task(model, mean_loss, _unit_noise(degrees_of_freedom, examples)), exact


def _task(model: nn.Module, objective: Objective, dataset: object) -> Task:
    batches = Batches(dataset, None, torch.device("cpu"))
    task = Task(model, objective, batches, micro_batch_size=_MICRO_BATCH)
    task.adopt(Traits(stochastic=False))  # no random masks in any of these
    return task


class _Regression(Dataset[tuple[Tensor, Tensor]]):
    """Normal inputs and targets x·w* + noise with w* = 0, generated from their index."""

    def __init__(self, input_std: Tensor, target_std: float, outputs: int) -> None:
        self._input_std, self._target_std, self._outputs = input_std, target_std, outputs
        self._generator = torch.Generator()

    def __len__(self) -> int:
        return _VIRTUAL_EXAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self._generator.manual_seed(index)
        inputs = torch.randn(len(self._input_std), generator=self._generator) * self._input_std
        target = torch.randn(self._outputs, generator=self._generator) * self._target_std
        return inputs, target


def _half_squared_error(model: nn.Module, batch: list[Tensor]) -> Tensor:
    inputs, targets = batch
    return mse_loss(model(inputs), targets, reduction="sum") / (2 * len(inputs))


def _classification(model: nn.Module, batch: list[Tensor]) -> Tensor:
    inputs, classes = batch
    return cross_entropy(model(inputs), classes)


@cache
def _unit_noise(degrees_of_freedom: float, examples: int) -> TensorDataset:
    return unit_noise(degrees_of_freedom=degrees_of_freedom, examples=examples)


def train_digits_mlp(data: Digits, steps: int) -> MLP:
    """The MLP after so many steps of plain SGD on independent draws from the digits."""
    inputs, classes = data.tensors
    model = MLP([64, 128, 10], seed=_DIGITS_SEED)
    optimizer = torch.optim.SGD(model.parameters(), lr=_DIGITS_LEARNING_RATE)
    generator = torch.Generator().manual_seed(_DIGITS_SEED)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (_DIGITS_BATCH_SIZE,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(model(inputs[chosen]), classes[chosen]).backward()
        optimizer.step()
    return model


@cache
def _exact_digits() -> Exact:
    data = Digits()
    return exact_of_mlp(train_digits_mlp(data, DIGITS_STEPS), data)


def exact_of_mlp(model: MLP, data: Digits) -> Exact:
    """Exact noise scales of an MLP with one hidden layer of ReLUs, over the whole dataset, in float64.

    G and HG come from automatic differentiation. For the noise, tr(HΣ) = mean of g_iᵀHg_i − GᵀHG with
    g_i the gradient of example i.
    """
    inputs, classes = data.tensors[0].double(), data.tensors[1]
    weights = {name: value.detach().double() for name, value in model.named_parameters()}
    targets = one_hot(classes, 10).double()

    def loss(at: dict[str, Tensor]) -> Tensor:
        return cross_entropy(functional_call(model, at, (inputs,)), classes)

    gradient, along, *_ = jvp(grad(loss), (weights,), (grad(loss)(weights),))
    signal = sum(float((value**2).sum()) for value in gradient.values())
    curvature = sum(float((gradient[name] * along[name]).sum()) for name in gradient)
    norms, curvatures = _per_example(weights, inputs, targets)
    return Exact(
        noise_scale=curvatures / curvature - 1,
        simple_noise_scale=norms / signal - 1,
        best_step=signal / curvature,
    )


def _per_example(weights: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Means over examples of |g_i|² and of g_iᵀHg_i.

    A layer's gradient for one example is (error) ⊗ (input, 1), so moving along g_i changes the layer's
    output on example j by (error of i)·(1 + input of i · input of j). With t the change of the logits that
    this makes to first order, H_j is tᵀ(diag p − ppᵀ)t and, as the logits are bilinear in the output
    weights and the hidden units, twice the error of j times that second-order change of its logits.
    """
    w1, b1, w2, b2 = weights.values()
    hidden = inputs @ w1.T + b1
    active = (hidden > 0).double()
    hidden = hidden * active
    p = (hidden @ w2.T + b2).softmax(dim=1)
    error_2 = p - targets
    error_1 = (error_2 @ w2) * active
    kernel_1, kernel_2 = 1 + inputs @ inputs.T, 1 + hidden @ hidden.T
    norms = (error_1**2).sum(1) * kernel_1.diagonal() + (error_2**2).sum(1) * kernel_2.diagonal()
    total = 0.0
    for j in range(len(inputs)):
        hidden_change = error_1 * active[j] * kernel_1[j][:, None]  # of example j's units, a row for each i
        t = error_2 * kernel_2[j][:, None] + hidden_change @ w2.T
        total += float((p[j] * t**2).sum() - ((t @ p[j]) ** 2).sum())
        total += 2 * float(((error_2 @ error_2[j]) * (hidden * hidden_change).sum(1)).sum())
    return float(norms.mean()), total / len(inputs) ** 2
