"""`rosetta compare` from end to end, with frameworks of nothing but numpy whose steps take as long as a test wants.

A step that sleeps has a known speed whatever else this machine does.
"""

import json
import os
import statistics
import subprocess
from itertools import combinations

import planted
import pytest
from planted import TEXT, sleeping

from dlrosetta import compare, console, frameworks, paths, rounds, texts, timed
from dlrosetta.client import WorkerFailed
from dlrosetta.errors import UsageError
from dlrosetta.proof import run


def counting(code, after=60):
    """Code that runs after so many steps on one model: a proof takes 24 of them at most."""
    return f"\n    model.count = getattr(model, 'count', 0) + 1\n    if model.count > {after}:\n        {code}"


VERSIONS = {
    "again": [sleeping(10)],
    "dies": [sleeping(10, counting("os._exit(9)"))],
    "differs": [("MOMENTUM * self.velocity[name] + gradient", "MOMENTUM * self.velocity[name] + 2 * gradient")],
    "raises": [sleeping(10, counting('raise RuntimeError("out of luck")'))],
    "slow": [sleeping(15)],
    "steady": [sleeping(10)],
    "thrice": [sleeping(10)],
}
ALIKE = ("again", "steady", "thrice")


@pytest.fixture(scope="module")
def done(tmp_path_factory, template):
    """One comparison of all of them, as a table; then the same as JSON, of the two that are alike and a new one."""
    place = planted.Place(tmp_path_factory.mktemp("compare"), template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSETTA_CACHE", str(place.cache))
        for slug, edits in VERSIONS.items():
            place.plant(slug, *edits)
        shown = place.call("compare", TEXT, "--frameworks", ",".join(VERSIONS), "--budget", "1")
    (file,) = place.results.iterdir()
    return place, shown, json.loads(file.read_text(encoding="utf-8")), file


def cells(document):
    return {cell["framework"]: cell for cell in document["cells"]}


def pair(document, a, b):
    (found,) = [one for one in document["pairs"] if (one["a"], one["b"]) == (a, b)]
    return found


def test_a_slower_version_is_found_slower_by_as_much(done):
    document = done[2]
    found = pair(document, "slow", "steady")
    assert found["differ"] and found["low"] <= found["ratio"] <= found["high"] < 1
    assert found["ratio"] == pytest.approx(10 / 15, rel=0.15)
    speeds = {
        slug: cell["items_per_second"]["median"] for slug, cell in cells(document).items() if cell["items_per_second"]
    }
    assert set(speeds) == {*ALIKE, "slow"}
    assert speeds["steady"] < 64 / 0.010 and speeds["slow"] < 64 / 0.015  # no faster than they sleep
    assert speeds["steady"] > 64 / 0.030


def test_a_version_against_itself_makes_no_difference(done):
    """Of three pairs, one may well claim a difference by chance, in one of twenty; not all of them."""
    found = [pair(done[2], a, b) for a, b in combinations(ALIKE, 2)]
    for one in found:
        assert one["ratio"] == pytest.approx(1, abs=0.1)
        assert one["differ"] == (not one["low"] <= 1 <= one["high"])
    assert not all(one["differ"] for one in found)


def test_what_is_timed_is_what_was_measured(done):
    document = done[2]
    assert [cell["framework"] for cell in document["cells"]] == sorted(VERSIONS)
    for slug in (*ALIKE, "slow"):
        cell = cells(document)[slug]
        speed = cell["items_per_second"]
        assert cell["verdict"] == "proven"
        assert len(speed["samples"]) >= rounds.LEAST_ROUNDS
        assert speed["median"] == statistics.median(speed["samples"])
        assert min(speed["samples"]) <= speed["low"] <= speed["median"] <= speed["high"] <= max(speed["samples"])
        assert cell["batch_size"] == 64 and cell["steps_per_round"] * 0.010 >= 0.1
        assert 0 < cell["second_call_s"] < 5 and 0 < cell["first_call_s"] < 5 and 0 < cell["import_s"] < 20
        assert 10**7 < cell["peak_memory_bytes"] < 2 * 10**9
        assert cell["accuracy"] is None and cell["training"] is None  # only with --profile full
    counts = {len(cells(document)[slug]["items_per_second"]["samples"]) for slug in (*ALIKE, "slow")}
    assert len(counts) == 1  # every round is a turn of each
    every = set(combinations(sorted((*ALIKE, "slow")), 2))
    assert {(one["a"], one["b"]) for one in document["pairs"]} == every


def test_a_cell_that_fails_its_proof_is_not_timed_and_its_row_says_so(done):
    _, shown, document, _ = done
    cell = cells(document)["differs"]
    assert (cell["verdict"], cell["items_per_second"]) == ("differs", None)
    assert cell["reason"].startswith("optimizer/")
    assert f"differs ✗ differs: {cell['reason']}" in " ".join(shown.stdout.split())
    row = next(line for line in shown.stdout.splitlines() if line.startswith("differs"))
    assert row.split() == ["differs", "✗", "differs"]


@pytest.mark.parametrize(
    ("slug", "reason"),
    [("dies", "exited with status 9 in the middle of a request"), ("raises", "RuntimeError: out of luck")],
)
def test_a_cell_that_dies_while_it_is_timed_fails_alone(done, slug, reason):
    _, shown, document, _ = done
    cell = cells(document)[slug]
    assert (cell["verdict"], cell["reason"], cell["items_per_second"]) == ("failed", reason, None)
    assert f"{slug} ! failed: {reason}" in " ".join(shown.stdout.split())
    assert shown.returncode == 1


def test_the_table(done):
    _, shown, document, file = done
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert lines[0] == "Mine: how fast?"
    assert lines[1] == "framework verdict images/s interval share of roof first import memory"
    assert [line.split()[0] for line in lines[2:9]] == sorted(VERSIONS)
    speed = cells(document)["slow"]["items_per_second"]
    assert f"slow ✓ proven {speed['median']:.0f} {speed['low']:.0f}–{speed['high']:.0f}" in lines[6]
    same = [one for one in document["pairs"] if not one["differ"]]
    for one in same:
        assert f"{one['a']} and {one['b']}: no difference (ratio {one['ratio']:.2f}, " in shown.stdout
    assert shown.stdout.count("no difference") == len(same)
    assert "Data: handwritten digits, the sample that ships with dlrosetta. Machine: " in shown.stdout
    assert lines[-1] == f"Result: {file}"
    assert shown.stderr == ""


def test_the_result_file_can_be_made_again(done):
    place, _, document, file = done
    assert file.name.startswith(f"{TEXT}-quick-20") and file.suffix == ".json"
    assert place.left_over() == []
    cell = cells(document)["steady"]
    text = texts.load(place.stone / TEXT)
    framework = frameworks.load(place.frameworks / "steady")
    assert cell["hashes"]["version"] == run.version_hash(text, framework)
    assert cell["hashes"]["framework"] == framework.content_hash()
    assert {"text", "version", "framework", "lock", "proof"} == set(cell["hashes"])
    assert cell["facts"]["device"] == "cpu"
    assert document["machine"]["cores"] == len(os.sched_getaffinity(0))


def test_no_process_is_left(done):
    assert planted.processes_of(done[0]) == []


# -- the proof behind a speed ------------------------------------------------------------------------------------------


def quick(place, *slugs, **more):
    return place.call("compare", TEXT, "--frameworks", ",".join(slugs), "--budget", "1", "--json", **more)


def log_opening(name):
    """An edit: the version notes each time that it is read, and with how many threads."""
    code = f"import os\n\nwith open({str(name)!r}, 'a') as file:\n    file.write(os.environ['ROSETTA_THREADS'] + ' ')\n"
    return ("# %% Data", f"{code}\n\n# %% Data")


def test_a_proof_is_remembered_and_an_edit_makes_it_anew(place):
    log = place.folder / "log"
    place.plant("tiny", log_opening(log), sleeping(20))
    assert place.prove("tiny")[1]["tiny"]["verdict"] == "proven"
    assert len(log.read_text().split()) == 1
    done = quick(place, "tiny")
    assert done.returncode == 0 and json.loads(done.stdout)["cells"][0]["items_per_second"]
    assert len(log.read_text().split()) == 2  # timed, not proven again
    place.edit(place.version("tiny"), ("return Model()", "model = Model()\n    model.fc1.bias += 1\n    return model"))
    done = quick(place, "tiny")
    assert done.returncode == 1
    (cell,) = json.loads(done.stdout)["cells"]
    assert (cell["verdict"], cell["items_per_second"]) == ("differs", None)
    assert cell["reason"].startswith("initial/fc1.bias")
    assert len(log.read_text().split()) == 3  # proven, not timed


@pytest.mark.parametrize(
    "part", ["frameworks/tiny/adapter.py", "frameworks/tiny/framework.toml", f"stone/{TEXT}/text.toml"]
)
def test_whatever_a_proof_rests_on_makes_it_anew(place, part):
    place.plant("tiny")
    text, framework = texts.load(place.stone / TEXT), frameworks.load(place.frameworks / "tiny")
    run.prove(text, [framework], ["float32"])
    assert run.recall(text, framework, "float32")["verdict"] == "proven"
    path = place.folder / part
    path.write_text(path.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
    assert run.recall(text, framework, "float32") is None


def test_a_version_that_is_changed_between_its_proof_and_its_timing_is_not_timed(place):
    """It changes itself the second time that it is read: what would be timed is not what was proven."""
    log = place.folder / "log"
    code = f"if len(open({str(log)!r}).read().split()) == 2:\n    open(__file__, 'a').write('# changed')\n"
    place.plant("tiny", log_opening(log), ("\n\n# %% Loss", f"\n\n{code}\n\n# %% Loss"))
    done = quick(place, "tiny")
    (cell,) = json.loads(done.stdout)["cells"]
    assert (cell["verdict"], cell["items_per_second"]) == ("failed", None)
    assert (
        cell["reason"]
        == f"{place.version('tiny')} or what belongs to it was changed after it was proven; compare again"
    )
    assert done.returncode == 1


# -- results -----------------------------------------------------------------------------------------------------------


def test_what_was_measured_is_shown_also_where_it_cannot_be_kept(place):
    place.plant("tiny")
    place.version("tiny").unlink()
    (place.folder / "file").touch()
    done = quick(place, "tiny", ROSETTA_RESULTS=place.folder / "file" / "results")
    assert json.loads(done.stdout)["cells"][0]["verdict"] == "cannot"
    assert done.returncode == 1
    assert done.stderr.count("\n") == 2
    assert f"Error: {place.folder}/file/results/{TEXT}-quick-" in done.stderr
    assert "the result could not be written: Not a directory" in done.stderr
    assert "Next: set ROSETTA_RESULTS to a folder with room" in done.stderr


def test_a_guarded_cell_fails_alone_whatever_happens(place):
    """Also where a worker in some other language answers what makes no sense."""
    place.plant("tiny")
    cell = compare.Timed(frameworks.load(place.frameworks / "tiny"), "proven", samples={"steps": [1.0]})

    def action(error):
        raise error

    timed.guard(cell, lambda: action(KeyError("seconds")))
    assert (cell.verdict, cell.speed()) == ("failed", None)
    assert cell.reason == "an answer could not be used: KeyError: 'seconds'"
    timed.guard(cell, lambda: action(WorkerFailed("printed more than 64 MB")))
    assert cell.reason == "printed more than 64 MB"


def test_the_full_profile_also_trains_and_says_seconds_and_accuracy(done):
    place = done[0]
    shown = place.call("compare", TEXT, "--frameworks", "steady", "--profile", "full", "--budget", "1")
    assert shown.returncode == 0, shown.stderr
    document = json.loads(max(place.results.glob("*-full-*.json")).read_text(encoding="utf-8"))
    (cell,) = document["cells"]
    steps = 10 * -(-1437 // 64)
    assert document["profile"] == "full" and 0.5 < cell["accuracy"] < 1
    assert steps * 0.010 < cell["training"]["seconds"] < 10 * steps * 0.010
    assert len(cell["training"]["losses"]) == 10 and cell["training"]["losses"][-1] < cell["training"]["losses"][0]
    row = [line for line in shown.stdout.splitlines() if line.startswith("steady")][-1]
    seconds, loss = cell["training"]["seconds"], cell["training"]["losses"][-1]
    assert row.split() == ["steady", "10", f"{seconds:.0f}", "s", f"{loss:.3f}", f"{cell['accuracy']:.3f}"]


def test_a_result_is_kept_though_its_work_cannot_be_counted(place, monkeypatch, capsys):
    """A proof reads the golden alone: the reference need not run for a comparison."""
    place.plant("tiny")
    text = texts.load(place.stone / TEXT)
    assert compare.work_of(text).flops > 0
    place.edit(place.stone / TEXT / "reference.py", ("def forward(", "def forwards("))
    assert compare.work_of(text) is None
    assert "mine: no share of the roof, for its work cannot be counted: " in capsys.readouterr().err
    document = compare.Comparison(text, "quick", "sample", [], "2026-01-01T00:00:00+00:00").document()
    assert "work" not in document


def test_the_commit_is_that_of_our_own_checkout_alone(tmp_path, monkeypatch):
    root = compare.paths.PACKAGE.parents[1]
    found = compare.commit()
    assert (found is None) == (not (root / ".git").exists())
    theirs = tmp_path / "theirs"
    subprocess.run(["git", "init", "--quiet", theirs], check=True)
    (theirs / "site-packages" / "dlrosetta").mkdir(parents=True)
    monkeypatch.setattr(compare.paths, "PACKAGE", theirs / "lib" / "site-packages" / "dlrosetta")
    assert compare.commit() is None


def test_the_commit_is_that_of_the_beginning(monkeypatch):
    """A comparison may take hours, and who waits for it may commit meanwhile."""
    told = iter(["begun", "later"])
    monkeypatch.setattr(compare, "commit", lambda: next(told))
    found = compare.compare(texts.load(paths.stone_dirs()[0] / "cnn"), [])
    assert [found.document()["commit"] for _ in range(2)] == ["begun", "begun"]


def test_a_table_fits_a_terminal_of_80_columns(capsys, monkeypatch):
    """With the longest names that there are."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("cnn", "gru"):
        document = json.loads((paths.project_results() / f"{name}-quick.json").read_text(encoding="utf-8"))
        console.show_comparison(texts.load(paths.stone_dirs()[0] / name), document, None)
        shown = capsys.readouterr().out
        assert "keras_tensorflow" in shown and "…" not in shown
        assert max(map(len, shown.splitlines())) <= 80


def test_batches_of_one_s_own_are_for_what_is_not_trained():
    trained, used = (texts.load(paths.stone_dirs()[0] / name) for name in ("cnn", "resnet50"))
    compare.check_batches([used], "full", (8,))
    compare.check_batches([trained, used], "full", ())
    compare.check_batches([trained, used], "quick", (8,))
    with pytest.raises(UsageError, match="cnn is trained as it says"):
        compare.check_batches([used, trained], "full", (8,))
