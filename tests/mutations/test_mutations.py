"""The prover is proven: each fault of the catalogue is planted in a copy of a version, and must be caught and located.

A worker a framework serves all its faults, one after the other, in float32: that is what every framework can do, and it has the looser bounds.
"""

import shutil
from collections import Counter
from dataclasses import dataclass

import pytest

from dlrosetta import client, environments, frameworks, golden, paths, texts
from dlrosetta.proof import cell, run
from dlrosetta.sections import section_of

import catalogue

EDITS = catalogue.load()
FAULTS = [edit for edit in EDITS if edit.section]
SAME = [edit for edit in EDITS if not edit.section]
PROVEN = sorted({(edit.text, edit.framework) for edit in EDITS})
KNOWN = frameworks.find()


@dataclass
class Prover:
    """One framework's worker, alive from one edit to the next; a fault may cost a worker, then the next one is started."""

    framework: frameworks.Framework
    given: dict[str, cell.Given]
    worker: client.Worker | None = None

    def prove(self, text, dtypes):
        if self.worker is None or not self.worker.alive():
            self.close()
            python = environments.ensure(self.framework)
            self.worker = run.start(self.framework, python, threads=1, data="sample")
        if text.name not in self.given:
            self.given[text.name] = cell.Given.of(text, golden.load(text), run.sample(text.data))
        version = run.version_of(text, self.framework)
        return list(cell.examine(self.worker, text, self.framework, version, self.given[text.name], dtypes))

    def close(self):
        if self.worker is not None:
            self.worker.close()


@pytest.fixture(scope="module")
def given():
    """What every cell of a text is given, made once."""
    return {}


@pytest.fixture(scope="module")
def prover(request, given):
    """The worker of the framework named by the parameter: made anew when the framework changes, so that one is alive at a time."""
    one = Prover(KNOWN[request.param], given)
    yield one
    one.close()


@pytest.fixture
def copy(tmp_path):
    """Copies a text and one of its versions, edited, and loads it from there."""

    def make(edit):
        ours = texts.load(texts.find(paths.stone_dirs())[edit.text])
        folder = tmp_path / "stone" / edit.text
        folder.mkdir(parents=True)
        for name in ("text.toml", "reference.py", "golden.npz"):
            shutil.copy(ours.folder / name, folder)
        source = run.version_of(ours, KNOWN[edit.framework]).read_text(encoding="utf-8")
        text = texts.load(folder)
        run.version_of(text, KNOWN[edit.framework]).write_text(edit.apply(source), encoding="utf-8")
        return text

    return make


def over(edits):
    """Parameters of a test over edits; pytest groups them by framework, since the prover lives as long as the module."""
    return pytest.mark.parametrize(
        ("prover", "edit"), [pytest.param(edit.framework, edit, id=str(edit)) for edit in edits], indirect=["prover"]
    )


@pytest.mark.frameworks
@over(FAULTS)
def test_a_fault_is_caught_and_located(prover, edit, copy):
    text = copy(edit)
    version = run.version_of(text, prover.framework)
    (found,) = prover.prove(text, ["float32"])
    wrong = [check.name for check in found.checks if check.verdict == "differs"]
    assert found.verdict == "differs", found.detail or found.reason
    where = found.first_departure
    assert (where["section"], where["layer"]) == (edit.section, edit.layer), (found.reason, wrong)
    assert section_of(version, where["line"]) == edit.section, (where, found.reason)


@pytest.mark.frameworks
@over(SAME)
def test_other_words_for_the_same_are_no_fault(prover, edit, copy):
    (found,) = prover.prove(copy(edit), ["float32"])
    assert (found.verdict, found.reason) == ("proven", None)


@pytest.mark.frameworks
@over([catalogue.Edit(framework, text, "as it is", ()) for text, framework in PROVEN])
def test_a_version_as_it_is_is_proven(prover, edit, copy):
    single, *double = prover.prove(copy(edit), [name for name in run.DTYPES if name in prover.framework.dtypes])
    assert (single.dtype, single.verdict, single.reason) == ("float32", "proven", None)
    assert all(found.verdict in ("proven", "waived") for found in double), [found.reason for found in double]


@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_an_edit_changes_exactly_what_it_names(edit):
    text = texts.load(texts.find(paths.stone_dirs())[edit.text])
    source = run.version_of(text, KNOWN[edit.framework]).read_text(encoding="utf-8")
    compile(edit.apply(source), str(edit), "exec")


def test_an_edit_that_has_no_place_is_refused():
    edit = catalogue.Edit("torch", "cnn", "x", (("padding=1", "padding=0"),))
    with pytest.raises(ValueError, match="exactly one place. Received: 2 of 'padding=1'"):
        edit.apply("padding=1, padding=1")


def test_the_catalogue_is_wide():
    """Each framework has its own faults, and every name is used once within it."""
    faults = Counter(edit.framework for edit in FAULTS)
    assert len(faults) >= 4
    assert min(faults.values()) >= 8
    assert len({str(edit) for edit in EDITS}) == len(EDITS)
