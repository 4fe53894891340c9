"""The user's files as modules of this package, so that a process that user code spawns can import them.

Such a process, a worker of a DataLoader say, is sent the classes and functions of `file.py:name` by the name of their
module. The name holds the path of the file. To import it, the process imports this package first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

from bnoise_cli.storage import real

#: Makes this module a package. Nothing in it lies on disk.
__path__: list[str] = []
#: The name of the module of a user's file begins so.
USER_MODULE = f"{__name__}._"


def user_module(path: Path) -> str:
    """The name under which a file of the user's is imported."""
    return f"{USER_MODULE}{os.fsencode(real(path)).hex()}"


class _Finder:
    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if not name.startswith(USER_MODULE):
            return None
        file = Path(os.fsdecode(bytes.fromhex(name.removeprefix(USER_MODULE))))
        sys.path.insert(0, str(file.parent))  # `import_path` does it in the process that measures
        return importlib.util.spec_from_file_location(name, file)


sys.meta_path.append(_Finder)
