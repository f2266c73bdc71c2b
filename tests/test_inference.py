"""A text that does not train: its weights are fetched or drawn, its photos prepared, its features agree. In numpy."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations

import numpy as np
import planted_photos
import pytest
from planted import kill_when
from safetensors.numpy import load_file, save, save_file

from dlrosetta import compare, data, draws, frameworks, texts, weights
from dlrosetta.data import DataError
from dlrosetta.errors import RosettaError


class Server:
    """Serves `body` on loopback to whoever asks."""

    def __init__(self, body):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}/model.safetensors"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path / "data"))
    return planted_photos.write(tmp_path / "texts")


@pytest.fixture
def seen(place):
    """The text with its golden, and a function that plants a framework with a version of it, edited."""
    planted_photos.write(place.stone)

    def plant(slug, *edits):
        place.plant(slug)
        planted_photos.write_version(place.stone, slug)
        place.edit(place.stone / "seen" / f"seen_{slug}.py", *edits)

    return plant


def prove(place, *slugs):
    done = place.call("prove", "seen", "--dtype", "float32", "--frameworks", ",".join(slugs), "--json")
    return {cell["framework"]: cell for cell in json.loads(done.stdout)["cells"]}


def test_it_is_proven_without_any_training(place, seen):
    seen("plain")
    cell = prove(place, "plain")["plain"]
    assert cell["verdict"] == "proven", cell["reason"]
    names = {check["name"] for check in cell["checks"]}
    photos = {f"photo/{path.stem}" for path in data.photos_sample()}
    assert len(photos) == 4
    assert names >= {"logits", "evaluation logits", "features", "batch sizes", *photos}
    assert not [name for name in names if name.startswith(("loss", "step", "optimizer", "gradient"))]


FAULTS = {
    "crop": ("photo[:SIZE, :SIZE]", "photo[1 : SIZE + 1, :SIZE]", "Data"),
    "colours": ("transpose(2, 0, 1)", "transpose(2, 0, 1)[::-1]", "Data"),
    "bytes": ("photo[:SIZE, :SIZE] / 255", "photo[:SIZE, :SIZE] / 256", "Data"),
    "mean": ("MEAN = (0.4, 0.5, 0.6)", "MEAN = (0.6, 0.5, 0.4)", "Configuration"),
    "last": ("range(0, len(paths), BATCH_SIZE)", "range(0, len(paths) - BATCH_SIZE + 1, BATCH_SIZE)", "Data"),
    "relu": ("np.maximum(self.fc1(images.mean((2, 3))), 0)", "self.fc1(images.mean((2, 3)))", "Model"),
    "twice": ("[predict(model, images) for", "[2 * predict(model, images) for", "Evaluation"),
    "order": ("for images in batches(paths)]", "for images in batches(paths[::-1])]", "Evaluation"),
}  # fmt: skip


def test_faults_of_preprocessing_model_and_evaluation_are_caught_and_located(place, seen):
    for slug, (old, new, _) in FAULTS.items():
        seen(slug, (old, new))
    found = prove(place, *FAULTS)
    told = {slug: (cell["verdict"], (cell["first_departure"] or {}).get("section")) for slug, cell in found.items()}
    assert told == {slug: ("differs", section) for slug, (_, _, section) in FAULTS.items()}


def test_a_full_comparison_says_how_far_features_are_apart(place, seen):
    """What is close enough to be proven on the proof's weights is compared on all photos and the weights in use."""
    seen("again")
    seen("plain")
    done = place.call("compare", "seen", "--frameworks", "again,plain", "--budget", "1", "--profile", "full")
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = place.results.iterdir()
    document = json.loads(file.read_text(encoding="utf-8"))
    (agreement,) = document["agreement"]
    assert agreement == {"a": "again", "b": "plain", "examples": 4, "error": 0.0, "neighbours": 1.0}
    assert document["weights"] == weights.SEEDED
    assert all(cell["items_per_second"]["median"] > 0 and cell["accuracy"] is None for cell in document["cells"])
    assert "Features of 4 photos" in done.stdout
    assert f"Weights: {weights.SEEDED}." in done.stdout


def test_features_that_were_made_are_not_made_again(place, seen):
    """The second framework is killed while it makes them, with the program; the first one's are kept."""
    log = place.folder / "log"
    made = "    return np.concatenate([predict"
    seen("again", (made, f"    print('made', file=open({str(log)!r}, 'a'))\n{made}"))
    seen("plain", (made, f"    import time; time.sleep(2)\n{made}"))
    full = ("compare", "seen", "--frameworks", "again,plain", "--budget", "1", "--profile", "full", "--json")
    assert place.call("prove", "seen", "--frameworks", "again,plain", "--dtype", "float32").returncode == 0
    log.unlink()
    lines = kill_when(place, full, lambda lines: any("made" in line for line in lines))
    (kept,) = [line for line in lines if "made" in line]
    (file,) = (place.results / "unfinished").glob(f"*/{kept['file']}")
    assert kept["made"] == "again" and load_file(file)["features"].shape == (4, 16)
    done = place.call(*full, "--resume")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["cells"][0]["training"]["seconds"] == kept["seconds"]
    assert document["agreement"] == [{"a": "again", "b": "plain", "examples": 4, "error": 0.0, "neighbours": 1.0}]
    assert log.read_text(encoding="utf-8").count("made") == 1
    assert not (place.results / "unfinished").exists()


