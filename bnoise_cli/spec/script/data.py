"""The training set of a script: its dataset, collate function and batch size."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import lru_cache

from bnoise_cli.spec.script.calls import DATASETS
from bnoise_cli.spec.script.reading import Reading
from bnoise_cli.spec.script.tree import Function, calls_in, own_calls, scopes

#: Names of the batch size, where no loader says it.
_BATCH_SIZE = ("batch_size", "args.batch_size", "train_batch_size")
#: Numbers of micro-batches in a step, by which scripts multiply the batch size.
_ACCUMULATION = (
    "gradient_accumulation_steps",
    "accumulation_steps",
    "accumulate_grad_batches",
    "grad_accum_steps",
)


def find_loader(reading: Reading) -> None:
    """Take what the likeliest DataLoader of the training set is given; or else a dataset class and a name's value."""
    script, calls, found = reading.script, reading.calls, reading.found
    loaders = [
        (_rank(call, scope), call, scope)
        for scope in scopes(script.tree)
        for call in own_calls(scope)
        if script.dotted(call.func).rpartition(".")[2] == "DataLoader"
    ]
    for _, call, scope in sorted(loaders, key=lambda each: each[0]):
        given = calls.keywords(call, scope)
        dataset = call.args[0] if call.args else given.get("dataset")
        if dataset is None or isinstance(dataset, ast.Starred):
            continue
        reading.take("dataset", dataset, scope)
        reading.take("collate", given.get("collate_fn"), scope)
        second = call.args[1] if len(call.args) > 1 else None
        _take_batch_size(reading, given.get("batch_size", second), scope)
        break
    if "dataset" not in found.targets:
        sets = [name for name in script.classes if calls.is_a(name, DATASETS, script)]
        if sets:
            reading.take_class("dataset", sets[0])
    for name in _BATCH_SIZE:
        _take_batch_size(reading, ast.parse(name, mode="eval").body, script.tree)


def find_accumulation(reading: Reading) -> None:
    """Multiply the batch size by the micro-batches of a step."""
    script, found = reading.script, reading.found
    names = {node.id for node in ast.walk(script.tree) if isinstance(node, ast.Name)} | set(script.options)
    for name in names & set(_ACCUMULATION):
        node = script.options.get(name, ast.Name(name, ast.Load()))
        count = reading.calls.constant(node, script.tree)
        if isinstance(count, int) and count > 1 and found.batch_size is not None:
            found.batch_size *= count
            found.notes["training.batch_size"] = f"with {name}: {count}"


def _take_batch_size(reading: Reading, node: ast.expr | None, scope: ast.AST) -> None:
    if reading.found.batch_size is None:
        size = reading.calls.constant(node, scope)
        reading.found.batch_size = size if isinstance(size, int) else None


def _rank(call: ast.Call, scope: ast.AST) -> tuple[bool, bool]:
    """How much a loader looks like that of the training set; the least is the likeliest."""
    words = [ast.unparse(target) for node in _assigned_from(scope).get(call, ()) for target in node.targets]
    words += [ast.unparse(call.args[0])] if call.args else []
    words += [scope.name] if isinstance(scope, Function) else []
    said = " ".join(words).lower()
    other = any(word in said for word in ("test", "val"))
    return other or "train" not in said, "shuffle=True" not in ast.unparse(call)


@lru_cache(1)
def _assigned_from(scope: ast.AST) -> Mapping[ast.Call, Sequence[ast.Assign]]:
    """By call the assignments of a scope whose values it is a part of."""
    found: dict[ast.Call, list[ast.Assign]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for call in calls_in(node.value):
                found.setdefault(call, []).append(node)
    return found
