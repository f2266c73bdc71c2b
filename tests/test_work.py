"""Work counted from a text, against formulas by hand, published figures and PyTorch's own counter."""

import json
import os
import subprocess

import planted
import pytest

from dlrosetta import environments, frameworks, golden, paths, texts, work

KNOWN = texts.find(paths.stone_dirs(()))
# Runs a version on one example of zeros under PyTorch's counter; the last line is its count, forward and in all. Its
# counter knows no fused attention on CPUs, so attention is asked for as products.
COUNTER = """
import json, sys, types
package = types.ModuleType("dlrosetta")
package.__path__ = [sys.argv[1]]
sys.modules["dlrosetta"] = package
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
version = {"__name__": "version"}
exec(compile(open(sys.argv[2]).read(), sys.argv[2], "exec"), version)
arrays = [torch.zeros(shape, dtype=getattr(torch, dtype)) for shape, dtype in json.loads(sys.argv[3])]
model = version["build_model"]()
with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
    if "loss_fn" in version:
        loss = version["loss_fn"](model.train(), *arrays)
        forward = counter.get_total_flops()
        loss.backward()
    else:
        with torch.no_grad():
            model(*arrays)
        forward = counter.get_total_flops()
print(json.dumps([forward, counter.get_total_flops()]))
"""


def load(name):
    return texts.load(KNOWN[name])


@pytest.mark.frameworks
@pytest.mark.parametrize("text", sorted(KNOWN))
def test_flops_are_those_of_torchs_own_counter(text):
    """To the last one, and so is the backward pass: no bound is needed."""
    one = load(text)
    torch = frameworks.find(())["torch"]
    python = environments.ensure(torch)
    arrays = []
    for spec in one.inputs.values():
        whole = spec["draw"] == "tokens" or (spec["draw"] == "labels" and not one.files)
        arrays.append([[1, *texts.sized(spec["shape"], one.hyperparameters)], "int64" if whole else "float32"])
    command = [python, "-c", COUNTER, str(paths.PACKAGE), str(one.version("torch")), json.dumps(arrays)]
    env = {**os.environ, "ROSETTA_DATA": "sample"}  # the sample has all classes
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False, env=env)
    assert done.returncode == 0, done.stderr
    forward, whole = json.loads(done.stdout.splitlines()[-1])
    counted = work.count(one)
    assert (counted.flops_forward, counted.flops) == (forward, whole)


@pytest.mark.parametrize(("text", "products"), [("resnet50", 4.09e9), ("densenet121", 2.83e9)])
def test_published_figures(text, products):
    """Multiply-adds of an image of 224×224, as torchvision's tables have them (of ResNet-50 with its classifier)."""
    assert work.count(load(text)).flops_forward / 2 == pytest.approx(products, rel=0.005)


def test_a_dense_network_by_hand(place):
    """The scaffolded text: 3072 numbers – dense 16 – dense 10, SGD with momentum, batches of 64."""
    counted = work.count(texts.load(place.stone / planted.TEXT))
    first, second = 2 * 3072 * 16, 2 * 16 * 10
    assert counted.flops_forward == first + second
    assert counted.flops == 2 * first + 3 * second  # nothing is trained before the first: no gradient of its input
    held = 3072 * 16 + 16 + 16 * 10 + 10
    between = (3072 + 16) + (16 + 10)
    assert counted.bytes_forward == 4 * (between + held / 64)
    backward = (16 + 3072) + (10 + 16 + 16)  # output's gradient, input; input's gradient of the second alone
    assert counted.bytes == 4 * (between + backward + 2 * held * 3 / 64)  # value, gradient, velocity


def test_attention_by_formula():
    sizes = load("gpt").hyperparameters
    length, width, layers, words = (sizes[name] for name in ("CONTEXT", "EMBEDDING", "LAYERS", "VOCABULARY"))
    dense = layers * 12 * width * width * length + length * width * words  # qkv 3, projection 1, expand and contract 8
    attention = layers * 2 * length * length * width
    assert work.count(load("gpt")).flops_forward == 2 * (dense + attention)


def test_a_table_that_is_only_looked_up_is_not_read_whole():
    """Forward, `gru` reads 150 rows of 30,000; `gpt`, whose table of bytes is its output layer too, all of that."""
    gru, gpt = load("gru"), load("gpt")
    table = 30_000 * 125 * 4 / gru.hyperparameters["BATCH_SIZE"]
    assert work.count(gru).bytes_forward < table < work.count(gru).bytes  # a step's optimizer moves all of it
    sizes = gpt.hyperparameters
    length, width, words = sizes["CONTEXT"], sizes["EMBEDDING"], sizes["VOCABULARY"]
    block = 2 + (1 + 3) + 2 + 2 + (1 + 4) + (4 + 1)  # norm, qkv, projection, norm, expand, contract
    moved = 2 * (length + length * width) + (sizes["LAYERS"] * block + 2) * length * width + length * words
    held = words * width + sizes["LAYERS"] * 12 * width * width + (2 * sizes["LAYERS"] + 1) * width
    assert work.count(gpt).bytes_forward == 4 * (moved + held / sizes["BATCH_SIZE"])


def test_each_trained_text_does_nearly_three_times_its_forward_pass():
    for name in KNOWN:
        text, counted = load(name), work.count(load(name))
        ratio = counted.flops / counted.flops_forward
        assert 2.9 < ratio <= 3 if text.trains else ratio == 1
        assert counted.bytes_forward < counted.bytes if text.trains else counted.bytes_forward == counted.bytes


def test_no_product_is_computed_and_the_reference_stays_as_it_was(place):
    """Counting leaves nothing behind: the golden that is computed after it is the same."""
    text = texts.load(place.stone / planted.TEXT)
    before = {name: tensor.norm for name, tensor in golden.load(text).tensors.items()}
    work.count(text)
    assert {name: tensor.norm for name, tensor in golden.build(text).tensors.items()} == before
