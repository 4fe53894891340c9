"""`bnoise init`."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from bnoise_cli.errors import CallError, ConfigError, RunError
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
    from bnoise_cli.cli.streams import show_json, tell
    from bnoise_cli.spec.load import load_spec
    from bnoise_cli.spec.schema import json_schema
    from bnoise_cli.spec.template import companions, config_for, example_config

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
    if script is not None:
        _from_script(script, out)
        return
    if example is not None and targets:
        raise CallError(
            f"--example is a whole config; found --{next(iter(targets))} too. Leave one of them out."
        )
    own = ""
    if targets:
        own = "Set `optimizer` and `training.batch_size` to those of your run. "
        missing = [f"--{key}" for key in ("model", "dataset") if key not in targets]
        if missing:
            raise CallError(f"a config needs a model and a dataset; {' and '.join(missing)} is missing.")
        if loss is not None and objective is not None:
            raise CallError("--loss and --objective exclude each other. Leave one of them out.")
        beside, text = {}, config_for({**targets, "optimizer": optimizer}, real(out).parent)
    else:
        name = example or _default_example()
        text, beside = example_config(name), companions(name)
    for path in [out.with_name(file) for file in beside]:
        if path.exists():
            raise CallError(
                f"{path} is there already, and this example needs its own. Name another folder with --out."
            )
    for file, content in beside.items():
        _write(out.with_name(file), content)
    _write(out, text)
    call = "bnoise probe" if out == Path("bnoise.yaml") else f"bnoise probe {out}"
    tell(f"{' and '.join([str(out), *map(str, beside)])} {'are' if beside else 'is'} written.")
    try:
        load_spec(out).require_targets()
        tell(f"{own}Try it with `{call} --dry-run`, then measure with `{call}`.")
    except ConfigError as error:
        tell(f"{error}\nFill that in. {own}Then try it with `{call} --dry-run`.")


def _from_script(script: Path, out: Path) -> None:
    """Write what the text of a script says. No code is run."""
    from bnoise_cli.cli.streams import tell
    from bnoise_cli.spec.load import load_spec
    from bnoise_cli.spec.script.pieces import read_script
    from bnoise_cli.spec.script.syntax import Script
    from bnoise_cli.spec.script.text import config_of_script, summary

    found = read_script(Script.read(script, real(out).parent))
    _write(out, config_of_script(found))
    call = "bnoise probe" if out == Path("bnoise.yaml") else f"bnoise probe {out}"
    tell(f"{out} is written. {summary(found)}")
    try:
        load_spec(out)
        tell(f"Look it over, and try it with `{call} --dry-run`.")
    except ConfigError as error:
        tell(f"{error}\nFill that in, then try it with `{call} --dry-run`.")


def _default_example() -> str:
    """The handwritten digits if scikit-learn, which has them, is installed; otherwise a synthetic task."""
    return "digits" if importlib.util.find_spec("sklearn") is not None else "noisy_quadratic"


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all; one that is there already is kept."""
    try:
        write_whole(path, lambda file: file.write(text.encode()), new=True)
    except (FileExistsError, RunError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or error
        raise CallError(f"{path} cannot be written ({reason}). Name another file.") from error
