"""bnoise: measures the gradient noise scale of a training task and advises on its batch size.

From Python: `bnoise_cli.probe`, `bnoise_cli.sweep` and `bnoise_cli.load`; see `bnoise explain python`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnoise_cli.api.calls import load, probe, sweep

__all__ = ["__version__", "load", "probe", "sweep"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the door when it is used, because a command needs none of it."""
    if name in ("load", "probe", "sweep"):
        from bnoise_cli.api import calls

        return getattr(calls, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
