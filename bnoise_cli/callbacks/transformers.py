"""Probes inside the Trainer of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from bnoise_cli.callbacks.training_probe import TrainingProbe


class TrainerProbe(TrainerCallback):  # type: ignore[misc]
    """A `TrainingProbe` for a Trainer: `trainer.add_callback(TrainerProbe(trainer, at_steps=[100, 1000]))`.

    Model, dataset, collator, optimizer, batch size and loss are the Trainer's, and the figures go to its trackers.
    Without `at_steps` it probes where the Trainer saves.

    Args:
        share, config, out, settings: as for `TrainingProbe`.
    """

    def __init__(
        self,
        trainer: Any,
        *,
        share: float | None = 0.01,
        config: str | Path | None = None,
        out: str | Path | None = None,
        **settings: Any,
    ) -> None:
        self._trainer = trainer
        self._options = {"share": share, "config": config, "out": out, **settings}
        self._probe: TrainingProbe | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, before the first step."""
        loader = kwargs["train_dataloader"]
        plan = {
            "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "world_size": args.world_size,
            "max_grad_norm": args.max_grad_norm or None,
            "precision_mode": "bf16-mixed" if args.bf16 else "full",
            "steps": state.max_steps,
        }
        self._probe = TrainingProbe(
            kwargs["model"],
            loader.dataset,
            objective=self._loss,
            optimizer=getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"]),
            collate=loader.collate_fn,
            log=lambda figures, step: self._tell(control, figures),  # noqa: ARG005
            **{**plan, **self._options},
        )
        self._probe.after_step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Probe if it is time."""
        if self._probe is not None:
            self._probe.after_step(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Probe at the checkpoint."""
        if self._probe is not None:
            self._probe.at_checkpoint(state.global_step)

    def _loss(self, model: Any, batch: Any) -> Any:
        """The Trainer's own loss, with its label smoothing or `compute_loss_func`."""
        inputs = dict(batch) if isinstance(batch, Mapping) else batch  # it may take the labels out
        return self._trainer.compute_loss(model, inputs)

    def _tell(self, control: Any, figures: Mapping[str, float]) -> None:
        """Log to the Trainer's trackers. Logging counts as the log of this step, which the Trainer may want too."""
        wanted = control.should_log
        self._trainer.log(dict(figures))
        control.should_log = wanted
