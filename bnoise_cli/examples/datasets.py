"""Real data that every machine has: scikit-learn's digits and the source text of Python itself."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset


class Digits(TensorDataset):
    """1797 handwritten digits of 8×8 pixels in [0, 1], shape (64,), with their class."""

    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError(
                "the digits come with scikit-learn, which is not installed: pip install 'bnoise[examples]'"
            ) from error
        data = load_digits()
        super().__init__(torch.tensor(data.data / 16.0, dtype=torch.float32), torch.tensor(data.target))
        self.content_hash = _sha256(data.data.tobytes() + data.target.tobytes())


class StdlibText(Dataset[tuple[Tensor, Tensor]]):
    """Windows of bytes of the source files of Python's standard library: inputs and next bytes.

    An example is one of the windows of `context` bytes that follow one another without overlap.

    Args:
        context: bytes in a window.
        packages: names of files or packages of the standard library; by default a fixed few of about
            3 MB. Files are taken in sorted order, tests left out.
    """

    def __init__(self, context: int = 64, packages: Sequence[str] | None = None) -> None:
        root = Path(sysconfig.get_path("stdlib"))
        files: list[Path] = []
        for name in packages if packages is not None else _PACKAGES:
            found = sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / f"{name}.py"]
            files += [file for file in found if not {"test", "tests"} & set(file.parts)]
        if missing := [str(file) for file in files if not file.is_file()]:
            raise FileNotFoundError(f"not in this Python's standard library: {', '.join(missing)}")
        text = b"\n".join(file.read_bytes() for file in files)
        self.context = context
        self.content_hash = _sha256(text)
        self._bytes = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def __len__(self) -> int:
        return (len(self._bytes) - 1) // self.context

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        window = self._bytes[index * self.context : (index + 1) * self.context + 1].long()
        return window[:-1], window[1:]


_PACKAGES = [
    "argparse",
    "asyncio",
    "collections",
    "ctypes",
    "dataclasses",
    "datetime",
    "decimal",
    "email",
    "encodings",
    "http",
    "importlib",
    "inspect",
    "json",
    "logging",
    "multiprocessing",
    "pathlib",
    "pickle",
    "statistics",
    "tarfile",
    "tkinter",
    "typing",
    "unittest",
    "xml",
    "zipfile",
]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
