"""What makes an installation slower than it should be: each cause is a function of the facts that finds it or not.

A finding says what is wrong, what it costs where that was measured, and what to change. Nothing is guessed from a name
alone: a variable counts where its value does harm on this machine.

Slow is what lies below the band of published results of the same class of machine (bands.py). Where there is none, slow
is what a rule of thumb says that any machine, or any framework with kernels of its kind, does better by far: bounds are
so wide that half a processor, as virtual machines have it, and a cold clock raise no alarm. Nothing that was measured
while other programs were at work is called slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dlrosetta.doctor.facts import Facts
from dlrosetta.machine import vector

THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS", "PJRT_NPROC",
)  # fmt: skip
# Variables whose value switches something off: the values that do harm, what they do, what to do.
SWITCHES: dict[str, tuple[Callable[[str], bool], str]] = {}


def _is(*values: str) -> Callable[[str], bool]:
    return lambda told: told.strip().lower() in values


SWITCHES.update(
    {
        "CUDA_LAUNCH_BLOCKING": (_is("1"), "every CUDA kernel is waited for before the next is launched"),
        "TF_CUDNN_USE_AUTOTUNE": (_is("0", "false"), "cuDNN's autotuning is off: convolutions take its first guess"),
        "MXNET_CUDNN_AUTOTUNE_DEFAULT": (_is("0"), "cuDNN's autotuning is off in MXNet"),
        "MXNET_ENGINE_TYPE": (_is("naiveengine"), "MXNet waits for each operation before the next"),
        "TF_DETERMINISTIC_OPS": (_is("1", "true"), "TensorFlow takes deterministic kernels, which are the slower ones"),
        "NVIDIA_TF32_OVERRIDE": (
            _is("0"),
            "TF32 is off on the device: float32 products take no tensor cores",
        ),
        "JAX_DISABLE_JIT": (_is("1", "true"), "JAX compiles nothing"),
        "JAX_DEBUG_NANS": (_is("1", "true"), "JAX waits for every result and looks for NaNs in it"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": (_is("1", "true"), "XLA leaves out most of its optimizations"),
        "TORCHDYNAMO_DISABLE": (_is("1", "true"), "torch.compile does nothing"),
        "TF_ENABLE_ONEDNN_OPTS": (_is("0", "false"), "TensorFlow runs without oneDNN's kernels"),
        "TF_DISABLE_MKL": (_is("1", "true"), "TensorFlow runs without oneDNN's kernels"),
        "XLA_FLAGS": (
            lambda told: "xla_gpu_autotune_level=0" in told or "xla_backend_optimization_level=0" in told,
            "XLA's autotuning or optimizer is off",
        ),
    }
)
# OpenBLAS's kernels by processor: with neither AVX2 nor AVX-512, and with AVX2.
OLD_CORES: dict[str, int] = {
    **dict.fromkeys(
        ("katmai", "coppermine", "northwood", "prescott", "banias", "core2", "penryn", "dunnington", "nehalem",
         "athlon", "opteron", "opteron_sse3", "barcelona", "bobcat", "atom", "sandybridge", "bulldozer", "piledriver",
         "steamroller"), 0,
    ),
    **dict.fromkeys(("haswell", "excavator", "zen"), 1),
}  # fmt: skip
# Variables that cap which vector instructions a library uses: the values that are no cap, by CPU flag.
CAPS: dict[str, Callable[[str, frozenset[str]], bool]] = {
    "ATEN_CPU_CAPABILITY": lambda told, flags: _below(told, flags, {"default": 0, "avx2": 1, "avx512": 2}),
    "ONEDNN_MAX_CPU_ISA": lambda told, flags: _below(told, flags, {"sse41": 0, "avx": 0, "avx2": 1}),
    "DNNL_MAX_CPU_ISA": lambda told, flags: _below(told, flags, {"sse41": 0, "avx": 0, "avx2": 1}),
    "OPENBLAS_CORETYPE": lambda told, flags: _below(told, flags, OLD_CORES),
    "MKL_ENABLE_INSTRUCTIONS": lambda told, flags: _below(told, flags, {"sse4_2": 0, "avx": 0, "avx2": 1}),
}
OLD_MKL = "MKL_DEBUG_CPU_TYPE"  # 5: AVX2, whoever made the processor
NAMES = (*THREADS, *SWITCHES, *CAPS, OLD_MKL, "CUDA_VISIBLE_DEVICES", "NPY_DISABLE_CPU_FEATURES")

BELOW = 0.7  # of the lowest that results of this class of machine have
BELOW_ONE = 0.5  # where there is but one, which says nothing of how far they lie apart
SLOW = 0.5  # share of the best framework's rate below which a product is said to be slow
CONVOLVES = 0.15  # of a framework's own product: a convolution is a product of patches
STEPS = 0.05  # of what products and copies allow: the train step of a text of convolutions
# What a core does at least, FLOP/s: a fourth of two fused multiply-adds a cycle at 2 GHz (of SSE, one), which leaves
# room for a thread that has half a core.
OF_A_CORE = {"AVX-512": 16e9, "AVX2": 16e9, "SVE": 8e9, "NEON": 8e9, "SSE": 4e9}
COPIES = 2e9  # bytes a second, read and written: DDR3 of one channel does five times that
NUMPY_SLOW = 0.25  # NumPy's OpenBLAS is no framework, and is often somewhat slower
MANY_OTHERS = 0.25  # of a core
NEARLY_FULL = 0.9
HELD_BACK = 0.05  # share of periods


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `cause` is a short name that does not change."""

    cause: str
    wrong: str
    change: str

    def document(self) -> dict[str, Any]:
        return asdict(self)


