"""BatchNorm layers, which make the loss depend on the whole batch instead of being a mean over its examples."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Layers that normalise by the statistics of the batch: all but those that were put into evaluation mode."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]


def set_evaluation_mode(model: nn.Module) -> None:
    """Let BatchNorm use its running statistics. All else trains, because models then return what their loss needs."""
    model.train()
    for layer in batch_norms(model):
        layer.eval()
