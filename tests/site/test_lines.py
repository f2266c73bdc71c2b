"""What lines are about: of every version, every layer and step is found where it stands."""

import re
from dataclasses import replace

import pytest

from dlrosetta import frameworks, paths, texts
from dlrosetta.errors import RosettaError
from dlrosetta.site import lines, syntax, vocabulary

KNOWN = frameworks.find()
TEXTS = {name: texts.load(folder) for name, folder in texts.find(paths.stone_dirs(())).items()}
CELLS = [
    (text.name, slug)
    for text in TEXTS.values()
    for slug, framework in KNOWN.items()
    if (text.folder / framework.version_file(text.name)).is_file()
]
PYTHON = '''"""conv1"""
import torch
from torch import nn as layers
class A:
    "conv2"
    def f(self):
        "conv3"
        self.gru = layers.GRU(
            8,
            bias=False,
        )
        g(x).step(f"{x}.conv")
'''
CPP = """// conv1
#include <torch/torch.h>
namespace nn = torch::nn;
auto a = nn::GRU(options("b").padding(1)); // conv2
"""
STEPS = {"step:loss", "step:backward", "step:zero-grad", "step:update"}


def about(text, slug):
    return lines.concepts(TEXTS[text], KNOWN[slug])


def source(text, slug):
    return (TEXTS[text].folder / KNOWN[slug].version_file(text)).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(("text", "slug"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_every_version_is_read(text, slug):
    found, there = about(text, slug), source(text, slug)
    keys = {key for line in found.values() for key in line}
    assert set(lines.layer_keys(TEXTS[text])) <= keys
    used = [name for name in TEXTS[text].hyperparameters if re.search(rf"\b{name}\b", "\n".join(there))]
    assert {f"constant:{name}" for name in used} <= keys
    if KNOWN[slug].trains(TEXTS[text].trains):
        assert keys >= STEPS
    for key in keys:
        assert key.partition(":")[0] in vocabulary.KINDS
        assert lines.label(key) and lines.label(key, "zh")
    code = [
        number
        for number, line in enumerate(there, 1)
        if re.search(r"\w", line) and not re.match(r'\s*(# |//|"""|if __name__)', line)
    ]
    assert all(re.match(r"\s*[])}]", there[number - 1]) for number in set(found) - set(code))  # a call ends here
    lost = [there[number - 1].strip() for number in code if number not in found]
    assert len(lost) < 0.15 * len(code), f"give frameworks/{slug}/concepts.toml the words of: {lost}"


@pytest.mark.parametrize(
    ("text", "slug", "code", "first"),
    [
        ("cnn", "torch", "self.conv1 = nn.Conv2d", "layer:conv1"),
        ("cnn", "torch", "F.relu(self.conv1(x))", "layer:conv1"),
        ("cnn", "keras_jax", 'name="conv1"', "layer:conv1"),
        ("cnn", "libtorch", "conv1{register_module", "layer:conv1"),
        ("cnn", "libtorch", "F::relu(conv1(x))", "layer:conv1"),
        ("cnn", "openvino", 'conv("conv1"', "layer:conv1"),
        ("cnn", "equinox", "conv1: nn.Conv2d", "layer:conv1"),
        ("cnn", "tinygrad", "x.dropout(DROPOUT1)", "layer:dropout1"),
        ("cnn", "keras_torch", "train_on_batch", "step:backward"),
        ("cnn", "jittor", "optimizer.step(loss)", "step:backward"),
        ("cnn", "mindspore", "optimizer(gradients)", "step:update"),
        ("cnn", "tensorflow", "dataset.shuffle", "data:shuffle"),
        ("cnn", "gluon", "autograd.record", "step:loss"),
        ("cnn", "torch", "for layer in (self.conv1", "init"),
        ("gru", "torch", "nn.init.uniform_(self.embedding.weight", "init"),
        ("gru", "flax", "cell.dense_h = linear", "layer:gru"),
        ("gru", "mlx", "r, z = mx.sigmoid", "layer:gru"),
        ("gru", "paddle", "weight_hh_attr=", "layer:gru"),
        ("gru", "keras_jax", "recurrent_initializer=", "layer:gru"),
        ("gru", "tvm", "state = (1 - z)", "layer:gru"),
        ("gpt", "torch", "clip_grad_norm_", "step:clip"),
        ("gpt", "openvino", 'f"{name}.projection"', "layer:blocks.N.projection"),
        ("gpt", "flax", "dot_product_attention", "layer:blocks.N"),
        ("resnet50", "torch", "self.conv1 = nn.Conv2d(inputs", "layer:layerN.N.conv1"),
        ("resnet50", "torch", "self.conv1 = nn.Conv2d(3", "layer:conv1"),
        ("resnet50", "openvino", 'f"{name}.shortcut_bn"', "layer:layerN.N.shortcut_bn"),
        ("resnet50", "openvino", "padding = [side // 2] * 2", "op:convolution"),
        ("resnet50", "openvino", "mean = parameter(", "op:batch-norm"),
        ("resnet50", "torch", "x = self.layer2(x)", "layer:layer2"),
        ("gpt", "onnxruntime", "class Embedding(nn.Module)", "op:embedding"),
        ("gpt", "torch", "class GPT(nn.Module)", "model:class"),
        ("densenet121", "torch", "self.norm, self.conv = norm(inputs)", "layer:transitionN.conv"),
        ("densenet121", "flax", "self.norm5 = norm", "layer:norm5"),
        ("densenet121", "tensorflow", "image.resize", "data:resize"),
    ],
)
def test_the_first_key_is_what_a_line_is_most_about(text, slug, code, first):
    number = next(n for n, line in enumerate(source(text, slug), 1) if code in line)
    assert about(text, slug)[number][0] == first


def test_who_steps_without_zeroing_says_so_where_gradients_are_new():
    found = about("cnn", "flax")
    assert [number for number, keys in found.items() if "step:zero-grad" in keys] == [
        number for number, keys in found.items() if "step:backward" in keys
    ]
    assert not STEPS & {key for keys in about("cnn", "openvino").values() for key in keys}  # it does not train


def test_a_framework_may_have_words_of_its_own(tmp_path):
    (tmp_path / "cnn_torch.py").write_text("# %% Train step\noptimizer.go()\n")
    (tmp_path / "concepts.toml").write_text('[step.update]\nwords."Train step" = "optimizer.go"\n')
    text, own = replace(TEXTS["cnn"], folder=tmp_path), replace(KNOWN["torch"], folder=tmp_path)
    assert lines.concepts(text, KNOWN["torch"]) == {}
    assert "step:update" in lines.concepts(text, own)[2]
    vocabulary._table.cache_clear()
    (tmp_path / "concepts.toml").write_text('[step.updates]\nwords.any = "optimizer.go"\n')
    with pytest.raises(RosettaError, match=r"expected a concept of .*Received: 'step:updates'"):
        lines.concepts(text, own)


def test_comments_and_parameters_are_about_nothing(tmp_path):
    (tmp_path / "cnn_torch.py").write_text(
        '"""conv1 and conv2."""\n# %% Model\n# self.conv1 = 1\ndef forward(self, conv2):\n    return self.conv3(0)\n'
    )
    text = replace(TEXTS["cnn"], folder=tmp_path)
    assert lines.concepts(text, KNOWN["torch"]) == {4: ("model:forward",), 5: ("layer:conv3",)}
    assert lines.concepts(text, KNOWN["flax"]) == {}


def test_names_are_found_with_their_lines_and_full_names(tmp_path):
    (tmp_path / "one.py").write_text(PYTHON)
    found = {(word.kind, word.name): word for word in syntax.words(tmp_path / "one.py")}
    assert {name for kind, name in found if kind == "string"} == {"{}.conv"}  # and no docstring
    gru = found["name", "layers.GRU"]
    assert (gru.full, gru.line, gru.first, gru.last, gru.called) == ("torch.nn.GRU", 8, 8, 11, True)
    assert gru.scope == ("A", "f")
    made = found["name", "self.gru"]
    assert made.defines and made.made_by == "layers.GRU" and (made.first, made.last) == (8, 11)
    bias = found["keyword", "bias"]
    assert (bias.value, bias.line, bias.made_by) == ("False", 10, "layers.GRU")
    assert ("name", ".step") in found and found["import", "layers"].full == "torch.nn"
    (tmp_path / "two.cpp").write_text(CPP)
    found = {(word.kind, word.name): word for word in syntax.words(tmp_path / "two.cpp")}
    assert found["name", "nn.GRU"].full == "torch.nn.GRU" and found["name", "nn.GRU"].line == 4
    assert ("name", ".padding") in found and ("string", "b") in found
    assert not {"conv1", "conv2", "auto", "include"} & {name for _, name in found}


def test_repeated_layers_share_a_key():
    keys = lines.layer_keys(TEXTS["gpt"])
    assert keys["layer:blocks.N.qkv"] == [f"blocks.{number}.qkv" for number in range(4)]
    assert sum(len(names) for names in keys.values()) == len(TEXTS["gpt"].full_layers)
    assert len(lines.layer_keys(TEXTS["densenet121"])) == 10


def test_labels_are_there_in_both_languages():
    assert vocabulary.LABELS["en"].keys() == vocabulary.LABELS["zh"].keys()
    assert lines.label("layer:conv1") == "Layer conv1"
    assert lines.label("step:zero-grad", "zh") == "梯度清零"
    sections = {section for entry in vocabulary.ENTRIES.values() for section in entry.get("words", {})}
    assert sections <= {"any", "Imports", "Configuration", "Data", "Model", "Loss", "Optimizer", "Train step",
                        "Evaluation", "Run"}  # fmt: skip
