"""Probes inside real training: `TrainingProbe` for a loop, and one for the Trainers of transformers and Lightning.

Those are in `bnoise_cli.callbacks.transformers` and `bnoise_cli.callbacks.lightning`, which import the package.
"""

from bnoise_cli.callbacks.training_probe import TrainingProbe

__all__ = ["TrainingProbe"]
