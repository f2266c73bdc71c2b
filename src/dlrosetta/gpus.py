"""Which NVIDIA GPUs are here, as `nvidia-smi` tells, and which of them a comparison is to use.

`nvidia-smi -q -x` names what it knows and leaves out what it does not, from one driver to the next; of instances that
MIG makes of a device it has the memory, and `nvidia-smi -L` their profiles and uuids. A device is chosen by
CUDA_VISIBLE_DEVICES, which every framework heeds: what it sees is then the first and only one.
https://docs.nvidia.com/datacenter/tesla/mig-user-guide/
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from dlrosetta.errors import UsageError

PATIENCE = 30  # seconds: a driver that hangs is a driver that is broken
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}
LISTED_GPU = re.compile(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)")
LISTED_INSTANCE = re.compile(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[^)]+)\)")
KINDS = "cpu, cuda, cuda:1, or the uuid of a GPU or MIG instance"


@dataclass(frozen=True)
class Instance:
    """A part of a device that MIG gives to a program as if it were one; memory in bytes, None where it is not told."""

    index: int
    memory: int | None
    used: int | None
    profile: str | None = None  # "1g.10gb"
    uuid: str | None = None


@dataclass(frozen=True)
class Gpu:
    """One device; memory in bytes, clocks in MHz, None where `nvidia-smi` does not say."""

    name: str
    driver: str
    memory: int | None
    used: int | None
    busy: float | None  # share of the time
    clock: float | None
    most_clock: float | None
    too_hot: bool
    capped: bool  # by its power limit
    mig: bool
    uuid: str | None = None
    instances: tuple[Instance, ...] = ()


def look(environ: Mapping[str, str] = os.environ) -> tuple[list[Gpu], str | None]:
    """The devices here, and what `nvidia-smi` says where it is there and fails."""
    program = shutil.which("nvidia-smi", path=environ.get("PATH", os.defpath))
    if program is None:
        return [], None
    told, error = _run([program, "-q", "-x"])
    if error is not None:
        return [], error
    try:
        found = parse(told)
    except ElementTree.ParseError:
        return [], _first(told)
    if any(gpu.mig for gpu in found):
        found = named(found, _run([program, "-L"])[0])
    return found, None


def _run(command: list[str]) -> tuple[str, str | None]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    return done.stdout, None if done.returncode == 0 else _first(done.stdout + done.stderr)


def _first(told: str) -> str:
    return next((line.strip() for line in told.splitlines() if line.strip()), "failed")


def parse(told: str) -> list[Gpu]:
    """Devices from `nvidia-smi -q -x`. Raises xml's ParseError for what is none."""
    log = ElementTree.fromstring(told)
    return [_gpu(one, _word(log, "driver_version")) for one in log.iter("gpu")]


def _gpu(one: ElementTree.Element, driver: str) -> Gpu:
    def active(reason: str) -> bool:
        kinds = ("event", "throttle")  # the name of drivers before 535
        return any(_word(one, f"clocks_{kind}_reasons/clocks_{kind}_reason_{reason}") == "Active" for kind in kinds)

    busy = _number(one, "utilization/gpu_util")
    return Gpu(
        name=_word(one, "product_name"),
        driver=driver,
        memory=_bytes(one, "fb_memory_usage/total"),
        used=_bytes(one, "fb_memory_usage/used"),
        busy=None if busy is None else busy / 100,
        clock=_number(one, "clocks/sm_clock"),
        most_clock=_number(one, "max_clocks/sm_clock"),
        too_hot=active("hw_thermal_slowdown"),
        capped=active("sw_power_cap"),
        mig=_word(one, "mig_mode/current_mig") == "Enabled",
        uuid=_word(one, "uuid") or None,
        instances=tuple(
            Instance(
                int(_word(each, "index")), _bytes(each, "fb_memory_usage/total"), _bytes(each, "fb_memory_usage/used")
            )
            for each in one.iterfind("mig_devices/mig_device")
        ),
    )


def _word(one: ElementTree.Element, path: str) -> str:
    return (one.findtext(path) or "").strip()


def _number(one: ElementTree.Element, path: str) -> float | None:
    """Of "97 %", "1410 MHz", "81559 MiB"; None of "N/A" and of what is not there."""
    found = re.match(r"\d+(\.\d+)?", _word(one, path))
    return float(found[0]) if found else None


def _bytes(one: ElementTree.Element, path: str) -> int | None:
    found = _number(one, path)
    return None if found is None else int(found * 2**20)


def named(gpus: Sequence[Gpu], listed: str) -> list[Gpu]:
    """The devices, their instances with the profiles and uuids that `nvidia-smi -L` lists."""
    known: dict[tuple[str, int], tuple[str, str]] = {}
    uuid = ""
    for line in listed.splitlines():
        if found := LISTED_GPU.match(line):
            uuid = found[1]
        elif found := LISTED_INSTANCE.match(line):
            known[uuid, int(found[2])] = (found[1], found[3])

    def told(gpu: Gpu, one: Instance) -> Instance:
        profile, uuid = known.get((gpu.uuid or "", one.index), (None, None))
        return replace(one, profile=profile, uuid=uuid)

    return [replace(gpu, instances=tuple(told(gpu, one) for one in gpu.instances)) for gpu in gpus]


