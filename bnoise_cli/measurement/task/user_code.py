"""Run the user's code: a failure becomes one clear message, out of memory an exception of its own."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bnoise_cli.errors import BnoiseError, LostRankError, RunError, message_of
from bnoise_cli.interrupt import in_one_process, not_swallowed
from bnoise_cli.spec.user_files import USER_MODULE

_PACKAGE = Path(__file__).resolve().parents[2]
#: Messages of the exchange inside a pass of a sharded model if another rank has ended.
_GONE = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting")
#: Messages of allocators that do not raise torch.OutOfMemoryError: torch's own on the CPU, CUDA's libraries, other
#: devices. cuDNN finds no algorithm if its workspace does not fit.
_ALLOCATORS = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "STATUS_ALLOC_FAILED",
    "out of memory",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "Unable to find a valid cuDNN algorithm",
    "RESOURCE_EXHAUSTED",
)


_OUT_OF_BOUNDS = re.compile(r"Target -?\d+ is out of bounds|Assertion `t >= 0 && t < n_classes` failed")
_NOT_WHOLE = re.compile(r"expected target dtype to be Long|expected scalar type Long but found")


class OutOfMemoryError(Exception):
    """The device has no room for this many examples; fewer may fit."""


@contextmanager
def user_code(doing: str, remedy: str | Callable[[BaseException], str] = "") -> Iterator[None]:
    """Turn an exception of user code into one message: what was being done, the error, and where it was raised.

    Args:
        remedy: what to change; or a function that finds it from the error.

    Raises:
        OutOfMemoryError: for any allocator's failure.
        RunError: for any other exception.
    """
    try:
        with in_one_process(), not_swallowed():
            yield
    except (BnoiseError, OutOfMemoryError):
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if _is_out_of_memory(error):
            raise OutOfMemoryError(message_of(error)) from None
        if _is_lost_rank(error):
            raise LostRankError.of(message_of(error)) from None
        text = f"{doing} failed with {type(error).__name__}: {message_of(error)}{_place(error)}"
        change = remedy if isinstance(remedy, str) else remedy(error)
        raise RunError(f"{text.removesuffix('.')}. {change}".rstrip()) from error


def remedy_of_a_loss(error: BaseException) -> str:
    """What to change if torch's own losses refuse the labels; empty if it is not known.

    The messages are those of torch 2: `nll_loss` on a CPU, and of its kernel for GPUs.
    """
    text = message_of(error)
    if _OUT_OF_BOUNDS.search(text):
        return (
            "A label must be a whole number from 0 to one less than the outputs of the model: number them from 0, "
            "give the model more outputs, or name the labels to leave out as ignore_index of the loss."
        )
    if _NOT_WHOLE.search(text):
        return (
            "This loss needs labels that are whole numbers: make them integers in the dataset (label.long()), or name "
            "a loss for real values, such as torch.nn.MSELoss."
        )
    return ""


@contextmanager
def enough_memory(doing: str) -> Iterator[None]:
    """
    Raises:
        RunError: copies of the parameters or of the optimizer state do not fit the memory.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OutOfMemoryError) and not _is_out_of_memory(error):
            raise
        raise RunError(
            f"out of memory while {doing}. Free memory on the device, use a larger one, or several with "
            f"training.parallel: fsdp. The allocator said: {error}"
        ) from None


def kind_of(value: object) -> str:
    """The kind of an object that the user's code built, in words."""
    module = type(value).__module__
    if module.startswith(USER_MODULE):  # a file that a config names
        module = f"{Path(sys.modules[module].__file__ or module).name}:"
    else:
        module += "."
    return f"an object of type {module}{type(value).__qualname__}"


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in message_of(error) for sign in _ALLOCATORS)


def _is_lost_rank(error: BaseException) -> bool:
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(sign in message_of(error) for sign in _GONE)


def _place(error: BaseException) -> str:
    """The last line of the user's own files that the error passed through."""
    installed = Path(torch.__file__).resolve().parent.parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(os.path.realpath(frame.filename))  # Path.resolve raises for a circle of links
        examples = _PACKAGE / "examples"
        own = path.is_relative_to(_PACKAGE) and not path.is_relative_to(examples)
        if not own and not path.is_relative_to(installed) and path.exists():
            return f" (at {frame.filename}:{frame.lineno}, in {frame.name})"
    return ""
