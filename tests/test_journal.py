"""What was measured is kept, whatever happens to the one who measures."""

import json

import pytest

from dlrosetta.journal import Journal, folder


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSETTA_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def test_what_was_added_is_there_for_who_resumes():
    one = Journal("cnn-1")
    one.add(kind="steps", turns={"torch": [1.5, 1.0]})
    one.add(trained="torch", metric=0.75)
    again = Journal("cnn-1", resume=True)
    assert again.lines == one.lines
    assert again.of("kind") == [{"kind": "steps", "turns": {"torch": [1.5, 1.0]}}]
    again.add(kind="load")
    assert [len(Journal(key, resume=True).lines) for key in ("cnn-1", "cnn-2")] == [3, 0]


def test_who_does_not_resume_begins_anew():
    Journal("cnn-1").add(kind="steps")
    assert Journal("cnn-1").lines == [] and Journal("cnn-1", resume=True).lines == []


def test_it_is_whole_at_every_moment_and_leaves_nothing_when_it_is_done(results):
    journal = Journal("cnn-1")
    for number in range(20):
        journal.add(number=number)
        lines = journal.path.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["number"] for line in lines] == list(range(number + 1))
        assert list(folder().iterdir()) == [journal.path]
    journal.remove()
    assert list(results.iterdir()) == []
    journal.remove()


def test_files_lie_beside_the_lines_as_long_as_those(tmp_path):
    journal = Journal("photos-1")
    for slug in ("a", "b"):
        (tmp_path / "out.bin").write_text(slug, encoding="utf-8")
        kept = journal.keep(tmp_path / "out.bin", made=slug)
        assert kept.read_text(encoding="utf-8") == slug and not (tmp_path / "out.bin").exists()
    again = Journal("photos-1", resume=True)
    files = {line["made"]: again.files / line["file"] for line in again.of("made")}
    assert {slug: file.read_text(encoding="utf-8") for slug, file in files.items()} == {"a": "a", "b": "b"}
    Journal("photos-1")
    assert not again.files.exists()


def test_a_file_that_cannot_be_moved_stays_and_costs_no_other(tmp_path):
    said = []
    journal = Journal("photos-1", say=said.append)
    journal.files.write_text("a file in place of the folder", encoding="utf-8")
    out = tmp_path / "out.bin"
    out.write_text("a", encoding="utf-8")
    assert journal.keep(out, made="a") == out and out.exists()
    journal.add(kind="steps")
    assert Journal("photos-1", resume=True).lines == [{"kind": "steps"}]
    assert "on --resume it would be made again" in said[0]


@pytest.mark.parametrize("damage", ['{"kind": "st', "[1]\n", "\x00\x00"])
def test_of_a_damaged_journal_what_comes_before_is_used(damage):
    journal = Journal("cnn-1")
    journal.add(kind="steps")
    with journal.path.open("a", encoding="utf-8") as file:
        file.write(damage)
    assert Journal("cnn-1", resume=True).lines == [{"kind": "steps"}]


def test_where_it_cannot_be_written_the_comparison_goes_on_and_says_so(results):
    said = []
    results.write_text("a file in place of the folder", encoding="utf-8")
    journal = Journal("cnn-1", say=said.append)
    journal.add(kind="steps")
    journal.add(kind="steps")
    assert len(journal.lines) == 2 and len(said) == 1
    assert said[0].endswith("cannot be written (Not a directory): this comparison could not be resumed")
