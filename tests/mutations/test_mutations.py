"""The prover is proven: each fault of the catalogue is planted in a copy of a version, and must be caught and located.

One worker a framework and text serves all its faults, one after the other, in float32: that is what every framework can
do, and it has the looser bounds. By default torch's catalogue of `cnn` is planted whole, of the others every eighth
fault, of slow ones (which compile, or multiply at a snail's pace) and of other texts than `cnn` every twentieth, the
latter only in the frameworks that most people use; with `-m wide` the rest, and all of those that call a C++ compiler.
"""

import re
import shutil
from collections import Counter

import catalogue
import pytest

from dlrosetta import environments, frameworks, paths, texts
from dlrosetta.proof import asking, cell, run
from dlrosetta.sections import section_of

EDITS = catalogue.load()
FAULTS = [edit for edit in EDITS if edit.section]
WHOLE, EVERY, SELDOM = ("torch", "cnn"), 8, 20
USUAL = {"flax", "keras_tensorflow", "torch"}  # of other texts than `cnn`
SLOW = {"cntk", "equinox", "flax", "jittor", "libtorch", "mindspore", "mlx", "oneflow", "tinygrad", "tvm"}
COMPILED = {"jittor", "libtorch"}  # by a C++ compiler, anew after each edit: `wide` only
MANY = 25  # edits that one worker is asked about: JAX keeps every program that it has compiled, some 40 MB an edit
SAME = [edit for edit in EDITS if not edit.section]
AS_IT_IS = [
    catalogue.Edit(slug, text, "as it is", ()) for slug, text in sorted({(one.framework, one.text) for one in EDITS})
]
KNOWN = frameworks.find()
TEXTS = {name: texts.load(folder) for name, folder in texts.find(paths.stone_dirs()).items()}


class Prover:
    """One worker at a time, of a framework and a text, alive from one edit to the next. A fault may cost a worker."""

    def __init__(self):
        self.serves, self.worker, self.asked, self.given = None, None, 0, {}

    def prove(self, slug, text, dtypes, thorough=True):
        framework = KNOWN[slug]
        if self.serves != (slug, text.name) or self.asked == MANY or not self.worker.alive():
            self.close()
            self.worker = run.start(framework, environments.ensure(framework), threads=1, proof=True)
            self.serves, self.asked = (slug, text.name), 0
        self.asked += 1
        if text.name not in self.given:
            self.given[text.name] = asking.Given.of(text, run.goldens(text, KNOWN.values()), run.sample(text.data))
        version = run.version_of(text, framework)
        return list(cell.examine(self.worker, text, framework, version, self.given[text.name], dtypes, thorough))

    def close(self):
        if self.worker is not None:
            self.worker.close()


@pytest.fixture(scope="module")
def prover():
    one = Prover()
    yield one
    one.close()


@pytest.fixture
def copy(tmp_path):
    """Copies a text and one of its versions, edited, and loads it from there."""

    def make(edit):
        ours = TEXTS[edit.text]
        folder = tmp_path / "stone" / edit.text
        folder.mkdir(parents=True)
        for path in (ours.folder / "text.toml", ours.folder / "reference.py", *ours.folder.glob("golden*.npz")):
            shutil.copy(path, folder)
        source = run.version_of(ours, KNOWN[edit.framework]).read_text(encoding="utf-8")
        text = texts.load(folder)
        run.version_of(text, KNOWN[edit.framework]).write_text(edit.apply(source), encoding="utf-8")
        return text

    return make


def allowed(edit):
    """Verdicts of what is no fault. Whether a waiver of float32 is needed may hang on the order of a sum."""
    text = TEXTS[edit.text]
    if text.variant_for(edit.framework):
        return {"waived"}
    waived = any(edit.framework in one["frameworks"] and one["dtype"] == "float32" for one in text.waivers)
    return {"proven", "waived"} if waived else {"proven"}


def _usual(edit):
    return edit.framework in USUAL or (edit.text == "cnn" and edit.framework not in COMPILED)


def _param(edit, wide):
    return pytest.param(edit, id=str(edit), marks=[pytest.mark.wide] if wide else [])


def chosen(edits):
    """Parameters of a test: those that are not run by default are marked `wide`."""
    places, found = Counter(), []
    for edit in edits:
        every = EVERY if edit.text == "cnn" and edit.framework not in SLOW else SELDOM
        place = edit.framework, edit.text
        found.append(_param(edit, place != WHOLE and (places[place] % every or not _usual(edit))))
        places[place] += 1
    return found


@pytest.mark.frameworks
@pytest.mark.parametrize("edit", chosen(FAULTS))
def test_a_fault_is_caught_and_located(prover, edit, copy):
    text = copy(edit)
    version = run.version_of(text, KNOWN[edit.framework])
    (found,) = prover.prove(edit.framework, text, ["float32"], thorough=False)
    wrong = [check.name for check in found.checks if check.verdict == "differs"]
    assert found.verdict == edit.verdict, found.detail or found.reason
    where = found.first_departure
    assert (where["section"], where["layer"]) == (edit.section, edit.layer), (found.reason, wrong)
    assert section_of(version, where["line"]) == edit.section, (where, found.reason)


# Faults of PyTorch's `cnn` that show in mixed precision too, where they are planted anew.
IN_BFLOAT16 = """
padding moved to the layer before, padded with copies of the border, stride 2 in place of pooling, dilated,
overlapping pooling windows, flattened channels last, softmax in the model, gradient stopped, layer frozen,
activation capped at six, summed, label smoothing, loss on the wrong labels, nesterov, weight decay, ascent,
gradients never cleared, updates twice, summed in the train step only, first half of the batch only
"""


@pytest.mark.frameworks
@pytest.mark.parametrize("name", re.split(r",\s", IN_BFLOAT16.strip()))
def test_a_fault_is_caught_and_located_in_bfloat16_too(prover, name, copy):
    (edit,) = [one for one in FAULTS if (one.framework, one.text, one.name) == (*WHOLE, name)]
    (found,) = prover.prove(edit.framework, copy(edit), ["bfloat16"], thorough=False)
    where = found.first_departure
    assert found.verdict == "differs" and (where["section"], where["layer"]) == (edit.section, edit.layer), found.reason


def all_but_slow(edits):
    """Parameters of a test that proves to the end: of slow frameworks, and of other texts than `cnn`, each is marked
    `wide`: test_stone proves those as they are. Of the others every second one is.
    """
    places, found = Counter(), []
    for edit in edits:
        place = edit.framework, edit.text
        seldom = place != WHOLE and places[place] % 2
        found.append(_param(edit, seldom or edit.framework in SLOW or edit.text != "cnn"))
        places[place] += 1
    return found


@pytest.mark.frameworks
@pytest.mark.parametrize("edit", all_but_slow(SAME))
def test_other_words_for_the_same_are_no_fault(prover, edit, copy):
    (found,) = prover.prove(edit.framework, copy(edit), ["float32"])
    assert found.verdict in allowed(edit), found.reason


@pytest.mark.frameworks
@pytest.mark.parametrize("edit", all_but_slow(AS_IT_IS))
def test_a_version_as_it_is_is_proven(prover, edit, copy):
    (found,) = prover.prove(edit.framework, copy(edit), ["float32"])
    assert found.verdict in allowed(edit), found.reason


@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_an_edit_changes_exactly_what_it_names(edit):
    text = TEXTS[edit.text]
    version = run.version_of(text, KNOWN[edit.framework])
    edited = edit.apply(version.read_text(encoding="utf-8"))
    if version.suffix == ".py":
        compile(edited, str(edit), "exec")


def test_an_edit_that_has_no_place_is_refused():
    edit = catalogue.Edit("torch", "cnn", "x", (("padding=1", "padding=0"),))
    with pytest.raises(ValueError, match=r"exactly one place\. Received: 2 of 'padding=1'"):
        edit.apply("padding=1, padding=1")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_catalogue_is_wide(text):
    """At least four versions (or all there are) of a text have faults, each enough of them."""
    written = {run.version_of(text, one) for one in KNOWN.values()}
    faults = Counter(edit.framework for edit in FAULTS if edit.text == text.name)
    assert len(faults) >= min(4, sum(path.is_file() for path in written))
    assert all(count >= 8 for count in faults.values())


def test_no_name_is_used_twice():
    assert len({str(edit) for edit in EDITS}) == len(EDITS)
