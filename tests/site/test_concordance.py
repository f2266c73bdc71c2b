"""The concordance: real questions get lines that run, beside those that say the same elsewhere."""

import ast
import itertools
import json
from fnmatch import fnmatch

import pytest

from dlrosetta import frameworks, golden, paths, texts
from dlrosetta.site import agreement, concordance, vocabulary


@pytest.fixture(scope="module")
def known():
    return [texts.load(folder) for folder in texts.find(paths.stone_dirs(())).values()]


@pytest.fixture(scope="module")
def documents(known):
    return concordance.build(known, frameworks.find())


def files(documents, lines):
    """Lines by the ending of their version: {"torch": [41]}."""
    return {
        documents["index.json"]["versions"][version][1].partition("_")[2].partition(".")[0]: found
        for version, found in lines.items()
    }


def code(documents, hit, slug):
    """The lines of an answer in one framework, as code."""
    for version, (_, file, _) in enumerate(documents["index.json"]["versions"]):
        if version in hit.lines and file.partition("_")[2].partition(".")[0] == slug:
            there = documents[f"lines-{hit.text}.json"]["lines"][str(version)]
            return "\n".join(there[str(line)] for line in hit.lines[version])
    return ""


def test_a_gru_of_torch_is_found_in_the_others(documents):
    best = concordance.search(documents, "nn.GRU", know="torch")[0]
    assert (best.text, best.section, best.concept) == ("gru", "Model", "layer:gru")
    assert list(files(documents, best.here)) == ["torch"]
    assert "nn.GRU(EMBEDDING, HIDDEN, batch_first=True)" in code(documents, best, "torch")
    for slug, word in {
        "flax": "nnx.RNN(cell)", "equinox": "jnp.tanh", "keras": "layers.GRU(", "tensorflow": "recurrent_initializer",
        "paddle": "nn.GRU(", "mlx": "self.linear_h(state)", "openvino": "linear_before_reset=True",
    }.items():  # fmt: skip
        assert word in code(documents, best, slug)


@pytest.mark.parametrize(
    ("query", "know", "concept", "slug", "word"),
    [
        ("optax.adam", "flax", "optimizer:kind", "torch", "torch.optim.Adam("),
        ("optax.adam", None, "optimizer:kind", "keras", "keras.optimizers.Adam("),
        ("padding", "torch", "layer:conv1", "keras", 'padding="same"'),
        ("padding", None, "layer:conv1", "onnxruntime", "Conv(3, 50)"),
        ("gate order", None, "layer:gru", "keras", "layers.GRU("),
        ("clip", None, "step:clip", "torch", "clip_grad_norm_"),
        ("clip_grad_norm_", "torch", "step:clip", "mlx", "optim.clip_grad_norm"),
        ("F.scaled_dot_product_attention", "torch", "layer:blocks.N", "flax", "nnx.dot_product_attention"),
        ("torch::optim::SGD", "libtorch", "optimizer:kind", "gluon", "gluon.Trainer"),
        ("zero grad", None, "step:zero-grad", "flax", "nnx.value_and_grad"),
        ("model.eval()", "torch", "mode:evaluation", "flax", "deterministic=True"),
        ("学习率", None, "constant:LEARNING_RATE", "torch", "lr=LEARNING_RATE"),
        ("Weight Decay", None, "optimizer:weight-decay", "flax", "mask=is_matrix"),
        ("shuffle", "torch", "data:shuffle", "tensorflow", "dataset.shuffle"),
        ("jit", None, "compile", "flax", "@nnx.jit"),
        ("kernel_init", "flax", "init", "torch", "nn.init.xavier_uniform_"),
        ("batch norm", None, "op:batch-norm", "flax", "self.bn1 = norm(width)"),
    ],
)
def test_questions(documents, query, know, concept, slug, word):
    best = [hit for hit in concordance.search(documents, query, know, limit=5) if hit.concept == concept]
    assert best, [hit.concept for hit in concordance.search(documents, query, know, limit=5)]
    assert any(word in code(documents, hit, slug) for hit in best)


def test_what_frameworks_do_in_different_sections_is_one_entry(documents):
    clips = [hit for hit in concordance.search(documents, "gradient clipping") if hit.concept == "step:clip"]
    assert [(hit.text, hit.section) for hit in clips] == [("gpt", "Train step")]
    assert "clip_grad_norm_" in code(documents, clips[0], "torch")
    assert "optax.clip_by_global_norm" in code(documents, clips[0], "flax")


def test_nothing_is_found_where_nothing_is(documents):
    assert concordance.search(documents, "") == concordance.search(documents, " _ ") == []
    assert concordance.search(documents, "no such word") == []