def facts() -> list[dict[str, Any]]:
    """What a result says of the devices here: their uuids, which tell one machine from all others, it does not."""
    return [
        {
            "name": gpu.name,
            "memory_bytes": gpu.memory,
            "driver": gpu.driver,
            "mig": [one.profile for one in gpu.instances] if gpu.mig else None,
        }
        for gpu in look()[0]
    ]


# -- choosing one ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A device that was asked for: `title` is what a result calls it, `environ` what makes workers see it alone."""

    title: str
    environ: dict[str, str]

    @property
    def gpu(self) -> bool:
        return self.environ != HIDDEN


def choose(name: str, environ: Mapping[str, str] = os.environ) -> Choice:
    """The device that `--device` names: "cpu"; "cuda:1", the second of those that are visible here ("cuda" the first),
    in the order of nvidia-smi; or the uuid of a device or MIG instance. Raises UsageError where there is none such.
    """
    if name == "cpu":
        return Choice("cpu", dict(HIDDEN))
    number = re.fullmatch(r"cuda(?::(\d+))?", name)
    if not number and not name.startswith(("GPU-", "MIG-")):
        raise UsageError(f"Expected --device {KINDS}. Received: {name!r}.", "rosetta doctor")
    known = _choices(look(environ)[0])
    if number:
        return _numbered(int(number[1] or 0), name, known, environ)
    fitting = [one for uuid, one in known.items() if uuid.startswith(name)]  # so much of a uuid as CUDA takes
    if len(fitting) != 1:
        raise UsageError(f"Expected --device with the uuid of {_listed(known)}. Received: {name!r}.", "rosetta doctor")
    return _whole(fitting[0], name)


def in_sight(environ: Mapping[str, str] = os.environ) -> str:
    """What programs that are started here run on unless told otherwise: the title of the first GPU, or "cpu"."""
    return _in_sight(environ.get("PATH", os.defpath), environ.get("CUDA_VISIBLE_DEVICES"))


@lru_cache
def _in_sight(path: str, visible: str | None) -> str:
    environ = {"PATH": path, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}
    here = look(environ)[0]
    if not here or (visible is not None and visible.strip() in ("", "-1")):
        return "cpu"
    try:
        return _numbered(0, "cuda", _choices(here), environ).title
    except UsageError:  # divided by MIG: CUDA takes the first instance of all
        return here[0].name


def _choices(gpus: Sequence[Gpu]) -> dict[str, Choice]:
    """By uuid: whole devices, and instances. One that MIG divides is no choice by itself: programs see none of it."""
    found = {}
    for gpu in gpus:
        if gpu.uuid:
            found[gpu.uuid] = Choice(gpu.name, {} if gpu.mig else {"CUDA_VISIBLE_DEVICES": gpu.uuid})
        for one in gpu.instances:
            if one.uuid:
                found[one.uuid] = Choice(f"{gpu.name}, MIG {one.profile}", {"CUDA_VISIBLE_DEVICES": one.uuid})
    return found


def _numbered(number: int, name: str, known: dict[str, Choice], environ: Mapping[str, str]) -> Choice:
    """Of those that CUDA_VISIBLE_DEVICES names, by whoever set it; else of all devices."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    devices = [uuid for uuid in known if uuid.startswith("GPU-")]
    entries = devices if visible is None else [entry.strip() for entry in visible.split(",") if entry.strip()]
    if "-1" in entries:
        entries = entries[: entries.index("-1")]  # CUDA reads no further
    if number >= len(entries):
        where = "nvidia-smi finds" if visible is None else f"CUDA_VISIBLE_DEVICES={visible} leaves"
        wanted = f"below cuda:{len(entries)}" if entries else "cpu"
        told = f"Expected --device {wanted}: {where} {len(entries) or 'no'} GPU{'s' * (len(entries) != 1)}."
        raise UsageError(f"{told} Received: {name}.", "rosetta doctor")
    entry = entries[number]
    fitting = [one for uuid, one in known.items() if uuid.startswith(entry)]
    if len(fitting) == 1:
        return _whole(fitting[0], name)
    # By a number, in an order that CUDA_DEVICE_ORDER decides: which one it is can be told where all are alike.
    titles = {known[uuid].title for uuid in devices}
    return Choice(titles.pop() if len(titles) == 1 else name, {"CUDA_VISIBLE_DEVICES": entry})


def _whole(choice: Choice, name: str) -> Choice:
    if not choice.environ:
        raise UsageError(f"Expected an instance: {choice.title} is divided by MIG. Received: {name}.", "rosetta doctor")
    return choice


def _listed(known: dict[str, Choice]) -> str:
    told = [f"{uuid} ({one.title})" for uuid, one in known.items() if one.environ]
    return "one of " + ", ".join(told) if told else "a GPU, of which nvidia-smi finds none"