def test_agreement_is_the_worst_examples_relative_error_and_the_share_of_equal_neighbours(tmp_path):
    one = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    longer = one * [[1.0], [1.0], [1.5]]  # neighbours go by direction alone
    turned = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    assert compare.nearest(one).tolist() == [1, 0, 1]
    known = sorted(frameworks.find().items())
    cells = []
    for (slug, framework), array in zip(known, (one, longer, turned, np.zeros((3, 2))), strict=False):
        save_file({"features": array}, tmp_path / slug)
        cells.append(compare.Timed(framework, "proven", features=tmp_path / slug))
    cells[3].fail("it ended")
    told = compare.agreement(cells)
    assert told[0]["error"] == pytest.approx(0.5 / 1.5)
    assert told[0]["neighbours"] == 1.0
    assert told[1]["neighbours"] == 0.0
    assert [(pair["a"], pair["b"]) for pair in told] == list(combinations([slug for slug, _ in known[:3]], 2))


def published(text, seed=3, **changes):
    """Weights as a publisher would have them: under other names, with a head and counters."""
    random = np.random.default_rng(seed)
    arrays = {
        name.replace("fc1.", "first."): random.normal(size=shape).astype(np.float32)
        for name, shape in text.shapes.items()
    }
    more = {"head.weight": np.ones((2, 2), np.float32), "bn.num_batches_tracked": np.array(7)}
    return {name: array for name, array in {**arrays, **more, **changes}.items() if array is not None}


def test_published_weights_are_fetched_renamed_and_kept(text):
    given = published(text)
    with Server(save(given)) as server:
        text.weights["address"] = server.address
        path = weights.fetch(text, tries=1)
    kept = load_file(path)
    assert list(kept) == sorted(text.full_parameters)
    assert np.array_equal(kept["fc1.weight"], given["first.weight"])
    assert weights.fetch(text, tries=1) == path  # the server is gone
    assert [one.name for one in path.parent.iterdir() if not one.name.endswith(".lock")] == [path.name]


def test_a_comparison_uses_fetched_weights(place, seen):
    seen("plain")
    folder = place.folder / "data" / "weights"
    folder.mkdir(parents=True)
    text = texts.load(place.stone / "seen")
    save_file(weights.converted(text, published(text)), folder / "seen.safetensors")
    done = place.call("compare", "seen", "--frameworks", "plain", "--budget", "1", "--json", ROSETTA_DATA=folder.parent)
    assert json.loads(done.stdout)["weights"] == "somebody's weights"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"first.weight": None}, r"fc1.weight has shape \(16, 3\). Received: none"),
        ({"first.weight": np.ones((3, 16), np.float32)}, r"fc1.weight has shape \(16, 3\). Received: \(3, 16\)"),
        ({"second.bias": np.ones(2, np.float32)}, r"second.bias has shape none. Received: \(2,\)"),
    ],
)
def test_weights_that_are_not_the_texts_are_refused(text, changes, told):
    with pytest.raises(RosettaError, match=told):
        weights.converted(text, published(text, **changes))


def test_what_is_no_safetensors_file_is_refused_and_not_kept(text):
    with Server(b"not found, but politely") as server:
        text.weights["address"] = server.address
        with pytest.raises(RosettaError, match="expected a safetensors file"):
            weights.fetch(text, tries=1)
    assert not weights.kept(text).exists()


def test_other_weights_than_the_texts_are_not_kept_and_not_called_a_want_of_room(text):
    with Server(save(published(text, **{"first.weight": None}))) as server:
        text.weights["address"] = server.address
        with pytest.raises(
            RosettaError, match=rf"{server.address}: .*fc1.weight has shape .* Received: none"
        ) as failed:
            weights.fetch(text, tries=1)
    assert failed.value.hint is None
    assert [one.name for one in weights.kept(text).parent.iterdir() if not one.name.endswith(".lock")] == []


def test_a_checksum_that_is_stated_is_checked(text):
    body = save(published(text))
    text.weights["checksum"] = "sha256:" + hashlib.sha256(body + b"x").hexdigest()
    with Server(body) as server:
        text.weights["address"] = server.address
        with pytest.raises(DataError, match="sha256"):
            weights.fetch(text, tries=1)


def test_without_a_download_the_seeds_weights_stand_in(text, tmp_path):
    found = weights.find(text, tmp_path)
    assert found.title == weights.SEEDED
    drawn = draws.initial_parameters(text, full=True)
    assert all(np.array_equal(array, drawn[name].astype(np.float32)) for name, array in load_file(found.path).items())


def test_weights_that_cannot_be_drawn_say_why(text, tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    said = r"of seen could not be drawn: .*could not be written: Not a directory"
    with pytest.raises(RosettaError, match=said) as failed:
        weights.find(text, tmp_path / "file")
    assert "a folder with room" in failed.value.hint


@pytest.mark.parametrize(
    ("code", "said", "hint"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL", weights.NO_MEMORY),
        ("raise ValueError('too large')", "ValueError: too large", None),
        ("import os; os._exit(3)", "ended with status 3", None),
    ],
)
def test_a_process_that_ends_while_it_draws_says_how(text, tmp_path, monkeypatch, code, said, hint):
    monkeypatch.setattr(weights, "APART", code)
    with pytest.raises(RosettaError, match=f"of seen could not be drawn: .*{said}") as failed:
        weights.find(text, tmp_path)
    assert failed.value.hint == hint
