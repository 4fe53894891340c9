"""Probes inside the Trainer of Lightning."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:
    from pytorch_lightning import Callback  # the same under its older name

from bnoise_cli.callbacks.training_probe import TrainingProbe
from bnoise_cli.errors import CallError


class LightningProbe(Callback):  # type: ignore[misc]
    """A `TrainingProbe` for Lightning: `Trainer(callbacks=[LightningProbe(at_steps=[100, 1000])])`.

    Dataset, optimizer and batch size are the Trainer's, the loss is that of `training_step`, and the figures go to the
    Trainer's loggers. Without `at_steps` it probes where the Trainer saves checkpoints.

    Args:
        dataset: instead of that of the training DataLoader.
        objective: f(model, batch), instead of `training_step`.
        share, config, out, settings: as for `TrainingProbe`.
    """

    def __init__(
        self,
        *,
        dataset: Any = None,
        objective: Any = None,
        share: float | None = 0.01,
        config: str | Path | None = None,
        out: str | Path | None = None,
        **settings: Any,
    ) -> None:
        self._dataset, self._objective = dataset, objective
        self._options = {"share": share, "config": config, "out": out, **settings}
        self._probe: TrainingProbe | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, before the first step.

        Raises:
            CallError: there is no single optimizer that Lightning steps, or no single DataLoader.
        """
        if not pl_module.automatic_optimization or len(trainer.optimizers) != 1:
            raise CallError(
                "one optimizer that Lightning steps is needed; this module has several, or optimizes by hand. Use "
                "bnoise_cli.callbacks.TrainingProbe in training_step."
            )
        loader = trainer.train_dataloader
        if not hasattr(loader, "collate_fn"):
            raise CallError(
                f"one DataLoader is needed; the Trainer has {type(loader).__name__}. Use "
                "bnoise_cli.callbacks.TrainingProbe with the dataset that counts."
            )
        together = trainer.accumulate_grad_batches * trainer.world_size
        clips = trainer.gradient_clip_val if trainer.gradient_clip_algorithm != "value" else None
        plan = {
            "batch_size": (loader.batch_size or 1) * together,
            "world_size": trainer.world_size,
            "max_grad_norm": clips or None,
            "precision_mode": "bf16-mixed" if trainer.precision == "bf16-mixed" else "full",
        }
        self._probe = TrainingProbe(
            pl_module,
            loader.dataset if self._dataset is None else self._dataset,
            objective=self._objective or _training_step,
            optimizer=trainer.optimizers[0],
            collate=loader.collate_fn,
            log=lambda figures, step: _tell(trainer, figures, step),
            **{**plan, **self._options},
        )
        self._probe.after_step(trainer.global_step)

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Probe if it is time."""
        if self._probe is not None:
            self._probe.after_step(trainer.global_step)

    def on_save_checkpoint(self, trainer: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Probe at the checkpoint."""
        if self._probe is not None:
            self._probe.at_checkpoint(trainer.global_step)


def _training_step(model: Any, batch: Any) -> Any:
    """The loss of the module's own `training_step`, which gets the number of the batch if it takes two arguments."""
    numbered = len(inspect.signature(model.training_step).parameters) > 1
    found = model.training_step(batch, 0) if numbered else model.training_step(batch)
    return found["loss"] if isinstance(found, Mapping) else found


def _tell(trainer: Any, figures: Mapping[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(dict(figures), step=step)
