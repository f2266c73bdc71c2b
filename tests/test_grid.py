"""The grid as data: which cells there are, who gets which, and what comes home; and its axes on this machine alone."""

import json

import pytest
from planted import TEXT

from dlrosetta import compare, frameworks, grid, paths, texts
from dlrosetta.grid import Cell, Queue, Results
from dlrosetta.journal import Journal


@pytest.fixture
def known(place, monkeypatch):
    """The tiny text, and two frameworks of which one has no version of it."""
    place.plant("tiny")
    place.plant("without")
    place.version("without").unlink()
    monkeypatch.setenv("ROSETTA_RESULTS", str(place.results))
    text = texts.load(place.stone / TEXT)
    return text, [frameworks.load(place.frameworks / slug) for slug in ("tiny", "without")]


def test_every_cell_that_there_is_a_version_for(known):
    text, wanted = known
    found = grid.cells([text], wanted, ("float32", "bfloat16"), ("default",), (None, 32), ("cpu",))
    assert found == [
        Cell(TEXT, "tiny", "float32"), Cell(TEXT, "tiny", "float32", batch=32),
        Cell(TEXT, "tiny", "bfloat16"), Cell(TEXT, "tiny", "bfloat16", batch=32),
    ]  # fmt: skip
    assert str(Cell(TEXT, "tiny", "bfloat16", "tuned", 32)) == f"{TEXT} tiny bfloat16 tuned cpu batch 32"


def test_a_machine_keeps_its_framework_whose_environment_it_has_made():
    queue = Queue(Cell(text, slug) for text in ("cnn", "gru", "gpt") for slug in ("flax", "torch"))
    first, _ = queue.take("one", ("cpu",))
    other, _ = queue.take("two", ("cpu",))
    assert {first.framework, other.framework} == {"flax", "torch"}  # the second takes what most of is left
    rest = [queue.take(node, ("cpu",))[0] for node in ("one", "two", "one", "two")]
    assert [cell.framework for cell in rest] == [first.framework, other.framework] * 2
    assert queue.take("one", ("cpu",)) is None and not queue


def test_only_a_machine_with_a_gpu_gets_what_needs_one():
    queue = Queue([Cell("cnn", "torch", device="cuda"), Cell("cnn", "torch")])
    assert queue.take("plain", ("cpu",))[0].device == "cpu"
    assert queue.take("plain", ("cpu",)) is None and len(queue) == 1
    assert queue.take("fast", ("cpu", "cuda"))[0].device == "cuda"


def test_cells_of_different_machines_never_share_a_document(known):
    text, (framework, _) = known
    results = Results()

    def home(slug, node):
        timed = compare.Timed(framework, "proven", samples={"steps": [1.0, 2.0], "load": [], "both": []})
        document = compare.Comparison(text, "quick", "sample", [timed], f"2026-01-01T00:00:0{len(slug)}+00:00")
        results.add(Cell(TEXT, slug), node, 1, document.document())

    for slug, node in (("b", "secret-one"), ("a", "secret-one"), ("c", "secret-two")):
        home(slug, node)
    assert [document["grid"]["node"] for document in results.documents] == [1, 2]
    assert [len(document["cells"]) for document in results.documents] == [2, 1]
    assert all(document["pairs"] == [] for document in results.documents)  # not even those of the same machine
    files = sorted(paths.results_dir().iterdir())
    assert [json.loads(path.read_text(encoding="utf-8")) for path in files] == results.documents
    assert "secret" not in json.dumps(results.documents)


