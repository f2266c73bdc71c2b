"""Facts about this machine that a result must carry: what ran it, and how busy it was."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from dlrosetta import __version__


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def threads() -> int:
    """Cores that this process may use: what every framework is given."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts() -> dict[str, Any]:
    """Processor, cores, memory (bytes), system, load. No host or user name: results are meant to be shown."""
    import psutil

    return {
        "cpu": cpu_model(),
        "cores": threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "dlrosetta": __version__,
        "load": [round(value, 2) for value in os.getloadavg()],
    }
