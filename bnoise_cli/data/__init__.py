"""Datasets in local files: token ids, text, arrays, images. Name them in a config as `bnoise_cli.data.TokenFile`.

Paths are relative to the current folder. Nothing is downloaded.
"""

from bnoise_cli.data.arrays import Arrays
from bnoise_cli.data.images import ImageFolder
from bnoise_cli.data.tokens import TextFile, Texts, TokenFile, Windows, padded, returned_loss

__all__ = ["Arrays", "ImageFolder", "TextFile", "Texts", "TokenFile", "Windows", "padded", "returned_loss"]
