"""Images in folders, one folder for each class."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images in `path/CLASS/NAME.png` or other formats. The label is the index of the class in alphabetical order.

    Each image is scaled until its shorter side is `size`, and cut to its central square. Values lie in [-1, 1], the
    shape is (channels, size, size). There is no augmentation.

    Args:
        size: pixels of each side.
        channels: 3, or 1 for grey.
    """

    def __init__(self, path: str, size: int, channels: int = 3) -> None:
        root = Path(path).expanduser().absolute()
        if not root.is_dir():
            raise FileNotFoundError(f"a folder of images is needed at {root}; there is none")
        if size < 1 or channels not in (1, 3):
            raise ValueError(f"`size` must be at least 1 and `channels` 1 or 3; found {size} and {channels}")
        self.size, self.channels = size, channels
        self.classes = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
        self.files = [
            (file, label)
            for label, name in enumerate(self.classes)
            for file in sorted((root / name).rglob("*"))
            if file.suffix.lower() in _ENDINGS
        ]
        if not self.files:
            raise FileNotFoundError(
                f"images are needed in folders of {root}, one for each class; found {len(self.classes)} folders "
                f"and no file ending in {', '.join(_ENDINGS[:4])}…"
            )
        names = [f"{file.relative_to(root)} {file.stat().st_size}" for file, _ in self.files]
        self.content_hash = hashlib.sha256("\n".join(names).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image, ImageOps

        file, label = self.files[index]
        with Image.open(file) as found:
            upright = ImageOps.exif_transpose(found).convert("L" if self.channels == 1 else "RGB")
            square = ImageOps.fit(upright, (self.size, self.size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(square, dtype=np.float32) / 127.5 - 1)
        return pixels.reshape(self.size, self.size, self.channels).permute(2, 0, 1).contiguous(), label
