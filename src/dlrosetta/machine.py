"""Facts about this machine that a result must carry: what ran it, and how busy it was."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import Any

from dlrosetta import __version__


def processor(root: Path = Path("/")) -> dict[str, str]:
    """What Linux says of the first processor, by name in lower case; empty elsewhere."""
    told: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            told.setdefault(name.strip().lower(), value.strip())
    return told


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    return processor().get("model name") or platform.processor() or platform.machine()


def flags(root: Path = Path("/")) -> frozenset[str]:
    """What the processor can do, as Linux names it: avx2, asimd, …"""
    told = processor(root)
    return frozenset((told.get("flags") or told.get("features") or "").split())


def is_amd(root: Path = Path("/")) -> bool:
    """Whether AMD made the processor, where the system says so (Linux)."""
    return processor(root).get("vendor_id") == "AuthenticAMD"


def kind(root: Path = Path("/")) -> str:
    """The class of this machine, within which speeds may be compared: the processor as it numbers itself (its name says
    less: virtual machines have but "AMD EPYC"), its widest vector instructions, the cores that this process may use.
    """
    told = processor(root)
    numbers = [told[name] for name in ("cpu family", "model", "cpu implementer", "cpu part") if told.get(name)]
    named = f"{told.get('vendor_id', '')} {'-'.join(numbers)}".strip() if numbers else cpu_model()
    count = cores()
    return f"{named}, {vector(flags(root))}, {count} core{'' if count == 1 else 's'}"


def title(facts: dict[str, Any]) -> str:
    """What people read of a machine's `facts`: "AMD EPYC (25-17), 2 cores". In brackets are family and model, where its
    class has them: of an EPYC of one kind and of the next the names may be the same.
    """
    numbers = re.search(r" ?(\w+-\w+)$", facts.get("class", "").partition(",")[0])
    which = f" ({numbers[1]})" if numbers and numbers[1] not in facts["cpu"] else ""
    return f"{facts['cpu']}{which}, {facts['cores']} core{'' if facts['cores'] == 1 else 's'}"


def vector(known: frozenset[str]) -> str:
    """The widest vector instructions that a processor's flags name."""
    for name, flag in (("AVX-512", "avx512f"), ("AVX2", "avx2"), ("SVE", "sve"), ("NEON", "asimd")):
        if flag in known:
            return name
    return "SSE"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """What every framework is given: a thread a core, or fewer where ROSETTA_THREADS says so."""
    named = os.environ.get("ROSETTA_THREADS", "")
    return min(cores(), int(named)) if named.isdecimal() and int(named) else cores()


def largest_cache() -> int:
    """Bytes of the CPU's largest cache; 0 where the system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            told = path.read_text(encoding="ascii").strip()
            sizes.append(int(told[:-1]) << {"K": 10, "M": 20, "G": 30}[told[-1]])
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return max(sizes, default=0)


def facts() -> dict[str, Any]:
    """Processor, cores, memory (bytes), system, load, and GPUs where there are any. No host or user name, no uuid:
    results are meant to be shown.
    """
    import psutil

    from dlrosetta import gpus

    devices = gpus.facts()
    return {
        "cpu": cpu_model(),
        "class": kind(),
        "cores": cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "dlrosetta": __version__,
        "load": [round(value, 2) for value in os.getloadavg()],
        **({"gpus": devices} if devices else {}),
    }
