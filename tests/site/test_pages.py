"""What every page keeps: valid HTML, links that lead somewhere, a policy, sizes; and what a file says stays text."""

import html.parser
import json
import posixpath
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import html5lib
import pytest

from dlrosetta import paths
from dlrosetta.errors import RosettaError
from dlrosetta.site import build, material, words

MOST = 300_000  # bytes of a page without its charts
KINDS = (
    "index.html", "404.html", "texts/index.html", "texts/cnn/index.html", "texts/gpt/libtorch.html",
    "texts/cnn/about.html", "concordance/index.html", "matrix/index.html", "matrix/cnn/tensorflow.html",
    "matrix/cnn/flax.html", "matrix/gru/cntk.html", "speed/index.html", "speed/gru.html", "speed/gpt.html",
    "frameworks/index.html", "frameworks/flax.html", "docs/index.html", "docs/method.html", "docs/commands.html",
)  # fmt: skip


class Page(html.parser.HTMLParser):
    """The links, identifiers and forbidden things of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.inline = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if "id" in named:
            self.ids.append(named["id"])
        for key in ("href", "src", "action"):
            if key in named:
                (self.links if tag in ("a", "form") else self.loads).append(named[key])
        if tag == "style" or (tag == "script" and "src" not in named):
            self.inline.append(tag)
        self.inline += [key for key in named if key == "style" or key.startswith("on")]


@pytest.fixture(scope="module")
def pages(site):
    every = sorted(site.rglob("*.html"))
    return {path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8")) for path in every}


def test_there_are_pages_in_both_languages(site, pages):
    english = {place for place in pages if not place.startswith("zh/")}
    assert {f"zh/{place}" for place in english} == set(pages) - english
    assert len(english) > 150
    assert set(KINDS) - {"texts/gpt/libtorch.html"} <= english


def test_every_link_leads_to_a_file_and_every_anchor_is_there(site, pages):
    wrong = []
    for place, page in pages.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme == "https", link
                continue
            base = "" if parts.path.startswith("/") else posixpath.dirname(place)
            path = posixpath.normpath(posixpath.join(base, unquote(parts.path).lstrip("/"))) if parts.path else place
            if parts.path.endswith("/") or path == ".":
                path = posixpath.normpath(posixpath.join(path, "index.html"))
            if not (site / path).is_file() or (parts.fragment and parts.fragment not in pages[path].ids):
                wrong.append((place, link))
    assert wrong == []


def test_identifiers_are_unique_and_nothing_is_inline_or_from_elsewhere(pages):
    for place, page in pages.items():
        assert len(set(page.ids)) == len(page.ids), place
        assert page.inline == [], place
        assert not [one for one in page.loads if urlsplit(one).netloc], place


def test_every_page_has_the_policy_and_its_language(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert f'<meta http-equiv="Content-Security-Policy" content="{build.POLICY}">'.replace("'", "&#39;") in text
        code = "zh-Hans" if path.relative_to(site).parts[0] == "zh" else "en"
        assert f'<html lang="{code}">' in text


@pytest.mark.parametrize("language", ["", "zh/"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "libtorch" not in kind])
def test_pages_are_valid(site, language, kind):
    """By html5lib, which refuses what browsers would mend."""
    html5lib.HTMLParser(strict=True).parse((site / language / kind).read_text(encoding="utf-8"))


def test_that_test_would_notice():
    with pytest.raises(html5lib.html5parser.ParseError):
        html5lib.HTMLParser(strict=True).parse("<!doctype html><title>x</title><p><b>bold</p>")


def test_no_page_tells_of_the_machine_that_made_it(site):
    told = [str(material.ROOT), str(Path.home()), str(site), "PosixPath", "object at 0x"]
    for path in [*site.rglob("*.html"), *site.rglob("*.json"), *site.rglob("*.ipynb")]:
        text = path.read_text(encoding="utf-8")
        assert not [one for one in told if one in text], path


def test_pages_are_small(site):
    sizes = {}
    for path in site.rglob("*.html"):
        text = re.sub(r"<svg .*?</svg>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        sizes[path.relative_to(site).as_posix()] = len(text.encode())
    assert max(sizes.values()) < MOST, max(sizes, key=sizes.get)
    assert sizes["texts/cnn/index.html"] < 150_000
    for path in [*site.rglob("*.json"), *(site / "static").iterdir()]:
        assert path.stat().st_size < MOST, path


OWN = ("titles.", "leads.")  # of texts: only where a language has them


def test_the_longest_proof_is_a_small_page(tmp_path, published, stone):
    """Of a model with fifty parameters in two precisions: each in every kind of check, as Adam has them."""
    kinds = ("parameter", "gradient", "initial", "input", "output")
    kinds += tuple(f"{loud}{one}" for loud in ("", "loud ", "quiet ") for one in ("optimizer", "step 1", "step 20"))
    names = [f"{kind}/{moment}block1.layer{n}.conv1.weight" for kind in kinds for moment in ("", "moment1/", "moment2/")
             for n in range(30)]  # fmt: skip
    checks = [{"name": name, "error": 9.87e-07, "bound": 1.23e-06, "verdict": "proven"} for name in names]
    cell = {"framework": "torch", "verdict": "proven", "scope": "all", "checks": checks, "first_departure": None}
    cells = [{**cell, "dtype": dtype, "reason": None, "hashes": {}} for dtype in ("float32", "float64")]
    shutil.copytree(published, tmp_path / "results")
    document = json.dumps({"schema": 1, "text": "cnn", "cells": cells})
    (tmp_path / "results" / "proofs" / "cnn.json").write_text(document)
    build.build(tmp_path / "site", (), (), tmp_path / "results")
    page = tmp_path / "site" / "matrix" / "cnn" / "torch.html"
    assert len(checks) > 1200
    assert 150_000 < page.stat().st_size < MOST


def test_words_are_the_same_in_every_language():
    every = [words.keys(words.load(language)) for language in words.LANGUAGES]
    first, *others = [
        {key: set(re.findall(r"\{\w*\}", text)) for key, text in one.items() if not key.startswith(OWN)}
        for one in every
    ]
    for other in others:
        assert other == first
    said = words.keys(words.load("zh"))
    chinese = [key for key, text in said.items() if re.search(r"[\u4e00-\u9fff]", text)]
    assert len(chinese) > 0.9 * len(said)


def test_charts_speak_the_language_of_their_page(site):
    said = {language: words.load(language)["report"] for language in words.LANGUAGES}
    for language, place in (("en", "speed/gru.html"), ("zh", "zh/speed/gru.html")):
        drawn = "".join(re.findall(r"<svg.*?</svg>", (site / place).read_text(encoding="utf-8"), re.S))
        for key in ("memory_axis", "seconds_axis", "minutes_axis", "loss", "compile"):
            assert [one for one in words.LANGUAGES if f">{said[one][key]}<" in drawn] == [language], key


def test_what_was_printed_in_2018_stands_beside_today(site):
    """A figure of today's is the result's, which is linked, with the command that makes it again."""
    page = (site / "speed/index.html").read_text(encoding="utf-8")
    told = json.loads((paths.project_results() / "resnet50-full.json").read_text(encoding="utf-8"))
    (speed,) = [cell["items_per_second"]["median"] for cell in told["cells"] if cell["framework"] == "torch"]
    rows = re.findall(r'<tr><th scope="row">PyTorch</th>(.*?)</tr>', page, re.S)
    (photos,) = [row for row in rows if "resnet50-full.json" in row]
    assert re.findall(r'data-value="([^"]*)"', photos) == ["7.7", "1.9", str(1000 / speed)]
    assert "rosetta compare resnet50 --frameworks torch --batch 8 --profile full" in page
    (training,) = [row for row in rows if "cnn-keras_tensorflow-torch-full.json" in row]
    assert re.findall(r">([^<>]+)</td>", training)[:4] == ["0.78", "0.773", "169 s", "51 s"]


def test_every_word_is_used():
    """What a word is called stands in a template, or is looked up by what it names."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (build.HERE / "templates").iterdir())
    sources += "".join(path.read_text(encoding="utf-8") for path in build.HERE.glob("*.py"))
    by_name = (
        "sections.",
        "verdict.",
        "meaning.",
        "groups.",
        "report.",
        "site.",
        "frameworks.",
        "topics.",
        "hurts.",
    )
    unused = [key for key in words.keys(words.load("en")) if not key.startswith(by_name) and f"w.{key}" not in sources]
    assert unused == []