def diagnose(facts: Facts) -> list[Finding]:
    """Everything that is wrong, in the order of `CAUSES`."""
    return [finding for cause in CAUSES for finding in cause(facts)]


def usable(facts: Facts) -> float:
    """Cores that a program here can use at most."""
    return min(facts.allowed, facts.quota or facts.allowed)


# -- processors --------------------------------------------------------------------------------------------------------


def few_cores(facts: Facts) -> Iterator[Finding]:
    if facts.allowed < facts.cores:
        wrong = f"this process may use {facts.allowed} of {facts.cores} cores, by taskset, container or batch system"
        yield Finding("affinity", wrong, "ask for more cores, or start it without taskset")
    if facts.quota is not None and facts.quota < facts.allowed:
        wrong = f"a control group grants {facts.quota:g} of the {facts.allowed} cores"
        held = "" if facts.throttled is None else f", and held it back in {facts.throttled:.0%} of its periods"
        change = f"raise the limit (docker run --cpus, a pod's cpu limit), or use {max(1, int(facts.quota))} threads"
        yield Finding("quota", wrong + held, change)


def threads(facts: Facts) -> Iterator[Finding]:
    """Set to fewer than there are cores, or to more; and workers whose framework says so itself."""
    cores = usable(facts)
    for name in THREADS:
        told = facts.environ.get(name, "").split(",")[0].strip()
        if not told.isdecimal() or int(told) == 0:
            continue
        count = int(told)
        if count < int(cores):
            wrong = f"{name}={count} leaves {int(cores) - count} of {int(cores)} cores idle in programs from here"
            yield Finding("few threads", wrong, f"unset {name}, or set it to {int(cores)}")
        elif count > max(1, round(cores)):
            wrong = f"{name}={count} starts more threads than the {cores:g} cores can run: they wait for each other"
            yield Finding("many threads", wrong, f"unset {name}, or set it to {max(1, int(cores))}")
    for slug, worker in sorted(facts.workers.items()):
        used = worker.get("threads")
        if isinstance(used, int) and used > max(1, round(cores)):
            wrong = f"{slug} uses {used} threads for {cores:g} cores: they wait for each other"
            yield Finding("many threads", wrong, f"ROSETTA_THREADS={max(1, int(cores))}")


