"""Files that bnoise reads and writes: plain files of a bounded size in, whole files out, nothing lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from bnoise_cli import clock
from bnoise_cli.errors import CallError, RunError, reason

#: Bytes of the largest result that is read. A large sweep stores less than a megabyte.
LARGEST_RESULT = 1 << 23
#: Lists and mappings inside one another in a stored result: a result of bnoise has fewer than ten levels.
_DEEPEST = 64
#: Bytes that are read at once.
_PART = 1 << 20
#: Bytes of the largest file that is hashed whole; of a larger one this many samples of this many bytes are.
_WHOLE, _SAMPLES, SAMPLE = 1 << 26, 4096, 1 << 12
#: Seconds that a lock is waited for if its holder may be a process that is ending.
_MOMENT = 1.0


def beside(path: Path, ending: str) -> Path:
    """The file next to a result that has the result's whole name and another ending."""
    return path.with_name(path.name.removesuffix(".json") + ending)


# --- reading ------------------------------------------------------------------------------------------


def read_plain(path: Path, most: int) -> bytes:
    """Read a plain file of at most `most` bytes. Devices and pipes are refused, because they may never end.

    Raises:
        OSError: the file is missing, is not a plain file, is larger, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe must not wait for a writer
    try:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        parts, left = [], most + 1
        while left > 0 and (part := os.read(handle, min(left, _PART))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(handle)
    if left <= 0:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return b"".join(parts)


def read_json(path: Path, most: int = LARGEST_RESULT) -> Any:
    """Read a file that should hold a result.

    Raises:
        CallError: the file is missing, larger than `most` bytes, not a plain file, or not whole JSON.
    """
    try:
        data = json.loads(read_plain(path, most).decode())
    except FileNotFoundError:
        raise CallError(f"a result is needed; there is no file {path}. `bnoise probe` writes one.") from None
    except OSError as error:
        raise CallError(f"a result is needed; {path} cannot be read ({reason(error)}).") from None
    except (ValueError, RecursionError):
        data = None
    if data is None or not _is_shallow(data):
        raise CallError(
            f"a result is needed; {path} is not JSON, or torn. Make it again with `bnoise probe`."
        )
    return data


def _is_shallow(data: Any) -> bool:
    """Whether lists and mappings lie at most `_DEEPEST` deep, found without recursion."""
    level = [data]
    for _ in range(_DEEPEST):
        holders = [value for value in level if isinstance(value, dict | list)]
        if not holders:
            return True
        level = [
            item for holder in holders for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
    return False


def sampled_hash(path: Path, *, whole: int = _WHOLE, samples: int = _SAMPLES) -> str:
    """sha256 of a file's size and content; of a large file of samples at even distances, its ends included.

    A change of more than 1/`samples` of a large file without a gap is always seen.

    Args:
        whole: bytes of the largest file that is read whole.
        samples: samples of 4 KiB of a larger one, at least 2.

    Raises:
        OSError: the file is missing, is not a plain file, or cannot be read.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return _sampled_hash(str(path.absolute()), found.st_size, found.st_mtime_ns, whole, samples)


@cache
def _sampled_hash(path: str, size: int, _changed: int, whole: int, samples: int) -> str:
    """Many configs of one check may name the same file, so its hash is kept until the file changes."""
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if size <= whole:
            # Some files of /proc have no size and no end.
            digest.update(file.read(size))
            return digest.hexdigest()
        for i in range(samples):
            file.seek((size - SAMPLE) * i // (samples - 1))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def absolute(path: Path) -> Path:
    """The path from the root of the file system, as long as the current folder is the one of the call.

    Raises:
        CallError: the current folder is gone.
    """
    try:
        return Path(os.path.abspath(path))  # noqa: PTH100  Path.absolute keeps `..`
    except FileNotFoundError:
        raise CallError(
            f"{path} cannot be found: the current folder is gone. Change to another one."
        ) from None


def real(path: Path) -> Path:
    """The absolute path without links. Links that lead to one another stay: reading or writing there says so.

    Raises:
        CallError: the current folder is gone.
    """
    return Path(os.path.realpath(absolute(path)))


def require_apart(outputs: Sequence[Path], reads: Sequence[Path]) -> None:
    """
    Raises:
        CallError: an output would replace a file that is read.
    """
    written = {os.path.realpath(path) for path in outputs}
    for path in reads:
        if path.exists() and os.path.realpath(path) in written:
            raise CallError(f"an output would replace {path}, which is read. Name another file.")


# --- writing ------------------------------------------------------------------------------------------


def require_writable(path: Path) -> None:
    """Find out before measuring, not after, that a file could be written to `path`.

    Raises:
        CallError: the folder cannot be made or written, or `path` is a folder or a device.
    """
    try:
        if path.exists() and not path.is_file():
            raise CallError(f"a file is needed to write to; {path} is a folder or a device. Name a file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.stat()  # links that lead to one another
        _create_temporary(real(path))[1].unlink()
    except (OSError, ValueError, RecursionError) as error:  # a NUL in it, thousands of folders
        raise CallError(
            f"a folder that can be written is needed for {path}; {path.parent} cannot ({reason(error)}). "
            "Choose another place."
        ) from error


def write_whole(path: Path, write: Callable[[IO[bytes]], object], *, new: bool = False) -> None:
    """Write to a temporary file beside `path`, then rename it. A link is followed; the mode of a file is kept.

    Args:
        new: whether a file that is there already is an error.

    Raises:
        FileExistsError: there is a file and `new` is set.
        RunError: the file cannot be written (a full disk, say); an older file at `path` is untouched.
    """
    temporary = None
    try:
        path = real(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _create_temporary(path)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        if new:
            os.link(temporary, path)
            temporary.unlink()
        else:
            temporary.replace(path)
    except FileExistsError:
        raise
    except Exception as error:
        raise RunError(f"{path} could not be written ({reason(error)}).") from error
    finally:
        if temporary is not None:
            with suppress(Exception):
                temporary.unlink(missing_ok=True)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write plain data whole, as `write_whole`.

    Raises:
        RunError: the file cannot be written; an older file at `path` is untouched.
    """
    # A surrogate, as in the name of a file that is not UTF-8, becomes its JSON escape.
    write_whole(path, lambda file: file.write(_json_text(data).encode(errors="backslashreplace")))


def _json_text(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _create_temporary(path: Path) -> tuple[int, Path]:
    """An open file beside `path` with a hidden name that no command takes for a result."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), temporary


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[None]:
    """Hold an exclusive lock, kept in a hidden file beside `file`. It ends with the process.

    Args:
        wait: whether to wait for another process that holds it, however long. A moment is waited in any case, because a
            process that was killed may not be gone yet.

    Raises:
        CallError: another process holds it and `wait` is not set.
        OSError: the lock's file cannot be made.
    """
    import fcntl

    place = file.with_name(f".{file.name[:100]}.lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    until = clock.monotonic() + _MOMENT
    while True:
        # A pipe must not wait for a reader, and a link must not lead to another file.
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
        with os.fdopen(handle, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                if clock.monotonic() < until:
                    time.sleep(_MOMENT / 20)
                    continue
                raise CallError(
                    f"{file} is being written by another call of bnoise. Wait until it ends, or name another file with "
                    "--out."
                ) from None
            except OSError as error:  # some network file systems have no locks
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
            if not (place.exists() and place.stat().st_ino == os.fstat(lock.fileno()).st_ino):
                continue  # the process that held it has removed the file
            try:
                yield
            finally:
                place.unlink(missing_ok=True)
            return
