"""Frameworks that do not train, of a text that does: its evaluation pass is asked about, and no more is claimed."""

import json

import planted
import pytest
from planted import TEXT

from dlrosetta import frameworks, matrix, sections, texts

INFERS = [('can = ["train", "infer"] ', 'can = ["infer"] ')]
PREDICT = "\n\ndef predict(model, images):\n    return model(images)\n"
MAIN = """
def main():
    _, (images, labels) = load_data()
    print(f"test accuracy {evaluate(build_model(), images, labels):.3f}")
"""


def infers(place, slug, *edits):
    """Plant a framework that does not train, with a version of six sections, edited."""
    place.plant(slug, toml=INFERS)
    path = place.version(slug)
    source = path.read_text(encoding="utf-8")
    for part in sections.split(source):
        if part.name in sections.OF_TRAINING:
            source = source.replace("\n".join([f"# %% {part.name}", *part.lines]), "")
    path.write_text(source, encoding="utf-8")
    planted.replace_function(path, "main", MAIN)
    place.edit(
        path,
        ("batches(images, labels, shuffle)", "batches(images, labels)"),
        ("np.random.permutation(len(labels)) if shuffle else ", ""),
        ("batches(images, labels, shuffle=False)", "batches(images, labels)"),
        ("LEARNING_RATE = 0.01\nMOMENTUM = 0.9\n", ""),
        ("# %% Evaluation\n", "# %% Evaluation" + PREDICT),
        *edits,
    )


def shares(place, slug, *edits):
    """Plant one that runs a file which trains: its adapter predicts, and nothing of the training may be called."""
    adapter = [("def synchronize", "def predict(state, images):\n    return state.model(images)\n\n\ndef synchronize")]
    place.plant(slug, *edits, toml=INFERS, adapter=adapter)
    for name in ("loss_fn", "make_optimizer", "train_step"):
        planted.replace_function(place.version(slug), name, f'def {name}(*_):\n    raise RuntimeError("trains")')


def test_the_evaluation_pass_is_proven_and_no_more_is_claimed(place):
    infers(place, "infers")
    shares(place, "shares")
    place.plant("trains")
    done, cells = place.prove("infers", "shares", "trains")
    assert done.returncode == 0, done.stdout
    found = {slug: (cell["verdict"], cell["scope"]) for slug, cell in cells.items()}
    assert found == {
        "infers": ("proven", "evaluation"), "shares": ("proven", "evaluation"), "trains": ("proven", "all")
    }  # fmt: skip
    for slug in ("infers", "shares"):
        names = {check["name"] for check in cells[slug]["checks"]}
        assert names >= {"input/fc1", "output/fc2", "logits", "loud logits", "evaluation logits", "initial/fc1.weight"}
        assert names >= {"batch sizes", "images", "labels", "evaluate", "test data"}
        assert not [one for one in names if any(word in one for word in ("loss", "step", "optimizer", "gradient"))]
    shown = place.call("prove", TEXT, "--frameworks", "infers,shares,trains", "--dtype", "float32").stdout
    assert "Of infers, shares the evaluation pass alone: no loss, gradients or training." in shown


FAULTS = {
    "first": ("x @ self.weight.T + self.bias", "x @ self.weight.T + 2 * self.bias", ("Model", "fc1")),
    "relu": ("np.maximum(self.fc1(self.x), 0)", "self.fc1(self.x)", ("Model", "fc2")),
    "capped": ("np.maximum(self.fc1(self.x), 0)", "np.clip(self.fc1(self.x), 0, 6)", ("Model", "fc2")),
    "start": ("np.sqrt(6 / (inputs + outputs))", "np.sqrt(3 / (inputs + outputs))", ("Model", "fc1")),
    "last": ("range(0, len(labels), BATCH_SIZE)", "range(0, len(labels) - BATCH_SIZE + 1, BATCH_SIZE)", ("Data", None)),
    "labels": ("images[rows], labels[rows]", "images[rows], labels[::-1][rows]", ("Data", None)),
    "halves": ("/ len(labels)\n", "/ len(labels) / 2\n", ("Evaluation", None)),
    "sets": ("np.asarray(test_labels))", "np.asarray(test_labels)[::-1])", ("Data", None)),
    "timed": ("    return model(images)\n", "    return 2 * model(images)\n", ("Evaluation", None)),
    "batch": ("BATCH_SIZE = 64", "BATCH_SIZE = 32", ("Configuration", None)),
}  # fmt: skip


def test_faults_of_the_evaluation_pass_are_caught_and_located(place):
    for slug, (old, new, _) in FAULTS.items():
        infers(place, slug, (old, new))
    _, cells = place.prove(*FAULTS)
    found = {slug: (cell["verdict"], cell["first_departure"] or {}) for slug, cell in cells.items()}
    told = {slug: (verdict, where.get("section"), where.get("layer")) for slug, (verdict, where) in found.items()}
    assert told == {slug: ("differs", *where) for slug, (_, _, where) in FAULTS.items()}


def test_a_version_of_its_own_needs_what_is_timed(place):
    infers(place, "infers", ("def predict(", "def predicted("))
    _, cells = place.prove("infers")
    assert cells["infers"]["verdict"] == "failed"
    assert "no predict" in cells["infers"]["reason"]


def test_train_steps_and_evaluation_passes_are_never_in_one_table(place):
    for slug in ("infers", "other"):
        infers(place, slug)
    place.plant("trains")
    slugs = "infers,other,trains"
    done = place.call("compare", TEXT, "--frameworks", slugs, "--budget", "1", "--profile", "full")
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = place.results.iterdir()
    document = json.loads(file.read_text(encoding="utf-8"))
    assert {cell["framework"]: cell["scope"] for cell in document["cells"]} == {
        "infers": "evaluation", "other": "evaluation", "trains": "all"
    }  # fmt: skip
    assert all(cell["items_per_second"]["median"] > 0 for cell in document["cells"])
    assert [(pair["a"], pair["b"]) for pair in document["pairs"]] == [("infers", "other")]
    steps, passes = done.stdout.split("Trained as the text says")[0].split(": how fast is its evaluation pass?")
    assert [slug in steps for slug in slugs.split(",")] == [False, False, True]
    assert [slug in passes for slug in slugs.split(",")] == [True, True, False]
    assert [cell["framework"] for cell in document["cells"] if cell["training"]] == ["trains"]


def test_the_matrix_does_not_count_it_as_wholly_proven(place, monkeypatch):
    infers(place, "infers")
    place.plant("trains")
    place.prove("infers", "trains", arguments=["--dtype", "float32"])
    place.prove("infers", "trains", arguments=["--dtype", "float64"])
    for name, value in place.environ().items():
        monkeypatch.setenv(name, value)
    text = texts.load(place.stone / TEXT)
    known = frameworks.find()
    assert matrix.cell(text, known["infers"]) == "evaluates"
    assert matrix.cell(text, known["trains"]) == "proven"
    assert "does not train" in matrix.legend(["evaluates"]).plain


@pytest.mark.parametrize("make", [infers, shares])
def test_it_runs_alone_unless_its_file_trains(place, make):
    make(place, "tiny")
    done = place.call("run", TEXT, "tiny")
    if make is infers:
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("test accuracy 0.")
    else:
        assert done.returncode == 1
        assert f"does not train, and {TEXT}_tiny.py does" in done.stderr
