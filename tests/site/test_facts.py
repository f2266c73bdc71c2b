"""What is said of a framework stands in files: layouts, lines that run, what texts tell, faults that were planted."""

import json

import pytest

from dlrosetta import frameworks, paths, texts
from dlrosetta.site import facts

KNOWN = frameworks.find()
TEXTS = [texts.load(folder) for folder in texts.find(paths.stone_dirs(())).values()]


@pytest.fixture(scope="module")
def told():
    return {slug: facts.facts(framework, TEXTS) for slug, framework in KNOWN.items()}


@pytest.mark.parametrize("slug", KNOWN)
def test_everything_said_is_somewhere(slug, told):
    said = json.loads(json.dumps(told[slug]))
    folders = {text.name: text.folder for text in TEXTS}
    sources = {
        one["text"]: (folders[one["text"]] / one["file"]).read_text(encoding="utf-8") for one in said["versions"]
    }
    assert {one["text"]: one["lines"] for one in said["versions"]} == {
        name: len(source.splitlines()) for name, source in sources.items()
    }
    assert set(said["topics"]) == set(facts.TOPICS)
    for topic, shown in said["topics"].items():
        assert len({one["code"] for one in shown}) == len(shown) <= facts.EXAMPLES * len(facts.TOPICS[topic])
        for one in shown:
            assert sources[one["text"]].splitlines()[one["line"] - 1].strip() == one["code"]
            assert one["concept"] in facts.TOPICS[topic]
    assert said["topics"]["model"] and said["topics"]["data"]
    assert bool(said["topics"]["gradients"]) == ("train" in said["can"])
    for fault in said["faults"]:
        assert sources[fault["text"]].count(fault["old"]) == 1 and fault["old"] != fault["new"]
        first = sources[fault["text"]].splitlines()[fault["line"] - 1]
        assert fault["old"].splitlines()[0] in first or not fault["old"].splitlines()[0]
    for kind in ("friends", "faults"):
        ranks = [[*facts.HURTS, ""].index(one["hurts"]) for one in said[kind]]
        assert ranks == sorted(ranks)
    assert said["friends"]
    for friend in said["friends"]:
        readme = " ".join((folders[friend["text"]] / "README.md").read_text(encoding="utf-8").split())
        assert friend["prose"] in readme and not friend["prose"].startswith(("|", "#"))
        assert any(name.lower() in friend["prose"].lower() for name in said["names"])


def test_a_reader_of_flax_learns(told):
    flax = told["flax"]
    assert flax["layouts"]["conv"] == {"value": "HWIO", "axes": ["height", "width", "in", "out"]}
    assert flax["layouts"]["activations"]["axes"][-1] == "channels"
    assert "no global seed" in flax["adapter"]
    assert {"Flax", "optax", "jax"} <= set(flax["names"])
    code = {topic: [one["code"] for one in shown] for topic, shown in flax["topics"].items()}
    assert any(line.startswith("@nnx.jit") for line in code["compile"])
    assert any("deterministic=True" in line for line in code["mode"])
    assert any("value_and_grad" in line for line in code["gradients"])
    assert not any("batches(" in line for line in code["mode"])  # `training=False` of a loader is no mode
    titles = [one["title"] for one in flax["friends"] if one["hurts"] == "silent"]
    assert {"Pooling", "Layer norm's ε", "GELU"} <= set(titles)
    assert told["keras_jax"]["layouts"]["gates"]["axes"] == ["update", "reset", "new"]


def test_names_are_those_of_prose(told):
    assert told["tvm"]["names"] == ["Apache TVM", "tvm"]
    assert told["keras_torch"]["names"] == told["keras_jax"]["names"] == ["Keras"]
    assert {"c++", "LibTorch"} <= {name if name != "C++" else "c++" for name in told["libtorch"]["names"]}
    assert told["libtorch"]["adapter"] == ""


def test_keras_on_one_backend_is_not_told_of_another(told):
    def proses(slug):
        return " ".join(one["prose"] for one in told[slug]["friends"])

    assert "Keras on TensorFlow multiplies" in proses("keras_tensorflow")
    assert "Keras on TensorFlow multiplies" not in proses("keras_torch")


def test_planted_faults_are_told_with_what_they_do(told, tmp_path):
    torch = told["torch"]["faults"]
    assert len(torch) > 50 and all(fault["section"] != "Configuration" for fault in torch)
    assert len({fault["name"] for fault in torch}) == len(torch)
    kinds = {fault["hurts"] for said in told.values() for fault in said["faults"]}
    assert kinds == {"silent", "error"}
    assert facts.facts(KNOWN["torch"], TEXTS, planted=tmp_path)["faults"] == []
    assert told["keras_jax"]["faults"] and told["keras_jax"]["faults"] == told["keras_torch"]["faults"]


def test_exceptions_are_the_texts_own(told):
    assert any("1e-6" in one["reason"] and one["text"] == "gpt" for one in told["torch"]["exceptions"])
    assert told["torch"]["tuned"]["cnn"] == ["compile"] and told["flax"]["tuned"] == {}