def instructions(facts: Facts) -> Iterator[Finding]:
    """A library told to leave vector instructions that the processor has, or a processor without them."""
    for name, capped in CAPS.items():
        told = facts.environ.get(name, "")
        if told and capped(told, facts.flags):
            wrong = f"{name}={told} keeps a library from what this processor has: {vector(facts.flags)}"
            yield Finding("no vector code", wrong, f"unset {name}")
    if facts.environ.get("NPY_DISABLE_CPU_FEATURES"):
        wrong = f"NPY_DISABLE_CPU_FEATURES={facts.environ['NPY_DISABLE_CPU_FEATURES']} takes vector code out of NumPy"
        yield Finding("no vector code", wrong, "unset NPY_DISABLE_CPU_FEATURES")
    if facts.flags and facts.cpu and "fpu" in facts.flags and "avx2" not in facts.flags:
        wrong = "this processor, or the virtual machine around it, offers no AVX2: most wheels' fast kernels cannot run"
        yield Finding("no AVX2", wrong, "let the virtual machine pass the processor's own features on (-cpu host)")
    best = max(facts.rates.get("flops_per_s", {}).values(), default=None)
    quiet = facts.others <= MANY_OTHERS
    if best and quiet and facts.numpy_flops and facts.numpy_flops < NUMPY_SLOW * best:
        wrong = f"NumPy multiplies at {facts.numpy_flops / best:.0%} of the best framework's rate: not the right BLAS"
        change = "see numpy.show_config(); install NumPy's wheel with OpenBLAS, and unset what caps or starves it"
        yield Finding("slow BLAS", wrong, change)


def old_mkl(facts: Facts) -> Iterator[Finding]:
    """MKL of before 2020 asks who made the processor, and gives AMD's its slowest code. Workers are given the variable
    (`amd_env` of framework.toml); a user's own programs are not.
    """
    if not facts.amd or "avx2" not in facts.flags or facts.environ.get(OLD_MKL) == "5":
        return
    for slug in facts.old_mkl:
        wrong = (
            f"{slug} brings an MKL of 2019, which gives AMD's processors its slowest code, though not in workers here"
        )
        yield Finding("old MKL", wrong, f"export {OLD_MKL}=5, which lets it use AVX2")


def clocks(facts: Facts) -> Iterator[Finding]:
    if facts.governor == "powersave" and "intel" not in facts.cpu.lower():
        # Intel's own driver scales under that name too.
        yield Finding("powersave", "the frequency governor is powersave", "sudo cpupower frequency-set -g performance")
    if facts.too_hot:
        wrong = f"processors were slowed down for heat {facts.too_hot} times while this looked"
        yield Finding("heat", wrong, "cool it, or let it rest; compare nothing meanwhile")


def others(facts: Facts) -> Iterator[Finding]:
    busy = max([facts.others, *facts.meanwhile.values()])
    if busy > MANY_OTHERS:
        names = f" ({', '.join(facts.busiest)})" if facts.busiest else ""
        wrong = f"other programs keep {busy:.1f} cores busy{names}: what was measured beside them says little"
        yield Finding("others", wrong, "wait for them or end them; a comparison beside them says so itself")


# -- memory ------------------------------------------------------------------------------------------------------------


def memory(facts: Facts) -> Iterator[Finding]:
    if facts.memory and facts.free < (1 - NEARLY_FULL) * facts.memory:
        wrong = f"{facts.free / 2**30:.1f} of {facts.memory / 2**30:.0f} GB of memory are free"
        yield Finding("memory", wrong, "end what holds it: swapping is thousands of times slower")
    if facts.limit is not None and facts.limit < 4 * 2**30:
        wrong = f"a control group grants {facts.limit / 2**30:.1f} GB of memory"
        yield Finding("memory limit", wrong, "raise the limit (docker run --memory): full-size texts take up to 6 GB")


# -- frameworks --------------------------------------------------------------------------------------------------------


