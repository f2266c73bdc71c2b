"""A text and frameworks made of nothing but numpy, for tests that need a cell: proven in a second, broken at will.

The text is the one that `rosetta new text` scaffolds (flatten – dense 16 – dense 10); a framework is what a contributor
would make of `rosetta new framework`; its environment is a two-line script that runs this very interpreter. Everything
else is real: the command line, the worker processes, the private pipe.
"""

import ast
import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import psutil

from dlrosetta import environments, frameworks, scaffold

ROSETTA = Path(sys.executable).with_name("rosetta")
TEXT = "mine"
STEP = "    loss = loss_fn(model, images, labels)\n    optimizer.step"  # where edits put lines

DENSE = """
class Dense:
    def __init__(self, inputs, outputs):
        bound = np.sqrt(6 / (inputs + outputs))
        self.weight = np.random.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)

    def __call__(self, x):
        return x @ self.weight.T + self.bias
"""

# What a contributor would write for the scaffolded text in a framework that is nothing but numpy.
SOLUTION = {
    "describe": 'import numpy as np\n\n\ndef describe():\n    return {"version": "1", "device": "cpu", "threads": 1}',
    "seed": "def seed(number):\n    np.random.seed(number)",
    "set_dtype": "def set_dtype(dtype):\n    pass",
    "to_native": "def to_native(array):\n    return array",
    "to_numpy": "def to_numpy(value):\n    return np.asarray(value)",
    "adapter make_optimizer": (
        "def make_optimizer(version, state):\n    state.optimizer = version.make_optimizer(state.model)"
    ),
    "layers": (
        'def layers(model):\n    return {name: vars(model)[name] for name in ("fc1", "fc2") if name in vars(model)}'
    ),
    "parameters": "def parameters(model):\n    return model.parameters()",
    "set_parameters": "def set_parameters(model, arrays):\n    model.set(arrays)",
    "forward": "def forward(state, images, training):\n    return state.model(images)",
    "gradients": (
        "def gradients(version, state, images, labels):\n"
        "    loss = version.loss_fn(state.model, images, labels)\n"
        "    return loss, state.model.backward(labels)"
    ),
    "apply_gradients": "def apply_gradients(state, gradients):\n    state.optimizer.step(state.model, gradients)",
    "optimizer_state": (
        "def optimizer_state(state):\n"
        '    return {"velocity/" + name: value for name, value in state.optimizer.velocity.items()}'
    ),
    "adapter train_step": (
        "def train_step(version, state, images, labels):\n"
        "    return version.train_step(state.model, state.optimizer, images, labels)"
    ),
    "adapter evaluate": (
        "def evaluate(version, state, images, labels):\n    return version.evaluate(state.model, images, labels)"
    ),
    "build_model": DENSE
    + """

class Model:
    def __init__(self):
        self.fc1, self.fc2 = Dense(3 * 32 * 32, 16), Dense(16, 10)

    def __call__(self, images):
        self.x = images.reshape(len(images), -1)
        self.hidden = np.maximum(self.fc1(self.x), 0)
        self.logits = self.fc2(self.hidden)
        return self.logits

    def parameters(self):
        names = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        return {name: getattr(getattr(self, name[:3]), name[4:]) for name in names}

    def set(self, arrays):
        for name, array in arrays.items():
            layer, kind = name.split(".")
            setattr(getattr(self, layer), kind, array)

    def backward(self, labels):
        p = np.exp(self.logits - self.logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(labels)), labels] -= 1
        p /= len(labels)
        below = (p @ self.fc2.weight) * (self.hidden > 0)
        first = {"fc1.weight": below.T @ self.x, "fc1.bias": below.sum(0)}
        return {**first, "fc2.weight": p.T @ self.hidden, "fc2.bias": p.sum(0)}


def build_model():
    return Model()""",
    "batches": """
def batches(images, labels, shuffle):
    order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        yield images[rows], labels[rows]""",
    "loss_fn": """
def loss_fn(model, images, labels):
    shifted = model(images)
    shifted = shifted - shifted.max(1, keepdims=True)
    return -np.mean((shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))[np.arange(len(labels)), labels])""",
    "make_optimizer": """
class SGD:
    def __init__(self, model):
        self.velocity = {name: np.zeros_like(value) for name, value in model.parameters().items()}

    def step(self, model, gradients):
        for name, gradient in gradients.items():
            self.velocity[name] = MOMENTUM * self.velocity[name] + gradient
        model.set({name: value - LEARNING_RATE * self.velocity[name] for name, value in model.parameters().items()})


def make_optimizer(model):
    return SGD(model)""",
    "train_step": """
def train_step(model, optimizer, images, labels):
    loss = loss_fn(model, images, labels)
    optimizer.step(model, model.backward(labels))
    return loss""",
    "evaluate": """
def evaluate(model, images, labels):
    return sum((model(x).argmax(1) == y).sum() for x, y in batches(images, labels, shuffle=False)) / len(labels)""",
}


