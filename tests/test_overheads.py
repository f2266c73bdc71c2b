"""What the instrument itself costs: the bars of benchmarks/overheads.py, with room for a machine that is busy.

That fences cost at most 1 % of a step of 5 ms, and that 5 % are told apart, is test_selftest.py's.
"""

import os
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from planted import TEXT
from safetensors.numpy import save_file

from dlrosetta import paths, texts

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import overheads


@pytest.fixture
def document(place):
    """A comparison whose environment and proof are there."""
    place.plant("tiny")
    options = (TEXT, "--frameworks", "tiny", "--budget", "1")
    assert place.call("prove", TEXT, "--frameworks", "tiny", "--dtype", "float32").returncode == 0
    return overheads.compared(*options, environ=place.environ())


def after(code, environ):
    """What a `rosetta` prints that first runs `code`, and what is told of its process."""
    before = f"{code}import sys\nsys.argv[3:] = ['--version']\n"
    return overheads.noted("--version", environ=environ, before=before)


def test_start_and_memory(document):
    """Where others are at work, each gets its share of the processors, and what is waited for takes as much longer."""
    waiting = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert document["worked_s"] < overheads.START_S
    assert overheads.start_s(document) < overheads.START_S * 2 * waiting
    assert document["peak_bytes"] < overheads.MEMORY_MB * 1e6
    # `--on local`, the default, needs no Ray; asking results and drawing charts have libraries of their own.
    assert {"numpy", "rich"} <= set(document["loaded"])
    assert {"altair", "duckdb", "ray", "vl_convert"}.isdisjoint(document["loaded"])


def test_a_comparison_that_proves_first_stays_as_small(place):
    """The proof's arrays, and the library of its statistics, are another process's."""
    place.plant("tiny")
    document = overheads.compared(TEXT, "--frameworks", "tiny", "--budget", "1", environ=place.environ())
    assert [cell["verdict"] for cell in document["cells"]] == ["proven"]
    assert "scipy" not in document["loaded"]
    assert document["peak_bytes"] < overheads.MEMORY_MB * 1e6


def test_memory_that_the_core_takes_is_noticed(place):
    """As much as a framework would."""
    sizes = []
    for before in ("", f"ballast = b'x' * {overheads.MEMORY_MB * 10**6}\n"):
        shown, told = overheads.noted("compare", "--help", environ=place.environ(), before=before)
        assert shown.startswith("Usage: ")
        sizes.append(told["peak_bytes"])
    assert sizes[0] < overheads.MEMORY_MB * 1e6 < sizes[1]


def test_the_work_of_the_largest_text_is_counted_in_little_memory(place):
    """It has eight million parameters, and a train step's activations are hundreds of megabytes."""
    code = "from dlrosetta import compare, paths, texts, work\n"
    code += "print(work.count(texts.load(paths.stone_dirs()[0] / 'densenet121')))\n"
    shown, told = after(code, place.environ())
    assert shown.startswith("Work(flops=16762884096, ")
    assert told["peak_bytes"] < overheads.MEMORY_MB * 1e6


def test_features_of_many_cells_are_compared_in_little_memory(place, tmp_path):
    """Of a thousand photos and sixteen frameworks they are 130 MB."""
    code = "import numpy as np\nfrom pathlib import Path\nfrom safetensors.numpy import save_file\n"
    code += "from dlrosetta import compare, frameworks\n"
    code += f"cells, folder = [], Path({str(tmp_path)!r})\n"
    code += "for slug, one in list(frameworks.find().items())[:16]:\n"
    code += "    save_file({'features': np.random.default_rng(0).random((1000, 2048), np.float32)}, folder / slug)\n"
    code += "    cells.append(compare.Timed(one, 'proven', features=folder / slug))\n"
    code += "print(len(compare.agreement(cells)))\n"
    shown, told = after(code, place.environ())
    assert shown.startswith("120\n")
    assert told["peak_bytes"] < overheads.MEMORY_MB * 1e6


def test_published_weights_are_fetched_and_converted_in_little_memory(place, tmp_path):
    """Of ResNet-50 they are 100 MB, and as many under the text's names."""
    text = texts.load(paths.stone_dirs()[0] / "resnet50")
    arrays = {name: np.zeros(spec["shape"], np.float32) for name, spec in text.full_parameters.items()}
    save_file(arrays, tmp_path / "published")
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    code = "from dlrosetta import paths, texts, weights\n"
    code += "text = texts.load(paths.stone_dirs()[0] / 'resnet50')\n"
    code += f"text.weights['address'] = 'http://127.0.0.1:{served.server_port}/published'\n"
    code += "print(weights.fetch(text, tries=1))\n"
    shown, told = after(code, {**place.environ(), "ROSETTA_DATA": str(tmp_path)})
    served.shutdown()
    served.server_close()
    assert shown.splitlines()[0] == str(tmp_path / "weights" / "resnet50.safetensors")
    assert [one.name for one in (tmp_path / "weights").glob("*.safetensors")] == ["resnet50.safetensors"]
    assert told["peak_bytes"] < overheads.MEMORY_MB * 1e6


def test_weights_from_the_seed_are_drawn_in_little_memory(place, tmp_path):
    """ResNet-50 has 25 million."""
    code = "from pathlib import Path\nfrom dlrosetta import paths, texts, weights\n"
    code += f"found = weights.find(texts.load(paths.stone_dirs()[0] / 'resnet50'), Path({str(tmp_path)!r}))\n"
    code += "print(found.title)\n"
    shown, told = after(code, place.environ())
    assert shown.startswith("drawn from the seed") and (tmp_path / "resnet50.safetensors").stat().st_size > 90e6
    assert told["peak_bytes"] < overheads.MEMORY_MB * 1e6
