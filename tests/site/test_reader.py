"""Columns as a reader uses them, in a real browser."""

import re

from browsing import opened, until
from playwright.sync_api import expect

from dlrosetta import paths


def versions(page):
    return page.locator("[data-row=heads] > .version").evaluate_all("all => all.map(one => one.dataset.version)")


def test_columns_are_picked_and_remembered_and_in_the_address(page, address):
    page.goto(f"{address}texts/gru/")
    expect(page.locator("select.pick")).to_have_count(2)
    assert versions(page) == ["torch", "flax"]
    page.get_by_label("Version in column 2").select_option("mlx")
    expect(page.locator("[data-row=Model] [data-version=mlx] .line").first).to_be_visible()
    assert versions(page) == ["torch", "mlx"]
    page.get_by_label("Add a column").click()
    expect(page.locator("select.pick")).to_have_count(3)
    expect(page).to_have_url(re.compile("in=torch,mlx,"))
    page.goto(f"{address}texts/gru/")
    expect(page.locator("select.pick")).to_have_count(3)
    assert versions(page)[:2] == ["torch", "mlx"]
    page.get_by_label(re.compile("Remove column PyTorch")).click()
    expect(page.locator("select.pick")).to_have_count(2)
    page.goto(f"{address}texts/gru/?in=keras,tinygrad,jittor,oneflow")
    expect(page.locator("select.pick")).to_have_count(4)
    assert versions(page) == ["keras", "tinygrad", "jittor", "oneflow"]
    expect(page.get_by_label("Add a column")).to_have_count(0)


def test_lines_of_one_meaning_light_up_together(page, address):
    page.goto(f"{address}texts/cnn/")
    expect(page.locator("select.pick")).to_have_count(2)
    line = page.locator("[data-version=torch] .line", has_text="self.conv3 = ")
    line.hover()
    expect(page.locator("[data-version=flax] .line.lit", has_text="conv3").first).to_be_visible()
    assert "conv2 = " not in " ".join(page.locator("[data-version=flax] .line.lit").all_inner_texts())


def test_an_address_leads_to_a_line_of_a_version_that_is_not_open(page, address):
    page.goto(f"{address}texts/cnn/#tensorflow-L40")
    line = page.locator("#tensorflow-L40")
    expect(line).to_be_in_viewport()
    expect(line).to_have_class(re.compile("here"))
    assert "tensorflow" in versions(page)


def test_notes_on_these_versions_come_first(page, address):
    page.goto(f"{address}texts/gru/")
    notes = page.locator("#model aside.notes")
    expect(notes.locator("li", has_text="nnx.initializers.uniform")).to_be_visible()
    expect(notes.locator("li", has_text="A graph without loops")).to_be_hidden()
    notes.get_by_role("button", name="on other frameworks").click()
    expect(notes.locator("li", has_text="A graph without loops")).to_be_visible()
    page.get_by_label("Version in column 2").select_option("tvm")
    expect(notes.locator("li", has_text="A graph without loops")).not_to_have_class(re.compile("other"))


def test_verdicts_lead_to_proofs_and_proofs_to_lines(page, address):
    page.goto(f"{address}texts/cnn/?in=torch,flax")
    head = page.locator("[data-row=heads] [data-version=torch]")
    expect(head).to_contain_text("✓ proven float32 9.0e-07 / 1.0e-06")
    expect(page.locator("[data-row=heads] [data-version=flax]")).to_contain_text("✗ differs")
    head.get_by_role("link", name="Proof of PyTorch").click()
    page.get_by_text("Gradients: 1").first.click()
    row = page.get_by_role("row", name="gradient/conv1.weight").first
    expect(row).to_contain_text("90 %")
    row.get_by_role("link").click()
    expect(page.locator(".line:target")).to_contain_text("self.conv1 = nn.Conv2d")


def test_a_version_is_copied(browser, address):
    with opened(browser, address, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(f"{address}texts/cnn/?in=torch,flax")
        page.get_by_role("button", name="Copy").first.click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        source = (paths.stone_dirs()[0] / "cnn" / "cnn_torch.py").read_text(encoding="utf-8")
        assert page.evaluate("navigator.clipboard.readText()") == source


def test_keys_alone(page, address):
    """To a section, through its lines, to the other column, to a line's address, to a column's menu; the keys' list."""
    page.goto(f"{address}texts/gru/")
    expect(page.locator("select.pick")).to_have_count(2)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(6):
        page.keyboard.press("j")
        if page.evaluate("document.activeElement.closest('section')?.id") == "model":
            break
    expect(page.locator("#model [data-version=torch] pre")).to_be_focused()
    line = page.locator("#model [data-version=torch] .line", has_text="self.gru = nn.GRU")
    for _ in range(20):
        page.keyboard.press("ArrowDown")
        if "current" in line.get_attribute("class"):
            break
    expect(page.locator("#model [data-version=flax] .line.lit", has_text="self.gru = nnx.RNN")).to_have_count(1)
    expect(page.locator("#concepts")).to_contain_text("Layer gru")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#model [data-version=flax] pre")).to_be_focused()
    expect(page.locator("#model [data-version=flax] .line.current.source")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"#flax-L\d+$"))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.locator("select.pick").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-row=heads] .version").first).not_to_have_attribute("data-version", "torch")
    expect(page.locator("select.pick").first).to_be_focused()


def test_columns_are_swiped_in_step_on_a_phone(browser, address):
    with opened(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as page:
        page.goto(f"{address}texts/cnn/?in=torch,flax,keras")
        rows = page.locator(".reader .columns")
        page.locator("#model .columns").scroll_into_view_if_needed()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing but columns is wider than it
        page.locator("#model .columns").dispatch_event("pointerdown")
        page.locator("#model .columns").evaluate("row => row.scrollTo({ left: row.clientWidth, behavior: 'instant' })")
        until(page, "document.querySelector('#loss .columns').scrollLeft > 300")
        places = set(rows.evaluate_all("all => all.map(row => Math.round(row.scrollLeft / row.clientWidth))"))
        assert places == {1}
        page.locator("#loss").scroll_into_view_if_needed()
        expect(page.locator("#loss [data-version=flax] pre")).to_be_in_viewport()
        expect(page.locator("#loss [data-version=torch] pre")).not_to_be_in_viewport()
        snap = page.locator("#model .columns").evaluate("row => getComputedStyle(row).scrollSnapType")
        assert snap == "x mandatory"


def test_without_scripts(browser, address):
    """Two columns, every version's own page, the notes, and the search's names."""
    with opened(browser, address, java_script_enabled=False) as page:
        page.goto(f"{address}texts/gru/")
        expect(page.locator("[data-row=Model] > .version")).to_have_count(2)
        expect(page.locator("select.pick, #choose:visible, #theme:visible")).to_have_count(0)
        expect(page.locator("#model li", has_text="A graph without loops")).to_be_visible()
        page.get_by_text("All versions").click()
        page.get_by_role("link", name="MLX").click()
        expect(page.locator("[data-row=Model] [data-version=mlx] .line").first).to_be_visible()
        page.goto(f"{address}concordance/")
        page.get_by_text(re.compile(r"^T \(")).click()
        page.get_by_role("link", name="torch.nn.GRU", exact=True).click()
        expect(page.locator(".line:target")).to_contain_text("nn.GRU")
