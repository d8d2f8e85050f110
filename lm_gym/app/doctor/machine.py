"""The devices that a model can run on, with their memory in bytes."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["devices"]


def devices() -> list[dict[str, Any]]:
    """CPU and accelerators: kind, name, memory in bytes (None where the system does not tell)."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: list[dict[str, Any]] = [
        {
            "device": "cpu",
            "name": _processor(),
            "cores": usable,
            "threads": torch.get_num_threads(),
            "memory": _pages("SC_PHYS_PAGES"),
            "free": _available(),
        }
    ]
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        found.append({"device": f"cuda:{number}", "name": name, "memory": total, "free": free})
    if torch.backends.mps.is_available():
        memory = torch.mps.recommended_max_memory()
        found.append({"device": "mps", "name": "Apple GPU", "memory": memory, "free": None})
    return found


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _pages(name: str) -> int | None:
    try:
        return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def _available() -> int | None:
    """Memory that can be had without swapping, as Linux counts it."""
    path = Path("/proc/meminfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return 1024 * int(found[0]) if found else _pages("SC_AVPHYS_PAGES")