# -- what files say ----------------------------------------------------------------------------------------------------

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def stone(tmp_path, monkeypatch):
    """A stone of one text, so that a site of it is made soon."""
    shutil.copytree(paths.stone_dirs()[0] / "cnn", tmp_path / "stone" / "cnn")
    monkeypatch.setattr(paths, "stone_dirs", lambda extra=(): [tmp_path / "stone"])
    monkeypatch.setattr(words, "LANGUAGES", ("en",))
    return tmp_path / "stone"


def test_what_files_say_is_text(tmp_path, published, stone):
    """In versions, READMEs, titles and reasons."""
    version = stone / "cnn" / "cnn_torch.py"
    version.write_text(version.read_text().replace("# %% Model", f'# %% Model\n# {EVIL} \x1b[31m\n"{EVIL}"'))
    readme = stone / "cnn" / "README.md"
    note = f"### Model\n\n{EVIL}\n\n<b>bold</b> [x](javascript:alert(3))\n"
    readme.write_text(readme.read_text().replace("### Model", note))
    text = stone / "cnn" / "text.toml"
    text.write_text(re.sub(r'title = "[^"]*"', f"title = '{EVIL}'", text.read_text(), count=1))
    build.build(tmp_path / "site", (), (), published)
    for place in ("index.html", "texts/cnn/index.html", "texts/cnn/torch.html", "texts/cnn/about.html"):
        page = (tmp_path / "site" / place).read_text(encoding="utf-8")
        assert "&lt;/script&gt;&lt;script&gt;" in page, place
        assert "<script>" not in page and "<img" not in page and "javascript:" not in page.replace("(javascript:", "")
        assert "\x1b" not in page
        assert Page(page).inline == []
        html5lib.HTMLParser(strict=True).parse(page)


