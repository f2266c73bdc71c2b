"""What holds on every kind of page, in a real browser: theme, language, search, accessibility; pictures of them all."""

import json
import os
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import opened, until
from PIL import Image
from playwright.sync_api import expect

from dlrosetta.site import concordance

PICTURES = os.environ.get("ROSETTA_SITE_PICTURES")  # a folder for photographs of every kind of page
KINDS = {
    "home": "", "texts": "texts/", "text": "texts/cnn/", "version": "texts/gru/mlx.html",
    "about": "texts/gru/about.html", "concordance": "concordance/?q=nn.GRU", "matrix": "matrix/",
    "proof": "matrix/cnn/tensorflow.html", "differs": "matrix/cnn/flax.html", "unproven": "matrix/gru/cntk.html",
    "speed": "speed/", "speeds": "speed/cnn.html", "frameworks": "frameworks/", "framework": "frameworks/flax.html",
    "docs": "docs/", "doc": "docs/architecture.html", "commands": "docs/commands.html", "missing": "404.html",
}  # fmt: skip
PHONE = {"width": 390, "height": 844}


def theme(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_theme_is_the_systems_until_a_reader_chooses(browser, address):
    with opened(browser, address, color_scheme="dark") as page:
        page.goto(address)
        dark = theme(page)
        page.get_by_role("button", name="Theme: as the system").click()
        light = theme(page)
        assert dark != light
        page.goto(f"{address}matrix/")
        assert theme(page) == light
        page.get_by_role("button", name="Theme: light").click()
        assert theme(page) == dark
        page.emulate_media(color_scheme="light")
        assert theme(page) == dark
        page.get_by_role("button", name="Theme: dark").click()
        assert theme(page) == light


def test_the_language_is_switched_on_the_same_page(page, address):
    page.goto(f"{address}matrix/cnn/torch.html")
    page.get_by_role("link", name="中文").click()
    expect(page).to_have_url(f"{address}zh/matrix/cnn/torch.html")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    expect(page.locator("h1")).to_contain_text("证明")
    page.get_by_role("link", name="矩阵", exact=True).first.click()
    expect(page).to_have_url(f"{address}zh/matrix/")
    page.get_by_role("link", name="English").click()
    expect(page).to_have_url(f"{address}matrix/")


def test_a_page_that_is_not_there(browser, address):
    with opened(browser, address) as page:
        answer = page.goto(f"{address}texts/no/such/page")
        assert answer.status == 404
        page.wrong.clear()  # the console tells of the status
        page.get_by_role("link", name="GRU on IMDB").click()
        expect(page).to_have_url(re.compile(rf"^{re.escape(address)}texts/gru/"))


# -- search ------------------------------------------------------------------------------------------------------------


def test_a_stranger_finds_the_gru_in_flax(page, address):
    """By clicking alone: what is known, what is needed, the lines, what would have gone wrong, the proof, the speed."""
    page.goto(address)
    page.get_by_label("I know").select_option("torch")
    page.get_by_label("I need").select_option("flax")
    page.get_by_label("Search every name").fill("nn.GRU")
    page.get_by_role("button", name="Search").click()
    hit = page.locator(".hit").first
    expect(hit.locator(".lit")).to_contain_text("nn.GRU(EMBEDDING, HIDDEN, batch_first=True)")
    expect(hit.locator(".version").nth(1)).to_contain_text("nnx.GRUCell")
    hit.get_by_role("link", name="Layer gru").click()
    expect(page.locator("#torch-L41")).to_be_in_viewport()
    expect(page.locator("[data-row=Model] [data-version=flax] .line", has_text="nnx.GRUCell(")).to_be_in_viewport()
    expect(page.locator("#model aside.notes")).to_contain_text("draw from 0 to")
    page.locator("[data-row=heads] [data-version=flax]").get_by_role("link", name="Proof of Flax").click()
    expect(page.locator("h1")).to_contain_text("GRU on IMDB in Flax (NNX): the proof")
    page.get_by_role("link", name="Speed").click()
    page.get_by_role("link", name="GRU on IMDB").first.click()
    expect(page.get_by_role("rowheader", name="flax").first).to_be_visible()


def test_search_answers_while_typing_and_is_remembered_in_the_address(page, address):
    page.goto(f"{address}concordance/")
    page.keyboard.press("/")
    page.keyboard.type("optax.ad")
    expect(page.locator(".hit .lit").first).to_contain_text("optax.adam")
    expect(page).to_have_url(re.compile(r"\?q=optax\.ad$"))
    page.get_by_label("Search").fill("no such name anywhere")
    expect(page.get_by_role("status")).to_contain_text("Nothing says that")
    page.get_by_label("Search").fill("")
    expect(page.locator(".hit")).to_have_count(0)


def test_only_what_is_proven_of_both_is_called_so(page, address):
    page.goto(f"{address}concordance/?q=conv2")
    agreed = page.locator(".hit .agreed").first
    for need, said in (
        ("flax", r"^A proof compares: .* PyTorch \(✓ proven\) · Flax \(NNX\) \(✗ differs\)$"),
        ("tensorflow", r"^Proven to agree on: .* PyTorch \(✓ proven\) · TensorFlow \(~ waived\)$"),
        ("onnxruntime", r"^A proof compares: .* ONNX Runtime \(◐ proven, evaluation alone\)$"),
        ("mlx", r"^A proof compares: .* MLX \(· not proven here\)$"),
    ):
        page.get_by_label("I need").select_option(need)
        expect(agreed).to_have_text(re.compile(said))


def test_the_script_finds_what_the_program_finds(page, address, site):
    folder = site / "data" / "concordance"
    documents = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}
    page.goto(f"{address}concordance/")
    until(page, "entries !== undefined")
    for query in ("nn.GRU", "optax.adam", "padding", "gate order", "学习率", "clip", "::", "train()", "nn::Linear"):
        for know in ("", "torch", "keras_jax"):
            hits = concordance.search(documents, query, know or None)
            found = page.evaluate(
                """([query, know]) => search(query, know).slice(0, 20).map(({ number, here }) => {
                    const [, text, section, concept] = entries[number];
                    return [index.texts[text][0], index.sections[section], index.concepts[concept][0],
                            [...here].map(([version, lines]) => [version, [...lines].sort((a, b) => a - b)])];
                })""",
                [query, know],
            )
            expected = [(hit.text, hit.section, hit.concept, hit.here) for hit in hits]
            assert [(text, section, concept, dict(here)) for text, section, concept, here in found] == expected, query


