"""What the doctor looks at: processors, memory, limits, the environment, other programs, GPUs. Nothing here judges.

Whatever is read lies below `root`, and programs are found on the PATH of `environ`: a test plants both.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlrosetta.gpus import Gpu

LOOK_S = 1.0  # seconds over which other programs' work is watched


@dataclass
class Facts:
    """Everything that a cause may be found in. Bytes, seconds, cores."""

    cpu: str = ""
    amd: bool = False  # whether AMD made it
    flags: frozenset[str] = frozenset()  # instruction sets
    cores: int = 1  # of the machine
    allowed: int = 1  # that this process may use
    quota: float | None = None  # cores that a control group grants
    throttled: float | None = None  # share of periods in which it was held back
    governor: str | None = None
    too_hot: int = 0  # times that processors were slowed down for heat while the doctor looked
    memory: int = 0
    free: int = 0
    limit: int | None = None  # of memory, by a control group
    swapped: int = 0
    others: float = 0.0  # cores that other programs keep busy
    busiest: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    gpus: list[Gpu] = field(default_factory=list)
    gpu_error: str | None = None  # what nvidia-smi said, where it is there and failed
    workers: dict[str, dict[str, Any]] = field(default_factory=dict)  # by framework: version, device, threads
    rates: dict[str, dict[str, float]] = field(default_factory=dict)  # roof.RATES and step_flops_per_s, by framework
    bands: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)  # of rates: lowest, highest
    meanwhile: dict[str, float] = field(default_factory=dict)  # cores that others kept busy, by framework measured
    slow_on_cpu: dict[str, str] = field(default_factory=dict)  # by framework: why it is so everywhere
    old_mkl: list[str] = field(default_factory=list)  # frameworks with an MKL that knows processors by Intel's name
    convolves: bool = False  # whether most of the text's step is convolutions
    intensity: float = 1.0  # of the text's step, FLOP a byte
    numpy_flops: float | None = None

    def machine(self) -> dict[str, Any]:
        """What was seen, without what frameworks reached."""
        told = asdict(self)
        for measured in ("rates", "bands", "slow_on_cpu", "old_mkl", "convolves", "intensity"):
            del told[measured]
        told["flags"] = sorted(self.flags)
        return told


def look(
    environ: Mapping[str, str] = os.environ, root: Path = Path("/"), names: tuple[str, ...] = (), pause: float = LOOK_S
) -> Facts:
    """The facts of this machine. `names` are the variables of the environment that matter."""
    import psutil

    from dlrosetta import gpus, machine

    hot = _heat(root)
    busy, busiest = _others(psutil, pause)
    quota, throttled = _quota(root)
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    gpus_here, gpu_error = gpus.look(environ)
    return Facts(
        cpu=machine.cpu_model(),
        amd=machine.is_amd(root),
        flags=machine.flags(root),
        cores=os.cpu_count() or 1,
        allowed=machine.cores(),
        quota=quota,
        throttled=throttled,
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        too_hot=_heat(root) - hot,
        memory=memory.total,
        free=memory.available,
        limit=_memory_limit(root, memory.total),
        swapped=swap.used,
        others=busy,
        busiest=busiest,
        environ={name: environ[name] for name in names if name in environ},
        gpus=gpus_here,
        gpu_error=gpu_error,
    )


def numpy_flops(size: int = 1024, rounds: int = 5) -> float:
    """Products of float32 matrices in NumPy, the fastest of some rounds, in operations a second."""
    import numpy as np

    a = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds)


def has_old_mkl(environment: Path) -> bool:
    """Whether a framework's environment holds MKLML, the last of which is of 2019
    (https://github.com/oneapi-src/oneDNN/releases/tag/v0.21).
    """
    return any(environment.glob("lib/python*/site-packages/*/libs/libmklml_intel.so"))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _heat(root: Path) -> int:
    found = 0
    for path in root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"):
        with contextlib.suppress(ValueError):
            found += int(_read(path) or 0)
    return found


def _group(root: Path) -> Path:
    """The folder of this process's control group (version 2), else the topmost one."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            return root / "sys/fs/cgroup" / line[3:].lstrip("/")
    return root / "sys/fs/cgroup"


def _groups(root: Path) -> list[Path]:
    """That group and those that it lies in: a limit of any of them holds."""
    top, group = root / "sys/fs/cgroup", _group(root)
    return [group, *(parent for parent in group.parents if top in (parent, *parent.parents))]


def _quota(root: Path) -> tuple[float | None, float | None]:
    """Cores that control groups grant, and the share of periods in which the one that grants least held back."""
    least, share = None, None
    for group in _groups(root):
        told = (_read(group / "cpu.max") or "max").split()
        if told[0] == "max" or len(told) < 2:
            continue
        quota = int(told[0]) / int(told[1])
        if least is None or quota < least:
            counts = dict(line.split(None, 1) for line in (_read(group / "cpu.stat") or "").splitlines() if " " in line)
            periods = int(counts.get("nr_periods", 0))
            least, share = quota, int(counts.get("nr_throttled", 0)) / periods if periods else None
    return least, share


def _memory_limit(root: Path, total: int) -> int | None:
    found = [int(told) for group in _groups(root) if (told := _read(group / "memory.max") or "max").isdecimal()]
    least = min(found, default=total)
    return least if least < total else None


def _others(psutil: Any, pause: float) -> tuple[float, list[str]]:
    """Cores that other programs keep busy, and the names of the busiest."""
    before = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            before[process.pid] = sum(process.cpu_times()[:2])
    begin = time.monotonic()
    time.sleep(pause)
    seconds, found = time.monotonic() - begin, []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid in before and process.pid != os.getpid():
                found.append(((sum(process.cpu_times()[:2]) - before[process.pid]) / seconds, process.name()))
    found.sort(reverse=True)
    return sum(share for share, _ in found), [name for share, name in found[:3] if share > 0.1]