def slow_machine(facts: Facts) -> Iterator[Finding]:
    """What no framework reaches, the machine does not do, or none of them is built for it."""
    if any(_device(facts, slug) != "cpu" for slug in facts.workers):
        return  # of other devices no rule of thumb is known here
    products, copies = facts.rates.get("flops_per_s", {}), facts.rates.get("bytes_per_s", {})
    least = OF_A_CORE[vector(facts.flags)] * usable(facts)
    fastest = _fastest(products) if products else ""
    known = [slug for slug in products if slug not in facts.slow_on_cpu]
    if known and not _disturbed(facts, fastest) and products[fastest] < least:
        wrong = (
            f"no framework multiplies matrices at more than {products[fastest] / 1e9:.3g} GFLOP/s; {usable(facts):g} "
        )
        wrong += f"cores with {vector(facts.flags)} do {least / 1e9:.0f} at least"
        yield Finding("slow machine", wrong, "look for limits of power or time (cgroups, a busy host), and at clocks")
    if copies and not _disturbed(facts, _fastest(copies)) and max(copies.values()) < COPIES:
        wrong = f"no framework copies memory at more than {max(copies.values()) / 1e9:.2g} GB/s"
        yield Finding("slow memory", wrong, "is the memory of another node, swapped, or another program's too?")


def slow_frameworks(facts: Facts) -> Iterator[Finding]:
    """Below the band of its class of machine, or of what it should do beside the others and beside its own product: a
    build without vector code, too few threads, a debug build, another layout or algorithm of convolutions.
    """
    for kind, (cause, does, change) in SLOWLY.items():
        rates = facts.rates.get(kind, {})
        for slug, rate in sorted(rates.items()):
            if _disturbed(facts, slug):
                continue
            band = facts.bands.get(kind, {}).get(slug)
            if band is None:
                wrong = _unexpected(facts, kind, slug)
            elif rate < (BELOW if band[0] < band[1] else BELOW_ONE) * band[0]:
                wrong = f"at {rate / band[0]:.0%} of the lowest that results of this class of machine have"
            else:
                continue
            if wrong:
                yield Finding(cause, f"{slug} {does} {wrong}", change)


def _unexpected(facts: Facts, kind: str, slug: str) -> str | None:
    """What is physically unexpected of a rate, where it is."""
    rate, products = facts.rates[kind][slug], facts.rates.get("flops_per_s", {})
    if kind == "flops_per_s":
        best = _fastest(products)
        if rate < SLOW * products[best] and slug not in facts.slow_on_cpu and not _disturbed(facts, best):
            return f"at {rate / products[best]:.0%} of what {best} reaches on this device"
    elif kind == "convolution_flops_per_s":
        if slug in products and rate < CONVOLVES * products[slug] and slug not in facts.slow_on_cpu:
            return f"at {rate / products[slug]:.0%} of the rate of its own matrix product"
    elif kind == "step_flops_per_s" and slug in products and facts.convolves and slug not in facts.slow_on_cpu:
        allowed = min(products[slug], facts.rates["bytes_per_s"][slug] * facts.intensity)
        if rate < STEPS * allowed:
            return f"at {rate / allowed:.1%} of what its own products and copies allow"
    return None


# OpenBLAS takes an Intel processor that is younger than itself for one without AVX2; gluon's doubled its rate so.
BUILD = (
    "look at its build (no AVX, debug, another BLAS?), its threads, and what it says at its import; where it brings an "
    "old OpenBLAS, set OPENBLAS_CORETYPE=SkylakeX (AVX-512) or Haswell (AVX2)"
)
SLOWLY = {
    "flops_per_s": ("slow product", "multiplies matrices", BUILD),
    "bytes_per_s": (
        "slow copy",
        "copies memory",
        "look at its allocator, at huge pages, and at what it says at its import",
    ),
    "convolution_flops_per_s": (
        "slow convolution",
        "convolves",
        "look at its layout of images, its autotuning, and whether its library for them (oneDNN, cuDNN) is used",
    ),
    "step_flops_per_s": (
        "slow step",
        "takes train steps",
        "profile it: is it compiled, in the right layout, waiting for each operation?",
    ),
}


def _disturbed(facts: Facts, slug: str) -> bool:
    return facts.meanwhile.get(slug, 0.0) > MANY_OTHERS


def _device(facts: Facts, slug: str) -> str:
    return str(facts.workers[slug].get("device") or "cpu").lower().split(":")[0]


# -- GPUs --------------------------------------------------------------------------------------------------------------


