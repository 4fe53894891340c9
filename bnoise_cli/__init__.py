"""bnoise: measures the gradient noise scale of a training task and advises on its batch size."""

__version__ = "0.1.0"
