"""Each cause is planted and named; a healthy machine gets no false alarm."""

import json
import os
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import planted
import planted_results
import pytest
from test_roof import asleep
from test_schemas import schema

from dlrosetta import machine, roof
from dlrosetta.doctor import causes, facts, visit
from dlrosetta.doctor import shown as shown_by
from dlrosetta.doctor.facts import Facts
from dlrosetta.gpus import Gpu, Instance

AVX512 = frozenset({"fpu", "sse4_2", "avx", "avx2", "fma", "avx512f"})
GB = 2**30
H100 = Gpu("NVIDIA H100", "580.65", 80 * GB, 1 * GB, 0.0, 1980.0, 1980.0, False, False, False)
DIVIDED = replace(H100, mig=True, instances=(Instance(0, 10 * GB, 0), Instance(1, 10 * GB, 10 * GB - GB // 2)))
RECORDED = Path(__file__).parent / "recorded"
HEALTHY = Facts(
    cpu="Some CPU", flags=AVX512, cores=8, allowed=8, memory=64 * GB, free=50 * GB,
    workers={"torch": {"version": "2.13.0", "device": "cpu", "threads": 8}},
    rates={
        "flops_per_s": {"torch": 1e12, "flax": 0.9e12}, "bytes_per_s": {"torch": 2e10, "flax": 1.5e10},
        "convolution_flops_per_s": {"torch": 0.7e12, "flax": 0.4e12},
        "step_flops_per_s": {"torch": 0.4e12, "flax": 0.3e12},
    },
    convolves=True, intensity=100.0, numpy_flops=0.8e12,
)  # fmt: skip
# Bands of its class: what is within is healthy, however slow beside the others.
BANDS = {
    "flops_per_s": {"mlx": (2e9, 3e9), "torch": (0.9e12, 1.1e12)}, "bytes_per_s": {"torch": (1.8e10, 2.2e10)},
    "convolution_flops_per_s": {"torch": (0.6e12, 0.8e12)}, "step_flops_per_s": {"torch": (0.35e12, 0.5e12)},
}  # fmt: skip
BANDED = replace(HEALTHY, bands=BANDS)
WITH_GPU = replace(HEALTHY, gpus=[H100], workers={"torch": {"version": "2.13.0", "device": "cuda:0", "threads": 8}})


def but(rate, **values):
    """The healthy rates, but these of one kind."""
    return {"rates": {**HEALTHY.rates, rate: {**HEALTHY.rates[rate], **values}}}


# Half a core a thread, a cold clock; a framework that is slow everywhere; one that is as slow as its band.
WEAK = replace(HEALTHY, numpy_flops=1e11, rates={"flops_per_s": {"torch": 1.4e11}, "bytes_per_s": {"torch": 4e9}})
OWN_KERNELS = replace(HEALTHY, slow_on_cpu={"tinygrad": "its own kernels"}, **but("flops_per_s", tinygrad=2e9))
ONE = replace(HEALTHY, bands={"flops_per_s": {"torch": (1e12, 1e12)}})  # a single result
AS_ONE = replace(ONE, **but("flops_per_s", torch=0.6e12))
AS_EVER = replace(BANDED, **but("flops_per_s", mlx=2e9, torch=0.7e12))
GRU = replace(HEALTHY, convolves=False, **but("step_flops_per_s", torch=1e9))  # small products: no rule knows its step
INTELS = replace(HEALTHY, cpu="Intel(R) Xeon(R)", old_mkl=["paddle"])  # whose own code it is
CURED = replace(HEALTHY, amd=True, old_mkl=["paddle"], environ={"MKL_DEBUG_CPU_TYPE": "5"})
HEALTHY_ONES = {
    "cpu": HEALTHY, "gpu": WITH_GPU, "nothing known": Facts(), "weak": WEAK, "own kernels": OWN_KERNELS, "gru": GRU,
    "banded": BANDED, "as ever": AS_EVER, "Intel's": INTELS, "cured": CURED, "as one": AS_ONE,
}  # fmt: skip


@pytest.mark.parametrize("healthy", HEALTHY_ONES.values(), ids=HEALTHY_ONES)
def test_a_healthy_machine_gets_no_false_alarm(healthy):
    assert causes.diagnose(healthy) == []


@pytest.mark.parametrize(
    "environ",
    [
        {"OMP_NUM_THREADS": "8"},
        {"OMP_NUM_THREADS": "8,2"},
        {"OMP_NUM_THREADS": ""},
        {"OMP_NUM_THREADS": "all"},
        {"ATEN_CPU_CAPABILITY": "avx512"},
        {"OPENBLAS_CORETYPE": "SkylakeX"},
        {"CUDA_LAUNCH_BLOCKING": "1"},  # without a GPU
        {"TF_DETERMINISTIC_OPS": "0", "JAX_DISABLE_JIT": "false", "XLA_FLAGS": "--xla_dump_to=x"},
    ],
)
def test_harmless_values_are_no_cause(environ):
    assert causes.diagnose(replace(HEALTHY, environ=environ)) == []


PLANTED = [
    ("affinity", HEALTHY, {"allowed": 1, "workers": {}}, "1 of 8 cores"),
    (
        "quota",
        HEALTHY,
        {"quota": 1.5, "throttled": 0.4, "workers": {}},
        "grants 1.5 of the 8 cores, and held it back in 40%",
    ),
    ("few threads", HEALTHY, {"environ": {"OMP_NUM_THREADS": "1"}}, "OMP_NUM_THREADS=1 leaves 7 of 8 cores idle"),
    ("few threads", HEALTHY, {"environ": {"TF_NUM_INTRAOP_THREADS": "2"}}, "leaves 6 of 8"),
    ("many threads", HEALTHY, {"environ": {"MKL_NUM_THREADS": "64"}}, "more threads than the 8 cores can run"),
    ("many threads", HEALTHY, {"workers": {"torch": {"threads": 32}}}, "torch uses 32 threads for 8 cores"),
    ("no vector code", HEALTHY, {"environ": {"ATEN_CPU_CAPABILITY": "default"}}, "AVX-512"),
    ("no vector code", HEALTHY, {"environ": {"OPENBLAS_CORETYPE": "Nehalem"}}, "OPENBLAS_CORETYPE=Nehalem"),
    ("no vector code", HEALTHY, {"environ": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}, "ONEDNN_MAX_CPU_ISA=AVX2"),
    ("no vector code", HEALTHY, {"environ": {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"}}, "out of NumPy"),
    ("no AVX2", HEALTHY, {"flags": frozenset({"fpu", "sse4_2"})}, "offers no AVX2"),
    ("slow BLAS", HEALTHY, {"numpy_flops": 1e10}, "NumPy multiplies at 1%"),
    ("old MKL", HEALTHY, {"amd": True, "old_mkl": ["paddle"]}, "paddle brings an MKL of 2019"),
    ("powersave", HEALTHY, {"governor": "powersave"}, "powersave"),
    ("heat", HEALTHY, {"too_hot": 3}, "for heat 3 times"),
    ("others", HEALTHY, {"others": 2.5, "busiest": ["cc1plus"]}, "2.5 cores busy (cc1plus)"),
    ("memory", HEALTHY, {"free": 1 * GB}, "1.0 of 64 GB"),
    ("memory limit", HEALTHY, {"limit": 2 * GB}, "grants 2.0 GB"),
    ("slow product", HEALTHY, but("flops_per_s", torch=1e11, flax=1e12), "torch multiplies matrices at 10% of what fl"),
    ("slow product", BANDED, but("flops_per_s", torch=0.6e12), "at 67% of the lowest that results of this class"),
    ("slow product", ONE, but("flops_per_s", torch=0.45e12), "at 45% of the lowest that results of this class"),
    ("slow product", BANDED, but("flops_per_s", mlx=1e9), "mlx multiplies matrices at 50% of the lowest"),
    ("slow copy", BANDED, but("bytes_per_s", torch=1e10), "torch copies memory at 56% of the lowest"),
    ("slow convolution", HEALTHY, but("convolution_flops_per_s", torch=0.1e12), "at 10% of the rate of its own matrix"),
    ("slow convolution", BANDED, but("convolution_flops_per_s", torch=0.3e12), "at 50% of the lowest"),
    ("slow step", HEALTHY, but("step_flops_per_s", flax=0.01e12), "flax takes train steps at 1.1% of what its own"),
    ("slow step", BANDED, but("step_flops_per_s", torch=0.2e12), "at 57% of the lowest"),
    (
        "slow machine",
        HEALTHY,
        {
            "rates": {"flops_per_s": {"torch": 1e11, "flax": 0.9e11}, "bytes_per_s": {"torch": 1e10}},
            "numpy_flops": 1e11,
        },
        "no framework multiplies matrices at more than 100 GFLOP/s; 8 cores with AVX-512 do 128 at least",
    ),
    ("slow memory", HEALTHY, but("bytes_per_s", torch=1e9, flax=0.5e9), "copies memory at more than 1 GB/s"),
    ("CPU build", WITH_GPU, {"workers": {"torch": {"version": "2.13.0+cpu", "device": "cpu"}}}, "a build without CUDA"),
    ("hidden GPU", WITH_GPU, {"environ": {"CUDA_VISIBLE_DEVICES": ""}}, "hides NVIDIA H100"),
    ("driver", HEALTHY, {"gpu_error": "Driver/library version mismatch"}, "Driver/library version mismatch"),
    ("GPU in use", WITH_GPU, {"gpus": [replace(H100, busy=0.97)]}, "97% busy"),
    ("GPU memory", WITH_GPU, {"gpus": [replace(H100, used=79 * GB)]}, "1.0 of 80 GB free"),
    ("GPU memory", WITH_GPU, {"gpus": [DIVIDED]}, "instance 1 of GPU 0 (NVIDIA H100) has 0.5 of 10 GB free"),
    ("MIG", WITH_GPU, {"gpus": [replace(H100, mig=True)]}, "is in MIG mode and has no instances"),
    ("GPU heat", WITH_GPU, {"gpus": [replace(H100, too_hot=True)]}, "slowed down for heat"),
    ("switched off", WITH_GPU, {"environ": {"CUDA_LAUNCH_BLOCKING": "1"}}, "before the next is launched"),
    ("switched off", WITH_GPU, {"environ": {"TF_CUDNN_USE_AUTOTUNE": "0"}}, "autotuning is off"),
    ("switched off", WITH_GPU, {"environ": {"NVIDIA_TF32_OVERRIDE": "0"}}, "TF32 is off"),
    ("switched off", HEALTHY, {"environ": {"JAX_DISABLE_JIT": "True"}}, "JAX compiles nothing"),
    ("switched off", HEALTHY, {"environ": {"MXNET_ENGINE_TYPE": "NaiveEngine"}}, "waits for each operation"),
    ("switched off", HEALTHY, {"environ": {"XLA_FLAGS": "--xla_gpu_autotune_level=0"}}, "XLA's autotuning"),
]


@pytest.mark.parametrize(("cause", "healthy", "change", "says"), [one for one in PLANTED if one[0].startswith("slow")])
def test_what_was_measured_beside_other_programs_is_not_called_slow(cause, healthy, change, says):
    busy = replace(healthy, **change, others=2.0, meanwhile={"torch": 1.5, "flax": 1.5, "mlx": 1.5})
    (found,) = causes.diagnose(busy)
    assert found.cause == "others" and found.wrong.startswith("other programs keep 2.0 cores busy")


@pytest.mark.parametrize(("cause", "healthy", "change", "says"), PLANTED)
def test_a_planted_cause_is_named_alone_and_with_what_to_change(cause, healthy, change, says):
    (found,) = causes.diagnose(replace(healthy, **change))
    assert found.cause == cause and says in found.wrong and found.change


@pytest.mark.parametrize(
    "planted_one", [HEALTHY, WITH_GPU, Facts(), *(replace(one, **more) for _, one, more, _ in PLANTED)]
)
def test_what_was_seen_is_what_the_schema_says(planted_one):
    described = schema("doctor").schema["properties"]["machine"]
    seen = json.loads(json.dumps(planted_one.machine()))
    jsonschema.Draft202012Validator(described).validate({**seen, "class": "any", "workers": {}})


def test_an_old_mkl_is_found_where_a_framework_brings_one(tmp_path):
    libraries = tmp_path / "lib" / "python3.11" / "site-packages" / "some" / "libs"
    libraries.mkdir(parents=True)
    (libraries / "libmkl_core.so.2").touch()
    assert not facts.has_old_mkl(tmp_path)
    (libraries / "libmklml_intel.so").touch()
    assert facts.has_old_mkl(tmp_path)


def test_every_slowness_is_planted_with_a_band_and_all_but_a_copy_without():
    named = {cause for cause, *_ in causes.SLOWLY.values()}
    assert {cause for cause, healthy, *_ in PLANTED if healthy is BANDED} == named
    assert named - {cause for cause, healthy, *_ in PLANTED if healthy is HEALTHY} == {"slow copy"}


def test_every_cause_is_planted():
    """Each of the functions yields something for one of the planted machines."""
    for function in causes.CAUSES:
        assert any(list(function(replace(healthy, **change))) for _, healthy, change, _ in PLANTED), function.__name__


# -- facts, from a planted machine -------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    def write(path, text):
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    write("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu avx avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    write("proc/self/cgroup", "0::/kubepods/pod1\n")
    write("sys/fs/cgroup/cpu.max", "max 100000\n")
    write("sys/fs/cgroup/kubepods/cpu.max", "400000 100000\n")
    write("sys/fs/cgroup/kubepods/pod1/cpu.max", "150000 100000\n")
    write("sys/fs/cgroup/kubepods/pod1/cpu.stat", "usage_usec 5\nnr_periods 200\nnr_throttled 50\n")
    write("sys/fs/cgroup/kubepods/memory.max", f"{2**30}\n")
    write("sys/fs/cgroup/kubepods/pod1/memory.max", "max\n")
    write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    return tmp_path


def test_limits_of_control_groups_are_found_wherever_they_are_set(root):
    found = facts.look({"OMP_NUM_THREADS": "1", "HOME": "x"}, root, ("OMP_NUM_THREADS",), pause=0.05)
    assert (found.quota, found.throttled, found.limit) == (1.5, 0.25, 2**30)
    assert found.flags == {"fpu", "avx", "avx2", "fma"} and found.governor == "powersave"
    assert found.environ == {"OMP_NUM_THREADS": "1"}


def test_a_machine_that_tells_nothing_has_no_limits(tmp_path):
    found = facts.look({}, tmp_path, pause=0.05)
    assert (found.quota, found.throttled, found.limit, found.governor) == (None, None, None, None)
    assert found.flags == frozenset() and found.memory > found.free > 0


@pytest.mark.parametrize(
    ("script", "gpus", "error"),
    [
        (f"cat {RECORDED / 'a5000.xml'}", 1, None),
        (
            "echo 'NVIDIA-SMI has failed because it could not communicate with the driver.'; exit 9",
            0,
            "NVIDIA-SMI has failed",
        ),
    ],
)
def test_a_fake_nvidia_smi_is_asked(tmp_path, script, gpus, error):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    found = facts.look({"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}, tmp_path, pause=0.05)
    assert len(found.gpus) == gpus
    assert found.gpu_error is None if error is None else found.gpu_error.startswith(error)


# -- the command, on this very machine ---------------------------------------------------------------------------------


def doctor(place, *more, **environ):
    done = place.call("doctor", "--frameworks", "tiny", "--json", *more, **environ)
    return done.returncode, json.loads(done.stdout)


def test_the_command_names_what_is_planted_here_and_not_what_is_not(place):
    """Other programs may be at work; nothing else may change with a variable but what it causes."""
    place.plant_real("tiny")
    unset = dict.fromkeys(causes.NAMES)
    status, plain = doctor(place, **unset)
    before = {one["cause"] for one in plain["findings"]}
    assert plain["not_ready"] == ["tiny"] and plain["machine"]["cpu"]
    assert status == (1 if before else 0)
    status, told = doctor(place, **{**unset, "OMP_NUM_THREADS": "4096", "JAX_DISABLE_JIT": "1"})
    found = {one["cause"]: one for one in told["findings"]}
    assert {"many threads", "switched off"} <= set(found) and status == 1
    assert set(found) - before - {"others"} == {"many threads", "switched off"}
    assert found["many threads"]["wrong"].startswith("OMP_NUM_THREADS=4096 starts more threads than the ")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be made fewer")
def test_a_process_that_may_use_one_core_alone(place):
    place.plant_real("tiny")
    one = sorted(os.sched_getaffinity(0))[:1]
    code = f"import os, sys; os.sched_setaffinity(0, {one}); os.execv({str(planted.ROSETTA)!r}, sys.argv)"
    command = (sys.executable, "-c", code)
    done = place.call("doctor", "--frameworks", "tiny", "--json", command=command)
    assert "affinity" in {one["cause"] for one in json.loads(done.stdout)["findings"]}


KEPT = (("one", machine.kind(), 8e9), ("two", machine.kind(), 9e9), ("other", "another", 50e9), ("old", None, 1e9))


def of_class(kind, rate):
    """What `compare` would have written on a machine of that class, where `tiny` reached this rate of everything, of
    copies 16 times that, at ten operations an item; None: before classes were written down.
    """
    reached = {name: dict.fromkeys(("tiny", "mlx"), rate * (16 if name == "bytes_per_s" else 1)) for name in roof.RATES}
    reached["reasons"] = {}
    work = dict.fromkeys(("flops_per_item", "bytes_per_item", "flops_per_item_forward", "bytes_per_item_forward"), 10)
    cell = planted_results.cell("tiny", speed=rate / 1.005)  # the median of its samples is a little more
    on_gpu = planted_results.cell("mlx", facts={"device": "cuda:0"})
    told = planted_results.document(
        cell, on_gpu, text=planted.TEXT, roof=reached, work=work, date=f"2026-11-29T10:00:{rate / 1e9:02.0f}+00:00"
    )
    told["machine"] |= {"class": kind} if kind else {}
    return told


def test_a_framework_with_an_environment_is_measured(place, capsys):
    """One planted without `work`, which says so, and whose facts and step are there all the same; one that works, at
    half of what results of this class of machine have. Results of another class, and of a GPU, count for none.
    """
    place.plant("none")
    place.plant("tiny", adapter=[asleep(4)])
    kept = place.folder / "kept"
    kept.mkdir()
    planted_results.write(kept, **{name: of_class(kind, speed) for name, kind, speed in KEPT})
    unset = {**dict.fromkeys(causes.NAMES), "ROSETTA_DATA": None}
    options = ("doctor", "--frameworks", "none,tiny", "--text", planted.TEXT, "--results", kept)
    begun = time.monotonic()
    told = json.loads(place.call(*options, "--json", **unset).stdout)
    assert time.monotonic() - begun < 60
    validator = schema("doctor")
    validator.validate(told)
    assert told["machine"]["workers"]["none"] == {"version": "1", "device": "cpu", "threads": 1}
    assert "the adapter has no `work`" in told["roof"]["reasons"]["none"]
    for rate in roof.RATES:
        giga = 16e9 if rate == "bytes_per_s" else 1e9
        assert told["roof"][rate] == {"tiny": pytest.approx(4 * giga, rel=0.2)}
        assert told["bands"][rate] == {"tiny": [8 * giga, 9 * giga]}
    assert told["bands"]["step_flops_per_s"]["tiny"] == [pytest.approx(80e9), pytest.approx(90e9)]
    assert told["steps"]["none"]["items_per_second"] > 0 and told["steps"]["tiny"]["proven"] is False
    assert told["steps"]["tiny"]["flops_per_s"] == pytest.approx(
        told["steps"]["tiny"]["items_per_second"] * told["work"]["flops_per_item"]
    )
    found = {one["cause"] for one in told["findings"]}
    slow = {"slow product", "slow copy", "slow convolution"}
    assert slow <= found or told["machine"]["meanwhile"]["tiny"] > causes.MANY_OTHERS
    shown_by.show(told)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{told['machine']['cpu']}: " in shown and f"{planted.TEXT} step" in shown
    assert "Not proven here, so their steps may be another model's: none, tiny" in shown
    for wrong in ({"findings": [{"cause": "x"}]}, {"schema": 2}, {"more": 1}, {"steps": {"tiny": {}}}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**told, **wrong})


def test_a_framework_that_hangs_or_dies_costs_its_share_of_the_time(place, monkeypatch, template):
    """`visit` itself, with a few seconds for all, and one at least for the framework under way."""
    from dlrosetta import frameworks, texts

    place.plant("hangs", ("def build_model():", "def build_model():\n    import time; time.sleep(600)"))
    place.plant("dies", ("def build_model():", "def build_model():\n    import os; os._exit(9)"))
    place.plant("never", adapter=[("def describe():", "def describe():\n    import time; time.sleep(600)")])
    place.plant("next")
    ready = [frameworks.load(place.frameworks / slug) for slug in ("dies", "hangs", "never", "next")]
    text = texts.load(place.stone / planted.TEXT)
    told = visit.document(ready[:1], [], text, [], 600.0)
    assert told["steps"]["dies"]["reason"].startswith("exited with status 9")
    monkeypatch.setattr(visit, "TIME_S", 12.0)
    monkeypatch.setattr(visit, "LEAST_S", 1.0)
    begun = time.monotonic()
    told = visit.document(ready[1:], [], text, [], 600.0)
    assert time.monotonic() - begun < 12 + 20  # with the look at the machine
    schema("doctor").validate(told)
    assert told["steps"]["hangs"]["reason"].startswith("not measured: the time for all frameworks was up. Next: ")
    for slug in ("never", "next"):
        assert told["roof"]["reasons"][slug].startswith("not measured: the time for all frameworks was up. Next: ")


def test_a_class_of_machines_is_told_by_the_processors_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 2)
    info = tmp_path / "proc" / "cpuinfo"
    info.parent.mkdir()
    amd = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
    amd += "flags\t\t: fpu avx2 avx512f\n"
    info.write_text(amd, encoding="utf-8")
    assert machine.kind(tmp_path) == "AuthenticAMD 25-17, AVX-512, 2 cores" and machine.is_amd(tmp_path)
    info.write_text("CPU implementer\t: 0x41\nCPU part\t: 0xd40\nFeatures\t: fp asimd sve\n", encoding="utf-8")
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert machine.kind(tmp_path) == "0x41-0xd40, SVE, 1 core" and not machine.is_amd(tmp_path)
    told = [{"cpu": "AMD EPYC", "class": "AuthenticAMD 25-17, AVX-512, 2 cores", "cores": 2}]
    told += [{"cpu": "0x41-0xd40", "class": "0x41-0xd40, SVE, 1 core", "cores": 1}]
    told += [{"cpu": "Apple M3", "class": "Apple M3, NEON, 8 cores", "cores": 8}, {"cpu": "VIA", "cores": 4}]
    titles = ["AMD EPYC (25-17), 2 cores", "0x41-0xd40, 1 core", "Apple M3, 8 cores", "VIA, 4 cores"]
    assert [machine.title(one) for one in told] == titles
    info.unlink()
    assert machine.kind(tmp_path) == f"{machine.cpu_model()}, SSE, 1 core"
