"""`bnoise init`."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from bnoise_cli.errors import CallError, ConfigError, RunError, reason
from bnoise_cli.spec.template import example_names
from bnoise_cli.storage import real, write_whole

#: Follows the name of the command in the example of its help.
EXAMPLE = "train.py"


def init(
    script: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCRIPT", help="Your training script: it is read, not run.", show_default=False
        ),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Begin with one of {', '.join(example_names())}."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Your model: train.py:build_model, or a dotted path.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Your dataset, likewise.")] = None,
    collate: Annotated[str | None, typer.Option(help="Your collate function, likewise.")] = None,
    loss: Annotated[str | None, typer.Option(help="A criterion, as torch.nn.CrossEntropyLoss.")] = None,
    objective: Annotated[str | None, typer.Option(help="Or f(model, batch), likewise.")] = None,
    optimizer: Annotated[str, typer.Option(help="The optimizer of the planned run.")] = "torch.optim.SGD",
    out: Annotated[Path, typer.Option(help="The file to write; it must not be there yet.")] = Path(
        "bnoise.yaml"
    ),
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a config, for editors.")
    ] = False,
) -> None:
    """Write a commented config: an example, one for your training script, or one for the pieces that you name.

    With --model, the code that is named is imported and run.
    """
    from bnoise_cli.cli.streams import show_json
    from bnoise_cli.spec.schema import json_schema

    if schema:
        show_json(json_schema())
        return
    if os.path.lexists(out):
        raise CallError(f"{out} is there already. Name another file with --out, or move it away.")
    named = {"model": model, "dataset": dataset, "collate": collate, "loss": loss, "objective": objective}
    targets = {key: name for key, name in named.items() if name is not None}
    if script is not None and (example is not None or targets):
        raise CallError(
            f"{script} is read for all pieces. Leave the other options out, and change what is written."
        )
    if example is not None and targets:
        raise CallError(
            f"--example is a whole config; found --{next(iter(targets))} too. Leave one of them out."
        )
    if script is not None:
        _from_script(script, out)
    elif targets:
        _from_pieces(targets, optimizer, out)
    else:
        _from_example(example or _default_example(), out)


def _from_script(script: Path, out: Path) -> None:
    """Write what the text of a script says. No code is run."""
    from bnoise_cli.spec.script.pieces import read_script
    from bnoise_cli.spec.script.syntax import Script
    from bnoise_cli.spec.script.text import config_of_script, summary

    found = read_script(Script.read(script, real(out).parent))
    _write(out, config_of_script(found))
    _say_what_next(out, f"{out} is written. {summary(found)}", look="Look it over. ", imports=False)


def _from_pieces(targets: dict[str, str], optimizer: str, out: Path) -> None:
    """Write a config with the pieces that are named, with what importing them says of their arguments."""
    from bnoise_cli.spec.template import config_for

    missing = [f"--{key}" for key in ("model", "dataset") if key not in targets]
    if missing:
        raise CallError(f"a config needs a model and a dataset; {' and '.join(missing)} is missing.")
    if {"loss", "objective"} <= targets.keys():
        raise CallError("--loss and --objective exclude each other. Leave one of them out.")
    _write(out, config_for({**targets, "optimizer": optimizer}, real(out).parent))
    look = "Set `optimizer` and `training.batch_size` to those of your run. "
    _say_what_next(out, f"{out} is written.", look=look)


def _from_example(name: str, out: Path) -> None:
    """Write an example, and the files that it needs beside it."""
    from bnoise_cli.spec.template import companions, example_config

    beside = {out.with_name(file): content for file, content in companions(name).items()}
    if there := [path for path in beside if path.exists()]:
        raise CallError(
            f"{there[0]} is there already, and this example needs its own. Name another folder with --out."
        )
    for path, content in beside.items():
        _write(path, content)
    _write(out, example_config(name))
    written = " and ".join(map(str, [out, *beside]))
    _say_what_next(out, f"{written} {'are' if beside else 'is'} written.")


def _say_what_next(out: Path, written: str, *, look: str = "", imports: bool = True) -> None:
    """Say how to try a config, or what is still wrong in it.

    Args:
        look: what to do before.
        imports: whether the code that the config names may be imported.
    """
    from bnoise_cli.cli.streams import tell
    from bnoise_cli.spec.load import load_spec

    tell(written)
    call = "bnoise probe" if out == Path("bnoise.yaml") else f"bnoise probe {out}"
    try:
        spec = load_spec(out)
        if imports:
            spec.require_targets()
        tell(f"{look}Try it with `{call} --dry-run`, then measure with `{call}`.")
    except ConfigError as error:
        tell(f"{error}\nFill that in. {look}Then try it with `{call} --dry-run`.")


def _default_example() -> str:
    """The handwritten digits if scikit-learn, which has them, is installed; otherwise a synthetic task."""
    return "digits" if importlib.util.find_spec("sklearn") is not None else "noisy_quadratic"


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all; one that is there already is kept."""
    try:
        write_whole(path, lambda file: file.write(text.encode()), new=True)
    except (FileExistsError, RunError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise CallError(f"{path} cannot be written ({reason(cause)}). Name another file.") from error
