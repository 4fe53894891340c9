"""A check runs no code of the config, and needs no package that measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cases import QUADRATIC_CONFIG, Call, Write
from tests.samples import store


def test_it_imports_neither_torch_nor_the_users_code(write: Write) -> None:
    """Also with packages and weights that this machine lacks."""
    write("mine.py", "open('ran', 'w')\nclass Net: pass\nclass Data: pass\n")
    write(
        "c.yaml",
        "version: 1\nmodel: {_target_: mine.py:Net, inner: {_target_: absent_package.Inner}}\n"
        "dataset: {_target_: mine.Data}\nloss: {_target_: torch.nn.MSELoss}\ncheckpoint: absent.pt\n"
        "optimizer: {_target_: torch.optim.SGD, lr: 0.1}\ntraining: {batch_size: 32}\n",
    )
    store("c.yaml")
    script = (
        "import sys\nfrom bnoise_cli.cli import app\nsys.argv = ['bnoise', 'check', 'c.yaml', *sys.argv[1:]]\n"
        "code = app.run()\nassert not {'torch', 'numpy', 'scipy', 'matplotlib', 'mine'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    for arguments in (
        [],
        ["--validate-only"],
        *(["--format", f] for f in ("json", "markdown", "github", "junit")),
    ):
        ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert not Path("ran").exists()


def test_a_report_without_the_packages_of_a_measurement_names_them_all(write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG)
    result = store("c.yaml")
    script = (
        "import sys\nfor name in ('torch', 'numpy', 'scipy', 'matplotlib'): sys.modules[name] = None\n"
        f"from bnoise_cli.cli import app\nsys.argv = ['bnoise', 'report', {str(result)!r}]\nsys.exit(app.run())\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (4, "")
    assert ran.stderr.endswith("-m pip install numpy scipy matplotlib\n")


def test_validating_looks_at_the_form_alone(bnoise: Call, write: Write) -> None:
    write("c.yaml", QUADRATIC_CONFIG)
    code, out, _ = bnoise("check", "c.yaml", "--validate-only")
    assert (code, out) == (0, "pass  c.yaml: the config is well formed\n")
    write("c.yaml", QUADRATIC_CONFIG.replace("batch_size", "batchsize"))
    code, out, _ = bnoise("check", "c.yaml", "--validate-only", "--exit-zero")
    assert code == 2
    assert "unknown key `batchsize`" in out
    assert "did you mean `batch_size`?" in " ".join(out.split())
    write("c.yaml", QUADRATIC_CONFIG.replace("bnoise_cli.examples.quadratic.mean_loss", "absent.py:loss"))
    code, out, _ = bnoise("check", "c.yaml", "--validate-only")
    assert code == 2
    assert "absent.py" in out


def test_the_check_needs_only_what_ci_installs(write: Write) -> None:
    """With every other package out of reach."""
    write("c.yaml", QUADRATIC_CONFIG)
    store("c.yaml")
    script = (
        "import sys\nfor name in ('torch', 'numpy', 'scipy', 'matplotlib'): sys.modules[name] = None\n"
        "from bnoise_cli.cli import app\nsys.argv = ['bnoise', 'check', 'c.yaml', *sys.argv[1:]]\nsys.exit(app.run())\n"
    )
    for form in ("text", "json", "markdown", "github", "junit"):
        ran = subprocess.run([sys.executable, "-c", script, "--format", form], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
