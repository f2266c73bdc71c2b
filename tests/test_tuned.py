"""The tuned track: an adapter's switches are on where text.toml says so, are proven, and are timed apart."""

import json

import pytest
from planted import TEXT

from dlrosetta import frameworks, paths, texts
from dlrosetta.proof import run

KNOWN = frameworks.find()
TUNED = [
    (name, slug) for name, folder in texts.find(paths.stone_dirs()).items() for slug in sorted(texts.load(folder).tuned)
]
# An adapter with two switches: one that changes nothing, and one that changes the loss.
SWITCHES = (
    "def set_dtype(dtype):\n    pass",
    """
def set_dtype(dtype):
    pass


def tune(version, switch):
    if switch not in ("fast", "wrong"):
        raise ValueError("Expected a switch: fast, wrong. Received: %r" % switch)
    if switch == "wrong":
        right = version.loss_fn
        version.loss_fn = lambda *given: right(*given) * 2
""",
)


@pytest.fixture
def tuned(place):
    """A machine with a planted framework, and a function that sets the switches of its tuned track."""
    place.plant("tiny", adapter=[SWITCHES])
    path = place.stone / TEXT / "text.toml"
    plain = path.read_text(encoding="utf-8")

    def switch(*names):
        path.write_text(f"{plain}\n[tuned]\ntiny = {json.dumps(names)}\n", encoding="utf-8")

    return place, switch


def test_switches_are_on_in_the_tuned_track_alone(tuned):
    place, switch = tuned
    switch("wrong")
    done, cells = place.prove("tiny", arguments=("--dtype", "float32"))
    assert cells["tiny"]["verdict"] == "proven" and "track" not in json.loads(done.stdout)
    done, cells = place.prove("tiny", arguments=("--dtype", "float32", "--track", "tuned"))
    assert (cells["tiny"]["verdict"], json.loads(done.stdout)["track"]) == ("differs", "tuned")
    assert cells["tiny"]["first_departure"]["section"] == "Loss"
    cells = place.prove("tiny", arguments=("--dtype", "float32"))[1]  # what is remembered is of each track its own
    assert cells["tiny"]["verdict"] == "proven"


def test_an_unknown_switch_is_named(tuned):
    place, switch = tuned
    switch("fsat")
    cells = place.prove("tiny", arguments=("--dtype", "float32", "--track", "tuned"))[1]
    assert (cells["tiny"]["verdict"], cells["tiny"]["reason"]) == (
        "failed",
        "ValueError: Expected a switch: fast, wrong. Received: 'fsat'",
    )


def test_a_tuned_comparison_is_apart_and_says_what_was_switched(tuned):
    place, switch = tuned
    switch("fast")
    command = ("compare", TEXT, "--frameworks", "tiny", "--track", "tuned", "--budget", "1")
    done = place.call(*command)
    assert done.returncode == 0, done.stderr
    assert "how fast, tuned?" in done.stdout and "Tuned: tiny: fast." in " ".join(done.stdout.split())
    (path,) = place.results.glob("*-tuned-*.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["track"], document["cells"][0]["switches"]) == ("tuned", ["fast"])


def test_a_wrong_switch_gets_no_speed(tuned):
    place, switch = tuned
    switch("wrong")
    done = place.call("compare", TEXT, "--frameworks", "tiny", "--track", "tuned", "--budget", "1", "--json")
    assert done.returncode == 1
    (cell,) = json.loads(done.stdout)["cells"]
    assert (cell["verdict"], cell["items_per_second"]) == ("differs", None)


@pytest.mark.frameworks
@pytest.mark.parametrize(("name", "slug"), TUNED)
def test_what_is_tuned_is_the_same_model(name, slug):
    text = texts.load(texts.find(paths.stone_dirs())[name])
    (cell,) = run.prove(text, [text.on_track(KNOWN[slug], "tuned")], ["float32"], patience=600)
    assert cell.verdict in ("proven", "waived"), (cell.reason, cell.detail)
