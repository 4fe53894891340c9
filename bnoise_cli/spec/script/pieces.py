"""The pieces of a config in a training script, found in its text; the script is never run."""

from __future__ import annotations

import ast

from bnoise_cli.errors import CallError
from bnoise_cli.spec.script.calls import MODULES, Target
from bnoise_cli.spec.script.data import find_accumulation, find_loader
from bnoise_cli.spec.script.loss import find_loss
from bnoise_cli.spec.script.optimizer import find_optimizer
from bnoise_cli.spec.script.reading import Found, Reading
from bnoise_cli.spec.script.syntax import Script
from bnoise_cli.spec.script.tree import Function, own_calls, scopes

#: Calls that give a model which something else has made.
_NOT_MODELS = ("torch.load", "torch.jit.load")


def read_script(script: Script) -> Found:
    """Find model, dataset, loss, optimizer, batch size, clipping and scheduler.

    Raises:
        CallError: its expressions are nested too deeply.
    """
    reading = Reading(script)
    try:
        find_optimizer(reading)
        _find_trainer(reading)
        _find_model(reading)
        find_loader(reading)
        find_loss(reading)
        _find_clipping_and_scheduler(reading)
        find_accumulation(reading)
        reading.found.trains_on_import = _trains_on_import(script)
    except RecursionError:
        raise CallError(
            f"a Python script is needed; {script.path} has expressions that are nested too deeply."
        ) from None
    return reading.found


def _find_trainer(reading: Reading) -> None:
    """The Trainer of transformers names the pieces itself."""
    found = reading.found
    for scope in scopes(reading.script.tree):
        for call in own_calls(scope):
            name = reading.script.dotted(call.func).rpartition(".")[2]
            given = {k.arg: k.value for k in call.keywords if k.arg}
            if name == "TrainingArguments":
                rate = reading.calls.constant(given.get("learning_rate"), scope)
                made = Target(name="torch.optim.AdamW", arguments={"lr": rate or 5e-5}, line=call.lineno)
                found.targets.setdefault("optimizer", made)
                size = reading.calls.constant(given.get("per_device_train_batch_size"), scope)
                found.batch_size = size if isinstance(size, int) else 8
            elif name in ("Trainer", "Seq2SeqTrainer") and "train_dataset" in given:
                found.own_loss = True
                reading.take("model", given.get("model"), scope)
                reading.take("dataset", given["train_dataset"], scope)
                reading.take("collate", given.get("data_collator"), scope)


def _find_model(reading: Reading) -> None:
    """Take what the trained names stand for; or else a function that returns a module, or the last module class."""
    script, calls, found = reading.script, reading.calls, reading.found
    if "model" in found.targets:
        return
    made = [
        target
        for name in sorted(reading.model_names) or ("model", "net")
        for scope in scopes(script.tree)
        for value in script.assigned(name, scope)
        if (target := calls.object(value, scope, set())) is not None and target.name not in _NOT_MODELS
    ]
    if made:
        found.targets["model"] = min(made, key=lambda target: not _is_module(reading, target))
        return
    for name, function in script.functions.items():
        returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        if any(calls.makes_a_module(value, function) for value in returned):
            found.targets["model"] = calls.of_definition(name, script, function)
            return
    modules = [name for name in script.classes if calls.is_a(name, MODULES, script)]
    if modules:
        reading.take_class("model", modules[-1])
        if len(modules) > 1:
            found.notes["model"] = f"the last of the modules {', '.join(modules)}"


def _is_module(reading: Reading, target: Target) -> bool:
    """Whether it is the class of a module that can be seen."""
    defined = reading.script.definition(target.name.rpartition(":")[2].rpartition(".")[2])
    if defined is None or not isinstance(defined[1], ast.ClassDef):
        return False
    return reading.calls.is_a(defined[1].name, MODULES, defined[0])


def _find_clipping_and_scheduler(reading: Reading) -> None:
    """Take the norm that gradients are clipped to, and the call of a scheduler."""
    found = reading.found
    for scope in scopes(reading.script.tree):
        for call in own_calls(scope):
            name = reading.script.dotted(call.func)
            if name.endswith("clip_grad_norm_") and found.max_grad_norm is None:
                named = next((k.value for k in call.keywords if k.arg == "max_norm"), None)
                most = reading.calls.constant(call.args[1] if len(call.args) > 1 else named, scope)
                if isinstance(most, int | float) and most > 0:
                    found.max_grad_norm = float(most)
            elif "lr_scheduler" in name or name.rpartition(".")[2] in ("get_scheduler", "OneCycleLR"):
                found.scheduler = found.scheduler or f"{ast.unparse(call)} in line {call.lineno}"


def _trains_on_import(script: Script) -> bool:
    statements = (node for node in script.tree.body if not isinstance(node, Function | ast.ClassDef))
    return any(_trains(node, script) for node in statements)


def _trains(node: ast.AST, script: Script, seen: frozenset[str] = frozenset()) -> bool:
    """Whether running a statement at the top of a file calls backward(), itself or in a function that it calls."""
    if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
        return False
    for call in own_calls(node):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "backward":
            return True
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        function = script.functions.get(name)
        if function is not None and name not in seen and _trains(function, script, seen | {name}):
            return True
    return False
