"""Memory of a device: how much training could use, and the peak of what it did."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from bnoise_cli.launch import here

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMORY, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int | None:
    """Bytes that this process holds or could still get; an equal share if several run on the host. None: unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    held, free = _kibibytes(_STATUS, "VmRSS"), _kibibytes(_MEMORY, "MemAvailable")
    if held is None or free is None:
        return None
    return held + min(free, _left_in_group(free)) // here().local_size


def forget_peak(device: torch.device) -> None:
    """Let the peak begin anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        try:
            _CLEAR.write_text("5")
        except OSError:  # The kernel forbids it here: the peak stays that of the whole process.
            return


def peak_bytes(device: torch.device) -> int | None:
    """The most that was held since `forget_peak`: by torch on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _kibibytes(_STATUS, "VmHWM")


def give_back(device: torch.device) -> None:
    """Free cached memory that nothing refers to."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _kibibytes(path: Path, key: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_group(otherwise: int) -> int:
    """Bytes that the limit of the container leaves. Caches that the kernel would drop count as free."""
    try:
        limit = (_GROUP / "memory.max").read_text().strip()
        if limit == "max":
            return otherwise
        used = int((_GROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return otherwise
    return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
