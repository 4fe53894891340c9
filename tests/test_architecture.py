"""Imports point one way, and torch is loaded only where it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bnoise_cli"
#: Each layer may import those after it.
LAYERS = [
    "cli",
    "callbacks",
    "api",
    "report",
    "check",
    "advice",
    "results",
    "sweeping",
    "probing",
    "horizon",
    "timing",
    "training",
    "building",
]
LAYERS += ["task", "meeting", "ranks", "outcome", "spec", "maths", "leaves"]
#: What a config may name, and the way in.
OUTSIDE = {"examples", "data", "__main__"}
LEAVES = {
    "clock",
    "launch",
    "interrupt",
    "errors",
    "records",
    "storage",
    "ledger",
    "result_file",
    "numbers",
    "amounts",
}


def layer_of(module: str) -> str:
    parts = [part for part in module.split(".")[1:] if part != "measurement"]
    return "leaves" if not parts or parts[0] in LEAVES else parts[0]


def test_imports_point_one_way() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        own = layer_of(".".join(parts).removesuffix(".__init__"))
        if own in OUTSIDE or path == PACKAGE / "__init__.py":  # which loads the door when it is used
            continue
        assert own in LAYERS, path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bnoise_cli"):
                target = layer_of(node.module or "")
                if target not in LAYERS or LAYERS.index(target) < LAYERS.index(own):
                    wrong.append(f"{path.name} imports {node.module}")
    assert not wrong


def test_only_measurement_and_datasets_import_torch() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in ("measurement", "examples", "data"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] == "torch" for alias in node.names), path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "torch", path


def test_a_task_is_changed_by_its_own_methods_alone() -> None:
    """Whoever reads what a task holds finds every writer of it in one file."""
    writers = []
    for path in (PACKAGE / "measurement").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
                of = node.value
                name = of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
                if name.strip("_") in ("task", "batches"):
                    writers.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    assert {writer.partition(":")[0] for writer in writers} == {"task.py"}, writers


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["probe", "--help"], 0), (["probe", "wrong.yaml"], 2)]
)
def test_help_and_config_errors_never_load_torch(arguments: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("version: 1\nmodle: 3\n")
    script = (
        "import sys, bnoise_cli.cli.app as app\n"
        f"sys.argv = ['bnoise', *{arguments!r}]\n"
        "code = app.run()\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'numpy'} & set(sys.modules)\n"
        "print('loaded', sorted(heavy), 'code', code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"loaded [] code {code}"