def unused_gpu(facts: Facts) -> Iterator[Finding]:
    if facts.gpus and facts.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        wrong = f"CUDA_VISIBLE_DEVICES hides {_gpus(facts)} from every program"
        yield Finding("hidden GPU", wrong, "unset CUDA_VISIBLE_DEVICES")
        return
    for slug, worker in sorted(facts.workers.items()):
        if facts.gpus and str(worker.get("device", "")).lower().startswith("cpu"):
            wrong = (
                f"{_gpus(facts)} is here, but {slug} {worker.get('version', '')} runs on the CPU: a build without CUDA"
            )
            yield Finding("CPU build", wrong, f"rosetta env remove {slug}, then install the CUDA build")


def broken_gpu(facts: Facts) -> Iterator[Finding]:
    if facts.gpu_error:
        wrong = f"nvidia-smi fails: {facts.gpu_error}"
        yield Finding("driver", wrong, "mend the driver; after an update of it, reboot")


def undivided_gpu(facts: Facts) -> Iterator[Finding]:
    """MIG is on and has made nothing: what no program can use."""
    for number, gpu in enumerate(facts.gpus):
        if gpu.mig and not gpu.instances:
            wrong = f"GPU {number} ({gpu.name}) is in MIG mode and has no instances: no program sees it"
            change = f"sudo nvidia-smi mig -i {number} -cgi PROFILE -C, or -mig 0; -lgip lists the profiles"
            yield Finding("MIG", wrong, change)


def hindered_gpu(facts: Facts) -> Iterator[Finding]:
    for number, gpu in enumerate(facts.gpus):
        name = f"GPU {number} ({gpu.name})"
        if gpu.busy is not None and gpu.busy > MANY_OTHERS:
            yield Finding(
                "GPU in use", f"{name} is {gpu.busy:.0%} busy with other programs", "wait, or take another device"
            )
        if gpu.memory and gpu.used is not None and gpu.used > NEARLY_FULL * gpu.memory:
            wrong = f"{name} has {(gpu.memory - gpu.used) / 2**30:.1f} of {gpu.memory / 2**30:.0f} GB free"
            yield Finding("GPU memory", wrong, "end the programs that hold it (nvidia-smi names them)")
        if gpu.too_hot:
            yield Finding("GPU heat", f"{name} is slowed down for heat", "cool it; compare nothing meanwhile")
        for one in gpu.instances:
            if one.memory and one.used is not None and one.used > NEARLY_FULL * one.memory:
                free = f"{(one.memory - one.used) / 2**30:.1f} of {one.memory / 2**30:.0f} GB free"
                wrong = f"instance {one.index} of {name} has {free}"
                yield Finding("GPU memory", wrong, "end the programs that hold it (nvidia-smi names them)")


def switches(facts: Facts) -> Iterator[Finding]:
    """Variables that switch something off. What concerns GPUs alone is told only where there is one."""
    for name, (harmful, what) in SWITCHES.items():
        told = facts.environ.get(name)
        if told is None or not harmful(told) or (name in OF_GPUS and not facts.gpus):
            continue
        yield Finding("switched off", f"{name}={told}: {what}", f"unset {name}")


OF_GPUS = {"CUDA_LAUNCH_BLOCKING", "TF_CUDNN_USE_AUTOTUNE", "MXNET_CUDNN_AUTOTUNE_DEFAULT", "NVIDIA_TF32_OVERRIDE"}

CAUSES = (
    few_cores, threads, instructions, old_mkl, clocks, others, memory, slow_machine, slow_frameworks, unused_gpu,
    broken_gpu, undivided_gpu, hindered_gpu, switches,
)  # fmt: skip


def _level(flags: frozenset[str]) -> int:
    return 2 if "avx512f" in flags else 1 if "avx2" in flags else 0


def _below(told: str, flags: frozenset[str], levels: dict[str, int]) -> bool:
    return levels.get(told.strip().lower(), 9) < _level(flags)


def _fastest(rates: dict[str, float]) -> str:
    return max(rates, key=lambda slug: rates[slug])


def _gpus(facts: Facts) -> str:
    names = [gpu.name for gpu in facts.gpus]
    return names[0] if len(names) == 1 else f"{len(names)} × {names[0]}"