def test_every_line_is_there_and_holds_its_name(documents, known):
    index = documents["index.json"]
    folders = {text.name: text.folder for text in known}
    sources = [
        (folders[index["texts"][text][0]] / file).read_text(encoding="utf-8").splitlines()
        for text, file, _ in index["versions"]
    ]
    entries = [entry for file in index["entries"] for entry in documents[file]["entries"]]
    assert len(entries) > 300
    for kind, text, section, concept, flat in entries:
        assert index["kinds"][kind] == "text" and index["sections"][section]
        assert index["concepts"][concept][0].partition(":")[0] in vocabulary.KINDS
        assert flat
        for version, numbers in zip(flat[::2], flat[1::2], strict=True):
            assert index["versions"][version][0] == text and numbers
            shown = documents[f"lines-{index['texts'][text][0]}.json"]["lines"][str(version)]
            for number in numbers:
                assert shown[str(number)] == sources[version][number - 1].rstrip() != ""
    names = [name for file in index["names"] for name in documents[file]["names"]]
    assert len(names) > 1000
    for name, written, places in names:
        assert places
        for entry, version, line in zip(*[iter(places)] * 3, strict=True):
            ends = {one.rpartition(".")[2] for one in (name, *written)} | {name}
            assert any(end.split("{")[0] in sources[version][line - 1] for end in ends), (name, line)
            flat = entries[entry][4]
            assert line in dict(zip(flat[::2], flat[1::2], strict=True))[version]


def test_names_are_full(documents):
    names = {
        name: written for file in documents["index.json"]["names"] for name, written, _ in documents[file]["names"]
    }
    assert {"torch.nn.GRU", "optax.adam", "mlx.nn.GRU", "flax.nnx.Conv", "tensorflow.data.Dataset"} & set(names) >= {
        "torch.nn.GRU", "optax.adam", "flax.nnx.Conv",
    }  # fmt: skip
    assert "F.relu" in names["torch.nn.functional.relu"]
    assert "uniform" in names["tensorflow.keras.initializers.RandomUniform"]
    assert not {"x", "y", "self", "chosen"} & set(names)


def test_documents_are_small_and_numbered(documents):
    for name, document in documents.items():
        assert len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()) <= concordance.SHARD, name
    index = documents["index.json"]
    assert set(documents) == {"index.json", *index["names"], *index["entries"], *index["lines"]}
    assert sorted(itertools.chain(*(index[part] for part in ("names", "entries", "lines")))) == sorted(
        set(documents) - {"index.json"}
    )


def test_larger_parts_are_cut():
    rows = [["x" * 1000]] * 600
    parts = concordance._cut(rows)
    assert len(parts) == 3 and list(itertools.chain(*parts)) == rows
    assert all(len(json.dumps(part)) < concordance.SHARD for part in parts)


# -- what was proven ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checks(known):
    """Names of checks: those of goldens, those of names of parameters, and the sentences in the prover's source."""
    found = {f"{kind}{mode}logits" for kind in ("", "loud ") for mode in ("", "evaluation ")}
    for text in known:
        found |= set(golden.load(text).tensors)
        found |= {f"{kind}/{name}" for name in text.full_parameters for kind in ("parameter", "initial")}
        found |= {f"configuration/{name}" for name in text.hyperparameters} | {text.input}
        found |= {f"dropout{number} draws anew" for number in (1, 2, 3)}
    for path in (paths.PACKAGE / "proof").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            if isinstance(node, ast.JoinedStr):
                for name in ("1", "LEARNING_RATE"):
                    found.add(
                        "".join(
                            getattr(part, "value", "") if isinstance(part, ast.Constant) else name
                            for part in node.values
                        )
                    )
    return found


def test_what_is_said_to_be_proven_are_checks_that_there_are(documents, checks):
    found = {concept[0]: concept[5] for concept in documents["index.json"]["concepts"]}
    for concept, patterns in found.items():
        assert bool(patterns) == bool(agreement.words(concept)) == bool(agreement.words(concept, "zh"))
        met = [pattern for pattern in patterns if any(fnmatch(name, pattern) for name in checks)]
        assert bool(met) == bool(patterns), concept
    used = {pattern for patterns in found.values() for pattern in patterns}
    plain = {pattern for pattern in used if "/" not in pattern}
    assert [pattern for pattern in plain if not any(fnmatch(name, pattern) for name in checks)] == []


def test_what_was_proven_of_a_concept():
    assert "*output/conv1" in concordance.proven("layer:conv1")
    assert concordance.proven("constant:MOMENTUM") == ("configuration/MOMENTUM",)
    assert concordance.proven("layer:dropout2") == ("dropout2 *",)
    assert concordance.proven("run:report") == concordance.proven("generate") == ()

    def covers(concept, check):
        return any(fnmatch(check, pattern) for pattern in concordance.proven(concept))

    assert covers("layer:blocks.N.qkv", "loud gradient/blocks.3.qkv.weight")
    assert not covers("layer:blocks.N.qkv", "gradient/blocks.3.expand.weight")
    assert covers("layer:blocks.N", "output/blocks.1.norm1")
    assert covers("layer:layerN.N", "output/layer2.0.conv1") and covers("layer:layer2", "output/layer2.0.conv1")
    assert not covers("layer:conv1", "output/layer2.0.conv1")
    assert covers("layer:transitionN.conv", "gradient/transition1.conv.weight")
    assert covers("step:clip", "step 20/conv1.weight") and covers("step:loss", "losses")