def test_a_grid_whose_driver_was_killed_has_what_came_home(known):
    text, (framework, _) = known
    cells = [Cell(TEXT, slug) for slug in ("a", "b", "c")]
    proofs = {cell: f"proof of {cell}" for cell in cells}
    key = grid.journal_key(cells, grid.Terms())

    def home(results, cell, node):
        timed = compare.Timed(framework, "proven", samples={"steps": [1.0, 2.0], "load": [], "both": []})
        document = compare.Comparison(text, "quick", "sample", [timed], "2026-01-01T00:00:00+00:00").document()
        document["cells"][0]["framework"] = cell.framework
        results.add(cell, node, 1, document)

    first = Results(Journal(key), proofs)
    first.number("lost before anything came home")
    home(first, cells[0], "one")
    home(first, cells[1], "two")
    for path in paths.results_dir().glob("*node3*.json"):  # the kill came between the journal and the file
        path.unlink()
    again = Results(Journal(key, resume=True), proofs)
    assert again.home == set(cells[:2]) and again.documents == first.documents
    assert [document["grid"]["node"] for document in again.documents] == [2, 3]
    home(again, cells[2], "one")
    files = sorted(paths.results_dir().glob("*.json"))
    assert ["node2" in path.name for path in files] == [True, False]  # none of them twice
    assert [json.loads(path.read_text(encoding="utf-8")) for path in files] == again.documents
    changed = Results(Journal(key, resume=True), {**proofs, cells[0]: "another"})
    assert changed.home == set(cells[1:])  # what was changed meanwhile is measured again
    changed.done()
    assert Results(Journal(key, resume=True), proofs).home == set()


def test_only_the_same_grid_goes_on(known):
    text, wanted = known
    cells = [Cell(TEXT, "tiny"), Cell(TEXT, "tiny", "bfloat16")]
    one = grid.journal_key(cells, grid.Terms())
    assert one == grid.journal_key(reversed(cells), grid.Terms())
    assert one != grid.journal_key(cells[:1], grid.Terms())
    assert one != grid.journal_key(cells, grid.Terms(budget=1.0))
    before = grid.proofs([text], wanted, cells)
    assert len(set(before.values())) == 2
    path = text.version("tiny")
    path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert set(before.values()).isdisjoint(grid.proofs([text], wanted, cells).values())


def test_a_measured_cell_says_its_own_fault(known, monkeypatch):
    """A function that fails here would be Ray's to report, without the machine; so the document says it."""
    text, _ = known
    text.golden.unlink()
    for name, folder in (("ROSETTA_STONE", text.folder.parent), ("ROSETTA_FRAMEWORKS", known[1][0].folder.parent)):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("ROSETTA_DATA", "sample")
    told = json.loads(grid.measure(Cell(TEXT, "tiny"), grid.Terms(), grid.Grant(1, 2**31), grid.program_hash()))
    (cell,) = told["cells"]
    assert cell["verdict"] == "failed" and f"rosetta golden {TEXT}" in cell["reason"]
    with pytest.raises(grid.RosettaError, match="Expected the dlrosetta of the one who asks"):
        grid.measure(Cell(TEXT, "tiny"), grid.Terms(), grid.Grant(1, 2**31), "another")


def test_batches_and_tracks_are_axes_here_too(place):
    place.plant("tiny")
    options = ("--frameworks", "tiny", "--budget", "1", "--batch", "16", "--batch", "32", "--json")
    done = place.call("compare", TEXT, *options)
    found = {text["batch"]: text["cells"][0] for text in json.loads(done.stdout)["texts"]}
    assert {batch: cell["batch_size"] for batch, cell in found.items()} == {16: 16, 32: 32}
    assert {cell["verdict"] for cell in found.values()} == {"proven"}
    assert len(list(place.results.glob("*-batch16-*"))) == len(list(place.results.glob("*-batch32-*"))) == 1


def test_a_batch_that_the_data_are_too_few_for(place):
    place.plant("tiny")
    done = place.call("compare", TEXT, "--frameworks", "tiny", "--budget", "1", "--batch", "100000", "--json")
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["verdict"] == "failed"
    assert "Expected at least one batch of 100000 examples. Received: none" in cell["reason"]


def test_fewer_threads_where_the_machine_offers_fewer(place):
    place.plant("tiny", adapter=[('"threads": 1', '"threads": int(__import__("os").environ["ROSETTA_THREADS"])')])
    done = place.call("compare", TEXT, "--frameworks", "tiny", "--budget", "1", "--json", ROSETTA_THREADS=1)
    assert json.loads(done.stdout)["cells"][0]["facts"]["threads"] == 1
