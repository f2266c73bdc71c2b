"""What each adapter asks its framework about a GPU, against a fake of the framework that has just those names.

No GPU is at hand: the fakes say what documentation and source of the frameworks do (the links stand in the adapters).
That the names are there is seen in the real frameworks, which run on CPUs here, and on a CPU have no device.
"""

import ast
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace as Fake
from unittest.mock import MagicMock

import pytest

from dlrosetta import environments, frameworks
from dlrosetta.worker import device

KNOWN = frameworks.find()
MODULES = (
    "torch", "torch.distributed", "torch.nn", "torch.nn.parallel", "jax", "flax", "equinox", "keras", "tensorflow",
    "tensorflow.python", "tensorflow.python.eager", "paddle", "paddle.distributed", "mlx", "mlx.core", "mlx.nn",
    "mlx.optimizers", "mlx.utils", "openvino",
)  # fmt: skip
WITH_DEVICE = [
    "equinox",
    "flax",
    "keras_jax",
    "keras_tensorflow",
    "keras_torch",
    "mlx",
    "paddle",
    "tensorflow",
    "torch",
]


class Clock:
    """Events of a clock that moves by half a second from one to the next, in milliseconds."""

    moments = itertools.count(0, 500)

    def __init__(self, enable_timing=False):
        assert enable_timing  # or CUDA measures nothing

    def record(self):
        self.at = next(self.moments)

    def elapsed_time(self, end):
        return end.at - self.at


class Memory:
    """Of a device that held 70 bytes, and 30 since it was last reset."""

    def __init__(self):
        self.peak = 70

    def reset(self, *name):
        assert name in ((), ("GPU:0",))
        self.peak = 30


def torch_of(gpu):
    memory, part = Memory(), lambda precision: Fake(fp32_precision=precision)
    cuda = Fake(
        is_available=lambda: gpu, Event=Clock, reset_peak_memory_stats=memory.reset,
        max_memory_allocated=lambda: memory.peak,
    )  # fmt: skip
    cudnn = Fake(conv=part("tf32"), rnn=part("tf32"), benchmark=False)
    return {"torch": Fake(cuda=cuda, backends=Fake(cuda=Fake(matmul=part("none")), cudnn=cudnn))}


def jax_of(gpu):
    config = Fake(jax_default_matmul_precision=None)
    config.update = lambda name, value: setattr(config, name, value)
    one = Fake(memory_stats=lambda: {"bytes_in_use": 10, "peak_bytes_in_use": 70})
    return {"jax": Fake(default_backend=lambda: "gpu" if gpu else "cpu", config=config, local_devices=lambda: [one])}


def tensorflow_of(gpu):
    memory, state = Memory(), Fake(tf32=True)
    experimental = Fake(
        reset_memory_stats=memory.reset,
        get_memory_info=lambda name: {"GPU:0": {"current": 10, "peak": memory.peak}}[name],
        enable_tensor_float_32_execution=lambda enabled: setattr(state, "tf32", enabled),
        tensor_float_32_execution_enabled=lambda: state.tf32,
    )
    seen = lambda kind: ["one"] if gpu and kind == "GPU" else []  # noqa: E731
    return {"tf": Fake(config=Fake(get_visible_devices=seen, experimental=experimental))}


def paddle_of(gpu):
    memory, on = Memory(), {"cublas": True, "cudnn": True}
    core = Fake(
        set_cublas_switch=lambda value: on.update(cublas=value), get_cublas_switch=lambda: on["cublas"],
        set_cudnn_switch=lambda value: on.update(cudnn=value), get_cudnn_switch=lambda: on["cudnn"],
    )  # fmt: skip
    cuda = Fake(reset_max_memory_allocated=memory.reset, max_memory_allocated=lambda: memory.peak)
    device = Fake(
        is_compiled_with_cuda=lambda: gpu, get_device=lambda: "gpu:0" if gpu else "cpu", Event=Clock, cuda=cuda
    )
    flags = lambda name: {name: {"FLAGS_cudnn_exhaustive_search": False}[name]}  # noqa: E731
    return {"paddle": Fake(device=device, base=Fake(core=core), get_flags=flags)}


def mlx_of(gpu):
    memory = Memory()
    return {
        "mx": Fake(
            gpu="gpu", default_device=lambda: "gpu" if gpu else "cpu", reset_peak_memory=memory.reset,
            get_peak_memory=lambda: memory.peak,
        )
    }  # fmt: skip


FAKES = {
    "torch": torch_of, "flax": jax_of, "equinox": jax_of, "tensorflow": tensorflow_of, "paddle": paddle_of,
    "mlx": mlx_of, "keras_jax": jax_of, "keras_tensorflow": tensorflow_of, "keras_torch": torch_of,
}  # fmt: skip
USUAL = ("mlx", "torch")  # whose real names are looked for by default: they are imported fast
TELLS_TIME = ("torch", "keras_torch", "paddle")
RESETS = {slug for slug in WITH_DEVICE if FAKES[slug] is not jax_of}


