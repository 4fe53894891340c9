"""A config for a training script, with what its text says and marks for what is missing."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from bnoise_cli.errors import printable
from bnoise_cli.spec.load import TARGET_KEYS
from bnoise_cli.spec.schema import Config
from bnoise_cli.spec.script.calls import Target
from bnoise_cli.spec.script.reading import Found
from bnoise_cli.spec.template import commented, settings

#: What a piece may be that was not found.
_WANTED = {
    "model": "a class or a function that makes the model, as in {script}:build_model",
    "dataset": "anything with a length and items, or a function that returns it, as in {script}:TrainingSet "
    "(bnoise explain data)",
    "loss": "a criterion, or as `objective:` a function f(model, batch), as in {script}:training_loss",
    "optimizer": "its class and arguments, as in torch.optim.AdamW with lr: 0.001",
}
_WIDEST = 110


class _Dumper(yaml.SafeDumper):
    """Lists of plain values stand in one line."""

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        flat = not any(isinstance(item, dict | list) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(list, _Dumper.represent_list)


def config_of_script(found: Found) -> str:
    """The text of a config. It is whole if nothing that is needed is missing."""
    script = found.script.path
    lines = [
        f"# Written by `bnoise init {printable(script)}`, which read the script without running it.",
        "# Look it over, then try it with `bnoise probe --dry-run`, which imports the code that is named here.",
    ]
    if found.trains_on_import and any(
        target.name.startswith(f"{script}:") for target in found.targets.values()
    ):
        lines += _remark(
            f'Importing {script} trains: put its loop under `if __name__ == "__main__":` before you probe.'
        )
    lines.append("version: 1")
    for key in TARGET_KEYS:
        if key in found.targets:
            lines += _target(key, found.targets[key], found.notes.get(key))
        elif key in found.missing:
            wanted = _WANTED[key].format(script=script)
            lines += _remark(f"{key}: NOT FOUND. {found.notes.get(key) or wanted}.")
    if found.own_loss and not {"loss", "objective"} & found.targets.keys():
        lines += _remark("loss, objective: neither is named, so the loss is model(**batch).loss")
    known: dict[tuple[str, str], Any] = {}
    if found.batch_size is not None:
        known["training", "batch_size"] = found.batch_size
    else:
        lines += _remark("training.batch_size: NOT FOUND. The default stands below; set that of your run.")
    if found.max_grad_norm is not None:
        known["training", "max_grad_norm"] = found.max_grad_norm
    if "training.batch_size" in found.notes:
        lines += _remark(f"training.batch_size: {found.notes['training.batch_size']}")
    lines += settings(known)
    if found.scheduler is not None:
        lines += _remark(
            f"The script changes the learning rate ({found.scheduler}); a probe holds it at optimizer.lr."
        )
    return "\n".join(lines) + "\n"


def summary(found: Found) -> str:
    """What was found where, and what is to be filled in, for the terminal."""
    said = [f"{key} (line {target.line})" for key, target in found.targets.items()]
    said += ["loss (the model's own)"] if found.own_loss and "objective" not in found.targets else []
    said += ["batch size"] if found.batch_size is not None else []
    still = found.missing + [
        f"{key}.{name}" for key, target in found.targets.items() for name, _ in target.open
    ]
    text = f"Found in {found.script.path}: {', '.join(said) or 'nothing'}."
    return text + (f" To fill in: {', '.join(still)}." if still else "")


def _target(key: str, target: Target, note: str | None) -> list[str]:
    where = f"line {target.line}" if target.line is not None else ""
    lines = [commented(f"{key}:", "; ".join(filter(None, [Config.model_fields[key].description, where])))]
    text = yaml.dump(target.as_value(), Dumper=_Dumper, sort_keys=False, width=_WIDEST)
    lines += textwrap.indent(text, "  ").splitlines()
    for name, expression in target.open:
        lines.append(commented(f"  # {name}:", f"NEEDED{': ' + expression if expression else ''}"))
    return lines + (_remark(note, "  ") if note else [])


def _remark(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        printable(text), _WIDEST, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )
