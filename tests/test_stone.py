"""Every version that is there is the same model, in every framework. Real environments, real workers."""

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

from dlrosetta import environments, frameworks, golden, paths, sections, texts, timed, weights
from dlrosetta.proof import run
from dlrosetta.proof.checks import vague

# The first test makes every environment; one of them compiles itself for minutes.
pytestmark = pytest.mark.timeout(2400)

ROSETTA = Path(sys.executable).with_name("rosetta")
KNOWN = frameworks.find()
TEXTS = {name: texts.load(folder) for name, folder in texts.find(paths.stone_dirs()).items()}
CANNOT = [(slug, dtype) for slug, one in KNOWN.items() for dtype in (*run.DTYPES, run.MIXED) if dtype not in one.dtypes]
# What a version of each language says of the project: that it takes its data from there.
OURS = {
    ".py": ["from dlrosetta import data"],
    ".cpp": ["#include <dlrosetta/data.hpp>", "namespace data = dlrosetta::data;"],
}
CELLS = [(name, slug) for name, text in TEXTS.items() for slug, one in KNOWN.items() if run.has_version(text, one)]
VAGUE = {name for name, text in TEXTS.items() if vague(golden.load(text))}
# By default `cnn` is proven everywhere and the other texts where most people are; the rest with `-m wide`.
USUAL = ("flax", "keras_tensorflow", "torch")
MUCH = 6  # times its bound is the most that a waiver for some CPUs may allow a check


def usual(text, slug):
    return text == "cnn" or slug in USUAL


def cells(pairs):
    """Parameters (text, slug) of a test: those that are not run by default are marked `wide`."""
    return [pytest.param(*pair, marks=[] if usual(*pair) else [pytest.mark.wide]) for pair in pairs]


WAIVED = [
    (name, slug, number)
    for name, text in TEXTS.items()
    for number, waiver in enumerate(text.waivers)
    for slug in waiver["frameworks"]
    if "devices" not in waiver  # see test_parallel.py
]
VERSIONS = sorted({run.version_of(TEXTS[name], KNOWN[slug]) for name, slug in CELLS})


MIXED = [(name, slug) for name, slug in CELLS if run.MIXED in KNOWN[slug].dtypes and name not in VAGUE]


def expected(text, slug, dtype):
    """Verdicts that hold: a cell with a waiver or a variant is waived and nothing else, unless its waivers are needed
    on some CPUs only.
    """
    waivers = [
        one
        for one in TEXTS[text].waivers
        if slug in one["frameworks"] and one["dtype"] == dtype and "devices" not in one
    ]
    if TEXTS[text].variant_for(slug) or not all(one.get("some_cpus") for one in waivers):
        return {"waived"}
    return {"proven", "waived"} if waivers else {"proven"}


@pytest.fixture(scope="module")
def proven():
    """Looks up a cell of `rosetta prove TEXT --json` by text, framework and dtype; proves all usual ones of a text at
    once, and all others; in mixed precision, apart.
    """
    found = {}

    def look(text, slug, dtype):
        if (text, slug, dtype) not in found:
            those = MIXED if dtype == run.MIXED else CELLS
            together = [one for name, one in those if name == text and usual(name, one) == usual(text, slug)]
            command = [ROSETTA, "prove", text, "--frameworks", ",".join(together), "--patience", "600", "--json"]
            command += ["--dtype", dtype] if dtype == run.MIXED else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr + done.stdout[-4000:]
            for cell in json.loads(done.stdout)["cells"]:
                found[text, cell["framework"], cell["dtype"]] = cell
        return found[text, slug, dtype]

    return look


@pytest.mark.frameworks
@pytest.mark.parametrize(("text", "slug"), cells(CELLS))
def test_every_version_is_proven_in_float32(proven, text, slug):
    cell = proven(text, slug, "float32")
    assert cell["verdict"] in expected(text, slug, "float32"), cell["reason"]
    assert len(cell["checks"]) > (100 if cell["scope"] == "all" else 40)


@pytest.mark.frameworks
@pytest.mark.parametrize(("text", "slug"), cells(CELLS))
def test_and_in_float64_or_it_says_why_not(proven, text, slug):
    cell = proven(text, slug, "float64")
    if "float64" in KNOWN[slug].dtypes:
        assert cell["verdict"] in expected(text, slug, "float64"), cell["reason"]
    else:
        assert (cell["verdict"], cell["reason"]) == ("cannot", KNOWN[slug].cannot["float64"])
        assert "https://" in cell["reason"]


@pytest.mark.wide
@pytest.mark.frameworks
@pytest.mark.parametrize(("text", "slug"), CELLS)
def test_a_model_as_it_is_built_takes_steps_in_full_size(text, slug):
    """As in a comparison, after its parameters were read: a proof loads its own, into a smaller model of some texts."""
    text, framework = TEXTS[text], KNOWN[slug]
    cell = timed.Timed(framework, "proven", proof=run.key(text, framework, "float32"))
    python = environments.ensure(framework)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        given = None if text.trains else weights.find(text, folder)
        timed.open_worker(cell, text, python, 600, stack, given, 1)
    assert cell.second_call_s > 0


@pytest.mark.frameworks
@pytest.mark.parametrize(("text", "slug"), cells(MIXED))
def test_and_in_bfloat16_where_the_framework_can(proven, text, slug):
    cell = proven(text, slug, run.MIXED)
    assert cell["verdict"] in expected(text, slug, run.MIXED), cell["reason"]
    assert sum(check["name"].startswith("bfloat16 in ") for check in cell["checks"]) >= 4  # layers, twice


@pytest.mark.frameworks
def test_a_text_of_which_bfloat16_tells_too_little_is_not_proven_in_it():
    assert {"densenet121"} == VAGUE
    (cell,) = run.prove(TEXTS["densenet121"], [KNOWN["torch"]], [run.MIXED])
    assert cell.verdict == "cannot" and "err by more than a sixth in bfloat16" in cell.reason


def test_who_cannot_take_bfloat16_says_why():
    for one in KNOWN.values():
        assert run.MIXED in one.dtypes or "https://" in one.cannot[run.MIXED], one.slug


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("text", "slug", "number"),
    [pytest.param(*one, marks=[] if usual(*one[:2]) else [pytest.mark.wide]) for one in WAIVED],
)
def test_every_waiver_is_still_needed(proven, text, slug, number):
    """Passing unexpectedly is a failure too: then the waiver hides what is no longer there."""
    waiver = TEXTS[text].waivers[number]
    checks = proven(text, slug, waiver["dtype"])["checks"]
    for pattern in waiver["checks"]:
        named = [one for one in checks if fnmatch(one["name"], pattern)]
        if waiver.get("some_cpus"):  # where it is not needed, it may not allow much more either
            assert named, pattern
            assert all(one["verdict"] == "waived" or waiver["bound"] <= MUCH * one["bound"] for one in named), pattern
        else:
            assert any(one["verdict"] == "waived" for one in named), pattern


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("text", "slug"), cells([(name, slug) for name, slug in CELLS if TEXTS[name].variant_for(slug)])
)
def test_every_variant_is_still_needed(text, slug):
    (cell,) = run.prove(replace(TEXTS[text], variants=[]), [KNOWN[slug]], ["float32"])
    assert cell.verdict == "differs"


@pytest.mark.frameworks
@pytest.mark.parametrize(("slug", "dtype"), CANNOT)
def test_what_cannot_be_still_cannot(slug, dtype):
    """Not all of its texts hold in that precision; mostly the first one does not."""
    able = replace(KNOWN[slug], dtypes=(*run.DTYPES, run.MIXED))
    asked = [text for text in TEXTS.values() if run.has_version(text, able)]
    assert any(run.prove(text, [able], [dtype])[0].verdict in ("differs", "failed") for text in asked)


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.name)
def test_a_version_has_its_sections_is_short_and_imports_only_what_it_may(path):
    source = path.read_text(encoding="utf-8")
    trains = any(
        KNOWN[slug].trains(TEXTS[name].trains)
        for name, slug in CELLS
        if run.version_of(TEXTS[name], KNOWN[slug]) == path
    )
    left_out = () if trains else sections.OF_TRAINING
    assert [part.name for part in sections.split(source)] == ["", *(n for n in sections.NAMES if n not in left_out)]
    assert len(source.splitlines()) <= (180 if TEXTS[path.parent.name].data_parallel else 160)
    for word in ("argparse", "time", "logging", "dlrosetta.worker", "dlrosetta.proof"):
        assert f"import {word}" not in source and f"from {word}" not in source, word
    assert [line for line in source.splitlines() if "dlrosetta" in line] == OURS[path.suffix]