def adapter_of(slug, gpu, monkeypatch):
    """The real adapter, its framework's module replaced by a fake of just what a device may ask."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, MagicMock(name=name))
    sys.modules["keras"].backend.backend.return_value = slug.removeprefix("keras_")
    spec = importlib.util.spec_from_file_location(f"adapter_of_{slug}", KNOWN[slug].adapter)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, fake in FAKES[slug](gpu).items():
        monkeypatch.setattr(module, name, fake)
    for name, value in KNOWN[slug].env.items():
        monkeypatch.setenv(name, value)
    return module


def test_the_frameworks_that_tell_of_a_gpu_are_these():
    found = {
        slug for slug, one in KNOWN.items() if one.adapter.is_file() and "\ndef device():" in one.adapter.read_text()
    }
    assert found == {*WITH_DEVICE, "keras_openvino"}  # which shares an adapter


@pytest.mark.parametrize("slug", WITH_DEVICE)
def test_a_cpu_has_no_device(slug, monkeypatch):
    assert adapter_of(slug, False, monkeypatch).device() is None


def test_openvino_has_none(monkeypatch):
    monkeypatch.setitem(FAKES, "keras_openvino", lambda gpu: {})
    assert adapter_of("keras_openvino", True, monkeypatch).device() is None


@pytest.mark.parametrize("slug", WITH_DEVICE)
def test_seconds_between_two_events(slug, monkeypatch):
    gpu = adapter_of(slug, True, monkeypatch).device()
    start, end = gpu.mark(), gpu.mark()
    if slug in TELLS_TIME:
        assert gpu.seconds(start, end) == 0.5
    else:
        assert (start, end) == (None, None)


@pytest.mark.parametrize("slug", WITH_DEVICE)
def test_the_largest_memory_counts_from_where_it_was_reset(slug, monkeypatch):
    gpu = adapter_of(slug, True, monkeypatch).device()
    assert gpu.peak_memory() == 70
    gpu.reset_memory()
    assert gpu.peak_memory() == (30 if slug in RESETS else 70)


@pytest.mark.parametrize("slug", WITH_DEVICE)
def test_tf32_is_seen_and_turned_off(slug, monkeypatch):
    gpu = adapter_of(slug, True, monkeypatch).device()
    if slug == "mlx":  # a variable that is read once
        assert gpu.arithmetic() == {"tf32": False}
        monkeypatch.delenv("MLX_ENABLE_TF32")
        assert gpu.arithmetic() == {"tf32": True}
        return
    assert gpu.arithmetic()["tf32"] is True  # what they do by default
    gpu.full_float32()
    assert gpu.arithmetic()["tf32"] is False
    assert gpu.arithmetic()["autotune"] is (FAKES[slug] in (jax_of, tensorflow_of))


@pytest.mark.parametrize(
    ("slug", "name", "value"),
    [("flax", "XLA_FLAGS", "--xla_gpu_autotune_level=0"), ("tensorflow", "TF_CUDNN_USE_AUTOTUNE", "0")],
)
def test_variables_that_turn_autotuning_off_are_seen(slug, name, value, monkeypatch):
    gpu = adapter_of(slug, True, monkeypatch).device()
    monkeypatch.setenv(name, value)
    assert gpu.arithmetic()["autotune"] is False


def test_a_device_of_jax_that_does_not_count(monkeypatch):
    adapter = adapter_of("flax", True, monkeypatch)
    adapter.jax.local_devices()[0].memory_stats = lambda: None
    assert adapter.device().peak_memory() is None


# -- the real ones -----------------------------------------------------------------------------------------------------


def asked(slug):
    """Every dotted name of the framework that classes of devices use, the adapter's and those it shares."""
    sources = (KNOWN[slug].adapter, Path(device.__file__))
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    roots = {
        "torch_of": {"torch"},
        "jax_of": {"jax"},
        "tensorflow_of": {"tf"},
        "paddle_of": {"paddle"},
        "mlx_of": {"mx"},
    }
    found = set()
    for node in nodes:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) in ("Device", "Events") for base in node.bases):
            for one in ast.walk(node):
                name = ast.unparse(one).removeprefix("self.") if isinstance(one, ast.Attribute) else ""
                if name.split(".")[0] in roots[FAKES[slug].__name__] and "(" not in name:
                    found.add(name)
    return sorted(found)


CHECK = """
import functools, importlib, importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
spec = importlib.util.spec_from_file_location("adapter", sys.argv[2])
adapter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(adapter)
lacking = []
for name in json.loads(sys.argv[3]):
    root, *rest = name.split(".")
    try:
        functools.reduce(getattr, rest, getattr(adapter, root))
    except AttributeError as error:
        lacking.append(str(error))
print("found:", json.dumps([lacking, adapter.device() is None]))
"""


@pytest.mark.frameworks
@pytest.mark.parametrize(
    "slug", [pytest.param(slug, marks=[] if slug in USUAL else [pytest.mark.wide]) for slug in WITH_DEVICE]
)
def test_the_names_are_there_in_the_real_framework(slug):
    one = KNOWN[slug]
    python = environments.ensure(one)
    env = {**os.environ, **one.environ(1, python.parent.parent), "CUDA_VISIBLE_DEVICES": ""}
    source = str(KNOWN[slug].folder.parents[1] / "src")
    names = asked(slug)
    assert len(names) >= 2
    done = subprocess.run(
        [python, "-c", CHECK, source, one.adapter, json.dumps(names)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.split("found: ")[-1]) == [[], True]