# -- every kind of page ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_shut_out(browser, address, kind):
    """By axe: every other kind of page in the dark, on a phone, in Chinese."""
    other = list(KINDS).index(kind) % 2 == 1
    how = {"color_scheme": "dark", "viewport": PHONE} if other else {}
    with opened(browser, address, **how) as page:
        page.goto(f"{address}{'zh/' if other else ''}{KINDS[kind]}")
        page.wait_for_load_state("networkidle")
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()


def test_that_test_would_notice(browser, address):
    with opened(browser, address) as page:
        page.goto(address)
        page.evaluate(
            "document.querySelector('h1').style.color = '#eee'; document.getElementById('q').labels[0].remove()"
        )
        found = {violation["id"] for violation in Axe().run(page).response["violations"]}
        assert found >= {"color-contrast"}


def test_first_paint_takes_less_than_a_second(page, address):
    page.goto(f"{address}texts/cnn/")
    until(page, "performance.getEntriesByName('first-contentful-paint').length")  # a frame after it has loaded
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert 0 < paint < 1000 * (1 + os.getloadavg()[0])  # of a machine that does other things too


@pytest.mark.wide
@pytest.mark.parametrize("kind", KINDS)
def test_pictures(browser, address, kind, tmp_path):
    """In both themes and languages, and at phone width. People look at them; the test, that there is something."""
    folder = Path(PICTURES or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    ways = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": {"viewport": PHONE}}
    for way, how in ways.items():
        for language in ("", "zh/"):
            with opened(browser, address, **how) as page:
                page.goto(f"{address}{language}{KINDS[kind]}")
                page.wait_for_load_state("networkidle")
                path = folder / f"{kind}-{way}{'-zh' if language else ''}.png"
                page.screenshot(path=path, full_page=True)
            with Image.open(path) as picture:
                shades = picture.convert("L").getextrema()
            assert shades[1] - shades[0] > 128, path
