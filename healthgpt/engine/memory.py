"""Whether a request's keys and values fit into what memory is free, asked before any is taken."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> int | None:
    """Memory that tensors on a device could still take; None where the system does not tell."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    if _MEMINFO.exists():
        lines = (line.split() for line in _MEMINFO.read_text().splitlines())
        available = [int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"]
        if available:
            return available[0]
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def refuse_too_much(needed: int, what: str, device: torch.device) -> None:
    """Fails where so many bytes are not free.

    Raises:
        torch.OutOfMemoryError: on a GPU. MemoryError: on the CPU. Both name the numbers.
    """
    free = free_bytes(device)
    if free is None or needed <= free:
        return
    text = f"out of memory: {what} take {_size(needed)}, and {device} has {_size(free)} free"
    raise torch.OutOfMemoryError(text) if device.type == "cuda" else MemoryError(text)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"
