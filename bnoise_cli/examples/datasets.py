"""Real data that every machine has: scikit-learn's digits and the source text of Python itself."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import TensorDataset

from bnoise_cli.data import Windows


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


class DigitImages(TensorDataset):
    """The same digits scaled up to images, shape (channels, size, size) in [0, 1], with their class."""

    def __init__(self, size: int = 32, channels: int = 3) -> None:
        digits = Digits()
        images = digits.tensors[0].reshape(-1, 1, 8, 8)
        images = functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        super().__init__(images.expand(-1, channels, -1, -1).contiguous(), digits.tensors[1])
        self.content_hash = digits.content_hash


class StdlibText(Windows):
    """Windows of bytes of the source files of Python's standard library.

    An example is one window of `context` bytes. Windows follow each other without overlap.

    Args:
        context: bytes in a window.
        packages: names of files or packages of the standard library; by default a fixed selection of about
            3 MB. Files are taken in sorted order, without tests.
        form: as for `Windows`.
    """

    def __init__(
        self,
        context: int = 64,
        packages: Sequence[str] | None = None,
        form: Literal["pair", "transformers"] = "pair",
    ) -> None:
        root = Path(sysconfig.get_path("stdlib"))
        files: list[Path] = []
        for name in packages if packages is not None else _PACKAGES:
            found = sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / f"{name}.py"]
            files += [file for file in found if not {"test", "tests"} & set(file.parts)]
        if missing := [str(file) for file in files if not file.is_file()]:
            raise FileNotFoundError(f"not in this Python's standard library: {', '.join(missing)}")
        text = b"\n".join(file.read_bytes() for file in files)
        super().__init__(np.frombuffer(text, dtype=np.uint8), context, form=form)
        self.content_hash = _sha256(text)


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