def wheel(folder: Path, name: str = "tiny", version: str = "1.0", ballast: int = 0, borrow: bool = False) -> Path:
    """Make a wheel of one module, by hand. With `borrow` it also brings the packages of this very interpreter."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n".encode() + b"#" * ballast,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if borrow:
        files[f"{name}.pth"] = sysconfig.get_path("purelib").encode() + b"\n"
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(exist_ok=True)
    target = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return target


def make_environment(folder, bytecode=None):
    """Lock the framework as it is, and give it this very interpreter. Return the environment's folder.

    Environments that share their `bytecode` compile numpy once.
    """
    (folder / "requirements.lock").write_text("\n", encoding="utf-8")
    environment = environments.folder(frameworks.load(folder))
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    if bytecode:
        (environment / "bytecode").symlink_to(bytecode)
    return environment


def replace_function(path, name, source):
    """Put `source` in the place of the function `name` of a file."""
    text = path.read_text(encoding="utf-8")
    node = next(node for node in ast.parse(text).body if getattr(node, "name", "") == name)
    lines = text.splitlines()
    lines[node.lineno - 1 : node.end_lineno] = source.strip("\n").splitlines()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def solution(name, in_adapter):
    """What replaces the function `name` of the adapter's or the version's skeleton."""
    if name == "predict":  # of who does not train alone
        return "def predict(model, images):\n    return model(images)"
    return SOLUTION.get(f"adapter {name}" if in_adapter else name) or SOLUTION[name]


def template(folder):
    """Write the text, its golden, and the framework `tiny` with its version, all complete, below `folder`."""
    from dlrosetta import golden, texts

    scaffold.text(TEXT, str(folder / "stone"), [], (), ())
    scaffold.framework("tiny", str(folder / "frameworks"), [TEXT], (str(folder / "stone"),), ())
    (folder / "bytecode").mkdir()
    toml = folder / "frameworks" / "tiny" / "framework.toml"
    described = toml.read_text(encoding="utf-8").replace("# SOME_FLAGS", 'OPENBLAS_NUM_THREADS = "1"\n# SOME_FLAGS')
    toml.write_text(described, encoding="utf-8")  # more would wait for each other where cores are shared
    text = texts.load(folder / "stone" / TEXT)
    golden.save(golden.build(text), text.golden)
    for path in (folder / "frameworks" / "tiny" / "adapter.py", text.version("tiny")):
        in_adapter = path.name == "adapter.py"
        for name in re.findall(r"(?m)^def (\w+)", path.read_text(encoding="utf-8")):
            if name == "synchronize":
                replace_function(path, name, "def synchronize(state, value=None):\n    pass")
            elif name not in ("load_data", "main", "missing"):
                replace_function(path, name, solution(name, in_adapter))


class Place:
    """A machine of its own: folders of texts and frameworks, a cache, results, and the commands that use them."""

    def __init__(self, folder, made):
        """`made` is what `template` wrote."""
        self.folder = folder
        self.stone, self.frameworks = folder / "stone", folder / "frameworks"
        self.cache, self.results = folder / "cache", folder / "results"
        shutil.copytree(made / "stone", self.stone)
        (self.stone / TEXT / f"{TEXT}_tiny.py").unlink()
        self.frameworks.mkdir()
        self.made = made

    def plant(self, slug, *edits, adapter=(), toml=(), environment=True):
        """Add the framework `slug` and its version, with (old, new) edits of the version, adapter and description."""
        shutil.copytree(self.made / "frameworks" / "tiny", self.frameworks / slug)
        self.edit(self.frameworks / slug / "adapter.py", *adapter)
        self.edit(self.frameworks / slug / "framework.toml", *toml)
        shutil.copy(self.made / "stone" / TEXT / f"{TEXT}_tiny.py", self.version(slug))
        self.edit(self.version(slug), *edits)
        return make_environment(self.frameworks / slug, self.made / "bytecode") if environment else None

    def plant_real(self, slug, *edits, **more):
        """Add a framework whose environment uv is to make: of one wheel, which lends it our packages. Offline."""
        self.plant(slug, *edits, environment=False, toml=[("size_mb = 0 ", "size_mb = 3 ")], **more)
        (self.frameworks / slug / "requirements.lock").write_text("borrowed==1.0\n", encoding="utf-8")
        wheel(self.folder / "wheels", "borrowed", borrow=True)

    def closed(self, **more):
        """Variables of a closed network where the wheel of `plant_real` is all that there is."""
        found = {name: None for name in os.environ if name.startswith(("UV_", "PIP_"))}
        ours = {"PIP_FIND_LINKS": self.folder / "wheels", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
        return {**found, **ours, "UV_CACHE_DIR": self.folder / "uv", "UV_HTTP_RETRIES": "0", "NO_PROXY": "*", **more}

    def version(self, slug):
        return self.stone / TEXT / f"{TEXT}_{slug}.py"

    def edit(self, path, *edits):
        text = path.read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) == 1, (old, path)
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")

    def line(self, slug, word):
        """The number of the only line of a version that holds `word`."""
        lines = self.version(slug).read_text(encoding="utf-8").splitlines()
        (found,) = [number for number, line in enumerate(lines, 1) if word in line]
        return found

    def environ(self, **more):
        places = {
            "ROSETTA_CACHE": self.cache,
            "ROSETTA_RESULTS": self.results,
            "ROSETTA_STONE": self.stone,
            "ROSETTA_FRAMEWORKS": self.frameworks,
            "ROSETTA_DATA": "sample",
            "COLUMNS": "200",
        }
        found = {**os.environ, **places, **more}
        return {name: str(value) for name, value in found.items() if value is not None}

    def call(self, *arguments, command=(ROSETTA,), timeout=120, **environ):
        """Run `rosetta` to its end."""
        return subprocess.run(
            [*map(str, (*command, *arguments))],
            capture_output=True,
            text=True,
            env=self.environ(**environ),
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments, command=(ROSETTA,), **environ):
        """Start `rosetta` as a shell starts a foreground job, in a process group of its own."""
        return subprocess.Popen(
            [*map(str, (*command, *arguments))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ(**environ),
            start_new_session=True,
        )

    def prove(self, *slugs, arguments=(), **environ):
        """`rosetta prove --json` in float32: the finished process, and the cells by framework (or by both keys)."""
        arguments = [*(arguments or ["--dtype", "float32"]), "--frameworks", ",".join(slugs), "--json"]
        done = self.call("prove", TEXT, *arguments, **environ)
        cells = json.loads(done.stdout)["cells"] if done.stdout else []
        both = len({cell["dtype"] for cell in cells}) > 1
        return done, {(one["framework"], one["dtype"]) if both else one["framework"]: one for one in cells}

    def left_over(self):
        """Half-made files and scratch folders, which nobody may leave behind."""
        found = []
        for folder, folders, names in os.walk(self.folder):
            found += [Path(folder, name) for name in (*folders, *names) if name.startswith(".")]
            if Path(folder) == self.cache / "scratch":
                found += [Path(folder, name) for name in (*folders, *names)]
            # What is complete, and uv's own, is not looked into.
            complete = Path(folder) == self.cache / "environments"
            folders[:] = [] if complete else [name for name in folders if Path(folder, name) != self.folder / "uv"]
        return sorted(str(path.relative_to(self.folder)) for path in found if path.suffix != ".lock")


def processes_of(place):
    """Processes that run from the place's folders or were started from them, apart from this one."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.cwd(), *process.environ().values()]
        except psutil.Error:
            continue
        alive = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
        if alive and any(str(place.folder) in word for word in words):
            found.append((process.pid, process.cmdline()))
    return found


def journal_of(place):
    """What a comparison that is not finished has written down, a line each."""
    files = (place.results / "unfinished").glob("*.jsonl")
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]


def kill_when(place, arguments, ripe):
    """Start a comparison, kill it as soon as its journal is `ripe`, and answer the journal as it was left."""
    process = place.start(*arguments)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (place.results.exists() and ripe(journal_of(place))):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return journal_of(place)


def sleeping(milliseconds, before=""):
    """An edit: every train step takes so much longer."""
    return (STEP, f"    import os, time; time.sleep({milliseconds / 1000}){before}\n{STEP}")


def gone(pid):
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
