"""The pieces of a config in a training script, found in its text; the script is never run."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from bnoise_cli.errors import CallError
from bnoise_cli.spec.script.calls import DATASETS, MACHINE, MODULES, Calls, Target
from bnoise_cli.spec.script.syntax import Function, Script, calls_in, own_calls, scopes

#: Calls that give a model which something else has made.
_NOT_MODELS = ("torch.load", "torch.jit.load")
#: Numbers of micro-batches in a step, by which scripts multiply the batch size.
_ACCUMULATION = (
    "gradient_accumulation_steps",
    "accumulation_steps",
    "accumulate_grad_batches",
    "grad_accum_steps",
)
_FUNCTIONAL, _OPTIM = "torch.nn.functional.", "torch.optim."


@dataclass(kw_only=True)
class Found:
    """What a script says about a config.

    Attributes:
        targets: by key; a key that is missing was not found.
        own_loss: whether the model computes its own loss, as in transformers.
        notes: by key, what to do about what was not found or is different.
        trains_on_import: whether importing the script trains.
    """

    script: Script
    targets: dict[str, Target] = field(default_factory=dict)
    own_loss: bool = False
    batch_size: int | None = None
    max_grad_norm: float | None = None
    scheduler: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    trains_on_import: bool = False

    @property
    def missing(self) -> list[str]:
        """The needed pieces that were not found."""
        needed = {key: key in self.targets for key in ("model", "dataset", "optimizer")}
        needed["loss"] = self.own_loss or bool({"loss", "objective"} & self.targets.keys())
        needed["training.batch_size"] = self.batch_size is not None
        return [key for key, there in needed.items() if not there]


def read_script(script: Script) -> Found:
    """Find model, dataset, loss, optimizer, batch size, clipping and scheduler.

    Raises:
        CallError: its expressions are nested too deeply.
    """
    try:
        return _Reader(script).found
    except RecursionError:
        raise CallError(
            f"a Python script is needed; {script.path} has expressions that are nested too deeply."
        ) from None


class _Reader:
    def __init__(self, script: Script) -> None:
        self.script, self.found = script, Found(script=script)
        self._calls = Calls(script)
        self._model_names: set[str] = set()
        self._optimizer()
        self._trainer()
        self._model()
        self._loader()
        self._loss()
        self._rest()

    # --- pieces ---------------------------------------------------------------------------------------

    def _optimizer(self) -> None:
        for script in (self.script, *self.script.beside):
            for scope in scopes(script.tree):
                for call in own_calls(scope):
                    if not self._is_optimizer(call, script):
                        continue
                    where, inside = script, scope
                    groups = bool(call.args) and _has_groups(call.args[0], script, scope)
                    if script is not self.script:
                        call, where, inside = self._called_from(call, script, scope)
                    first = call.args[0] if call.args else None
                    if first is not None:
                        self._model_names |= _owners_of_parameters(first, where, inside)
                    taken = copy.copy(call)
                    taken.args = call.args[1:]
                    taken.keywords = [
                        k for k in call.keywords if k.arg not in ("params", "parameters", *MACHINE)
                    ]
                    target = self._calls.target(taken, where, inside)
                    if call.args[1:] and target.positional:
                        rate = {"lr": target.positional[0]}
                        target = Target(
                            name=target.name,
                            arguments={**rate, **target.arguments},
                            open=target.open,
                            line=target.line,
                        )
                    condition = _condition(call, scope)
                    if groups:
                        self.found.notes["optimizer"] = (
                            "the script has groups of parameters; here all have one setting"
                        )
                    elif condition is not None:
                        self.found.notes["optimizer"] = f"the script makes it only if {condition}"
                    self.found.targets["optimizer"] = target
                    return

    def _called_from(
        self, call: ast.Call, script: Script, scope: ast.AST
    ) -> tuple[ast.Call, Script, ast.AST]:
        """The call with the function's parameters replaced by what the script gives for them."""
        if not isinstance(scope, Function):
            return call, script, scope
        names = [a.arg for a in (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs)]
        names = names[1:] if names[:1] == ["self"] else names
        for outer in scopes(self.script.tree):
            for made in own_calls(outer):
                if made.func is not call and self.script.dotted(made.func).rpartition(".")[2] == scope.name:
                    given = dict(zip(names, made.args, strict=False)) | {
                        k.arg: k.value for k in made.keywords if k.arg
                    }
                    replaced = _Replace(given).visit(copy.deepcopy(call))
                    owner = made.func.value if isinstance(made.func, ast.Attribute) else None
                    if isinstance(owner, ast.Name):
                        self._model_names.add(owner.id)
                    name = script.dotted(call.func)
                    self.script.imports.setdefault(name.split(".")[0], name.split(".")[0])
                    replaced.func = ast.parse(name, mode="eval").body
                    return replaced, self.script, outer
        return call, script, scope

    def _is_optimizer(self, call: ast.Call, script: Script) -> bool:
        name = script.dotted(call.func)
        last = name.rpartition(".")[2]
        if "scheduler" in name or not last[:1].isupper():
            return False
        if name.startswith(_OPTIM):
            return True
        return (
            bool(call.args)
            and ".parameters()" in ast.unparse(call.args[0])
            and any(k.arg == "lr" for k in call.keywords)
        )

    def _trainer(self) -> None:
        """The Trainer of transformers names the pieces itself."""
        for scope in scopes(self.script.tree):
            for call in own_calls(scope):
                name = self.script.dotted(call.func).rpartition(".")[2]
                given = {k.arg: k.value for k in call.keywords if k.arg}
                if name == "TrainingArguments":
                    rate = self._calls.constant(given.get("learning_rate"), scope)
                    self.found.targets.setdefault(
                        "optimizer",
                        Target(name="torch.optim.AdamW", arguments={"lr": rate or 5e-5}, line=call.lineno),
                    )
                    size = self._calls.constant(given.get("per_device_train_batch_size"), scope)
                    self.found.batch_size = size if isinstance(size, int) else 8
                elif name in ("Trainer", "Seq2SeqTrainer") and "train_dataset" in given:
                    self.found.own_loss = True
                    self._take("model", given.get("model"), scope)
                    self._take("dataset", given["train_dataset"], scope)
                    self._take("collate", given.get("data_collator"), scope)

    def _model(self) -> None:
        made = [
            found
            for name in sorted(self._model_names) or ("model", "net")
            for scope in scopes(self.script.tree)
            for value in self.script.assigned(name, scope)
            if (found := self._calls.object(value, scope, set())) is not None
            and found.name not in _NOT_MODELS
        ]
        if made and "model" not in self.found.targets:
            self.found.targets["model"] = min(made, key=self._unlike_a_model)
        if "model" in self.found.targets:
            return
        for name, function in self.script.functions.items():
            returned = [
                node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value
            ]
            if any(self._calls.makes_a_module(value, function) for value in returned):
                self.found.targets["model"] = self._calls.of_definition(name, self.script, function)
                return
        modules = [name for name in self.script.classes if self._calls.is_a(name, MODULES, self.script)]
        if modules:
            name = modules[-1]
            self.found.targets["model"] = self._calls.of_definition(
                name, self.script, self.script.classes[name]
            )
            if len(modules) > 1:
                self.found.notes["model"] = f"the last of the modules {', '.join(modules)}"

    def _unlike_a_model(self, target: Target) -> bool:
        """Whether it is not the class of a module that can be seen."""
        defined = self.script.definition(target.name.rpartition(":")[2].rpartition(".")[2])
        seen = defined is not None and isinstance(defined[1], ast.ClassDef)
        return (
            not (seen and self._calls.is_a(defined[1].name, MODULES, defined[0]))
            if defined is not None
            else True
        )

    def _loader(self) -> None:
        """The DataLoader of the training set: its dataset, collate function and batch size."""
        loaders = [
            (self._rank(call, scope), call, scope)
            for scope in scopes(self.script.tree)
            for call in own_calls(scope)
            if self.script.dotted(call.func).rpartition(".")[2] == "DataLoader"
        ]
        for _, call, scope in sorted(loaders, key=lambda each: each[0]):
            given = self._calls.keywords(call, scope)
            dataset = call.args[0] if call.args else given.get("dataset")
            if dataset is None or isinstance(dataset, ast.Starred):
                continue
            self._take("dataset", dataset, scope)
            self._take("collate", given.get("collate_fn"), scope)
            size = self._calls.constant(
                given.get("batch_size", call.args[1] if len(call.args) > 1 else None), scope
            )
            if isinstance(size, int) and self.found.batch_size is None:
                self.found.batch_size = size
            break
        if "dataset" not in self.found.targets:
            sets = [name for name in self.script.classes if self._calls.is_a(name, DATASETS, self.script)]
            if sets:
                self.found.targets["dataset"] = self._calls.of_definition(
                    sets[0], self.script, self.script.classes[sets[0]]
                )
        if self.found.batch_size is None:
            for name in ("batch_size", "args.batch_size", "train_batch_size"):
                node = ast.parse(name, mode="eval").body
                size = self._calls.constant(node, self.script.tree)
                if isinstance(size, int):
                    self.found.batch_size = size
                    break

    def _loss(self) -> None:
        if self.found.own_loss:
            return
        for scope in scopes(self.script.tree):
            for value in _descended(scope):
                if self._loss_of(value, scope, set()):
                    return

    def _loss_of(self, node: ast.expr, scope: ast.AST, seen: set[int]) -> bool:
        """Whether the loss of a step is found in an expression."""
        if id(node) in seen:
            return False
        seen.add(id(node))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Mult):
            return self._loss_of(node.left, scope, seen)
        if isinstance(node, ast.Subscript):
            return self._loss_of(node.value, scope, seen)
        unpacks = isinstance(node, ast.Call) and any(k.arg is None for k in node.keywords)
        if unpacks or (isinstance(node, ast.Attribute) and node.attr == "loss"):
            self.found.own_loss = True
            return True
        if isinstance(node, ast.Name):
            return any(self._loss_of(value, scope, seen) for value in self.script.assigned(node.id, scope))
        if not isinstance(node, ast.Call):
            return False
        name = self.script.dotted(node.func)
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("mean", "sum", "scale", "to", "float"):
            return self._loss_of(node.args[0] if node.func.attr == "scale" else node.func.value, scope, seen)
        if (defined := self.script.definition(name)) is not None and isinstance(defined[1], Function):
            return self._own_function(node, *defined)
        if (inputs := self._inputs(node, scope)) is not None:
            self.found.notes["loss"] = (
                f"line {inputs.lineno} calls {ast.unparse(inputs)}: write f(model, batch) around it and the loss, and "
                "name that as objective"
            )
            return True
        if name.startswith(_FUNCTIONAL):
            kept = copy.copy(node)
            kept.args = []
            self.found.targets["loss"] = self._calls.target(kept, self.script, scope)
            return True
        if self._is_model(node.func):
            returned = Target(name="bnoise_cli.data.returned_loss", line=node.lineno)
            self.found.targets["objective"] = returned
            return True
        return self._take("loss", node.func, scope)

    def _inputs(self, call: ast.Call, scope: ast.AST) -> ast.Call | None:
        """The model's call whose output a criterion takes, if the model takes other than one input."""
        first = call.args[0] if call.args else None
        nodes = [first] if first is not None else []
        nodes += self.script.assigned(first.id, scope) if isinstance(first, ast.Name) else []
        for node in nodes:
            for inner in calls_in(node):
                if self._is_model(inner.func):
                    return inner if len(inner.args) != 1 or inner.keywords else None
        return None

    def _own_function(self, call: ast.Call, script: Script, function: ast.AST) -> bool:
        assert isinstance(function, Function)
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        shown = f"{script.path}:{function.name}"
        if names[:1] == ["model"] and len(call.args) == 2:
            self.found.targets["objective"] = Target(name=shown, line=call.lineno)
        elif len(call.args) == 2 and len(names) - len(function.args.defaults) <= 2:
            self.found.targets["loss"] = Target(name=shown, line=call.lineno)
        else:
            self.found.notes["loss"] = (
                f"line {call.lineno} calls {ast.unparse(call)}: write f(model, batch) around it, and name that as "
                "objective"
            )
        return True

    def _rest(self) -> None:
        """Clipping, accumulation, the scheduler, and whether an import would train."""
        script = self.script
        for scope in scopes(script.tree):
            for call in own_calls(scope):
                name = script.dotted(call.func)
                if name.endswith("clip_grad_norm_") and self.found.max_grad_norm is None:
                    most = (
                        call.args[1]
                        if len(call.args) > 1
                        else next((k.value for k in call.keywords if k.arg == "max_norm"), None)
                    )
                    value = self._calls.constant(most, scope)
                    self.found.max_grad_norm = (
                        float(value) if isinstance(value, int | float) and value > 0 else None
                    )
                elif "lr_scheduler" in name or name.rpartition(".")[2] in ("get_scheduler", "OneCycleLR"):
                    self.found.scheduler = (
                        self.found.scheduler or f"{ast.unparse(call)} in line {call.lineno}"
                    )
        names = {node.id for node in ast.walk(script.tree) if isinstance(node, ast.Name)} | set(
            script.options
        )
        for name in names & set(_ACCUMULATION):
            node = ast.Name(name, ast.Load()) if name not in script.options else script.options[name]
            count = self._calls.constant(node, script.tree)
            if isinstance(count, int) and count > 1 and self.found.batch_size is not None:
                self.found.batch_size *= count
                self.found.notes["training.batch_size"] = f"with {name}: {count}"
        self.found.trains_on_import = any(
            _trains(node, script)
            for node in script.tree.body
            if not isinstance(node, Function | ast.ClassDef)
        )

    def _take(self, key: str, node: ast.expr | None, scope: ast.AST) -> bool:
        """Find the target of a key in an expression; whether it is known now."""
        if node is not None and key not in self.found.targets:
            found = self._calls.object(node, scope, set())
            if found is not None:
                self.found.targets[key] = found
            elif key == "dataset" and isinstance(node, ast.Name) and self._at_the_top(node.id):
                line = next(
                    n.lineno
                    for n in ast.walk(self.script.tree)
                    if isinstance(n, ast.Name) and n.id == node.id
                )
                self.found.targets[key] = Target(name=f"{self.script.path}:{node.id}", line=line)
        return key in self.found.targets

    def _at_the_top(self, name: str) -> bool:
        return any(
            isinstance(target, ast.Name) and target.id == name
            for node in self.script.tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
        )

    def _rank(self, call: ast.Call, scope: ast.AST) -> tuple[bool, bool]:
        """How much a loader looks like that of the training set; the least is the likeliest."""
        words = [
            ast.unparse(target) for node in _assigned_from(scope).get(call, ()) for target in node.targets
        ]
        words += [ast.unparse(call.args[0])] if call.args else []
        words += [scope.name] if isinstance(scope, Function) else []
        said = " ".join(words).lower()
        other = any(word in said for word in ("test", "val"))
        return other or "train" not in said, "shuffle=True" not in ast.unparse(call)

    def _is_model(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and (node.id in self._model_names or node.id in ("model", "net"))


class _Replace(ast.NodeTransformer):
    def __init__(self, given: Mapping[str, ast.expr]) -> None:
        self._given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._given.get(node.id, node)


@lru_cache(1)
def _assigned_from(scope: ast.AST) -> Mapping[ast.Call, Sequence[ast.Assign]]:
    """By call the assignments of a scope whose values it is a part of."""
    found: dict[ast.Call, list[ast.Assign]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for call in calls_in(node.value):
                found.setdefault(call, []).append(node)
    return found


def _descended(scope: ast.AST) -> Iterator[ast.expr]:
    """What a scope calls backward() of; of Lightning's `training_step`, what it returns."""
    for call in own_calls(scope):
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("backward", "manual_backward"):
            yield call.args[0] if call.args and not isinstance(call.args[0], ast.Starred) else call.func.value
    if isinstance(scope, Function) and scope.name == "training_step":
        yield from (node.value for node in ast.walk(scope) if isinstance(node, ast.Return) and node.value)


def _owners_of_parameters(node: ast.expr, script: Script, scope: ast.AST) -> set[str]:
    """The names in `name.parameters()`, also if the parameters were put into a variable first."""
    found: set[str] = set()
    nodes: list[ast.expr] = [node]
    if isinstance(node, ast.Name):
        nodes += script.assigned(node.id, scope)
    for each in nodes:
        for call in calls_in(each):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("parameters", "named_parameters"):
                found.add(ast.unparse(call.func.value))
    return {name for name in found if name.isidentifier()}


def _condition(call: ast.Call, scope: ast.AST) -> str | None:
    """The innermost condition that a call depends on; None if there is none."""
    found = None
    for node in ast.walk(scope):
        if isinstance(node, ast.If) and any(call in ast.walk(each) for each in node.body):
            found = ast.unparse(node.test)
    return None if found is None or "__name__" in found else found


def _has_groups(node: ast.expr, script: Script, scope: ast.AST) -> bool:
    """Whether an optimizer is given groups of parameters, which may have settings of their own."""
    values = [node, *(script.assigned(node.id, scope) if isinstance(node, ast.Name) else [])]
    return any(
        isinstance(value, ast.List) and any(isinstance(i, ast.Dict) for i in value.elts) for value in values
    )


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