def test_a_proof_of_what_was_changed_since_says_so(site):
    """That of Equinox is of another version: the matrix does not repeat it, and its own page says of when it is."""
    matrix = (site / "matrix" / "index.html").read_text(encoding="utf-8")
    (cell,) = re.findall(r'<td class="([a-z-]+)"><a href="[^"]*cnn/equinox\.html"', matrix)
    assert cell == "changed"
    said = words.load("en")["proof"]["changed"]
    assert said in (site / "matrix" / "cnn" / "equinox.html").read_text(encoding="utf-8")
    assert said not in (site / "matrix" / "cnn" / "torch.html").read_text(encoding="utf-8")
    (verdicts,) = re.findall(
        r'<ul class="verdicts">.*?</ul>', (site / "texts" / "cnn" / "equinox.html").read_text(encoding="utf-8"), re.S
    )
    assert "changed since its proof" in verdicts and "proven" not in verdicts.replace("not proven", "")


def test_a_link_to_nowhere_stops_the_build(tmp_path, published, stone):
    with (stone / "cnn" / "README.md").open("a") as readme:
        readme.write("\n[lost](lost.md)\n")
    with pytest.raises(RosettaError, match=r"stone/cnn/README\.md: expected links .* Received: stone/cnn/lost\.md"):
        build.build(tmp_path / "site", (), (), published)
    assert not list(tmp_path.glob(".site*")) and not (tmp_path / "site").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RosettaError, match="Expected a folder that is empty, new, or of an earlier build"):
        build.build(tmp_path, (), (), None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_broken_proof_is_named(tmp_path, published):
    shutil.copytree(published, tmp_path / "results")
    (tmp_path / "results" / "proofs" / "gru.json").write_text('{"schema": 1, "text": "gru"}')
    with pytest.raises(RosettaError, match=r"gru\.json: expected a document of `rosetta prove --json`"):
        build.build(tmp_path / "site", (), (), tmp_path / "results")
