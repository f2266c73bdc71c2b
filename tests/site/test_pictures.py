"""Pictures of models: what is drawn is what the reference does, in shapes and numbers, and any page may show it."""

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from dlrosetta import paths, texts
from dlrosetta.site import folding, lines, pictures, trace

TEXTS = {name: texts.load(folder) for name, folder in texts.find(paths.stone_dirs(())).items()}
SVG = "{http://www.w3.org/2000/svg}"
LAST = {"cnn": (10,), "gru": (2,), "gpt": (128, 256), "resnet50": (2048,), "densenet121": (14,)}


@pytest.fixture(scope="module")
def traced():
    return {name: trace.steps(text) for name, text in TEXTS.items()}


@pytest.fixture(scope="module")
def drawn(traced):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "steps", lambda text: traced[text.name])
        return {(name, lang): pictures.svg(text, lang) for name, text in TEXTS.items() for lang in ("en", "zh")}


@pytest.mark.parametrize("name", TEXTS)
def test_steps_are_the_texts_layers_in_order(name, traced):
    text, steps = TEXTS[name], traced[name]
    dropouts = {one["name"] for one in text.dropout}
    assert [step.layer for step in steps if step.layer and step.layer not in dropouts] == [
        layer["name"] for layer in text.full_layers
    ]
    assert dropouts <= {step.layer for step in steps}
    trained = [spec for spec in text.full_parameters.values() if spec["role"] != "statistic"]
    assert sum(step.parameters for step in steps) == sum(math.prod(spec["shape"]) for spec in trained)
    told = re.search(r"([\d,]+) parameters", (text.folder / "README.md").read_text(encoding="utf-8"))
    if told and told[1].strip(","):
        assert told[1] == f"{sum(step.parameters for step in steps):,}"
    assert steps[-1].shape == LAST[name]
    for number, step in enumerate(steps):
        assert all(-1 <= source < number for source in step.sources)


def test_operations_are_heard(traced):
    def said(name, start, stop):
        return [f"{step.layer or step.concept} {step.detail}".strip() for step in traced[name][start:stop]]

    assert said("cnn", 0, 6) == [
        "conv1 3×3", "op:relu", "conv2 3×3", "op:max-pool 2×2", "op:relu", "dropout1 0.25",
    ]  # fmt: skip
    assert traced["cnn"][3].shape == (50, 16, 16)
    assert said("gpt", 2, 8) == [
        "op:add", "blocks.0.norm1", "blocks.0.qkv", "op:attention HEADS = 4", "blocks.0.projection", "op:add",
    ]  # fmt: skip
    assert said("gpt", -1, None) == ["op:product token_embedding"]
    assert said("resnet50", 0, 1) == ["conv1 7×7 / 2"]
    # Sums know what they are of: in the second block, of its input too.
    sums = [step for step in traced["resnet50"] if step.concept == "op:add"]
    assert len(sums) == 16
    before = next(n for n, step in enumerate(traced["resnet50"]) if step.layer == "layer1.1.conv1")
    assert traced["resnet50"][before].sources == [min(sums[1].sources)]
    joined = [step for step in traced["densenet121"] if step.concept == "op:concatenate"]
    assert len(joined) == 58 and joined[0].shape == (96, 56, 56)


def test_blocks_end_where_the_next_begins(traced):
    blocks = folding.blocks_of(traced["resnet50"])
    assert blocks[-1] == "" and blocks[-2] == "layer4.2"  # the mean belongs to none
    assert len(set(blocks)) == 17
    family = folding.families(traced["resnet50"], blocks)["layerN.N"]
    assert family[1] == 16 and family[2]["shortcut_bn"] == 4 and family[2]["conv1"] == 16


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_picture_is_safe_complete_and_within_its_frame(name, language, drawn):
    root = ElementTree.fromstring(drawn[name, language])
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    assert root.find(f"{SVG}title").text and root.find(f"{SVG}desc").text
    width, height = (float(size) for size in root.get("viewBox").split()[2:])
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in {"svg", "title", "desc", "g", "rect", "path", "text"}
        assert not {"style", "onclick", "href"} & set(element.attrib)
        assert {element.get("fill", "none"), element.get("stroke", "none")} <= {"none", "currentColor"}
        if element.tag == f"{SVG}rect":
            assert float(element.get("x")) >= 0 and float(element.get("y")) >= 0
            assert float(element.get("x")) + float(element.get("width")) <= width
            assert float(element.get("y")) + float(element.get("height")) <= height
    concepts = {element.get("data-concept") for element in root.iter(f"{SVG}g")}
    assert set(lines.layer_keys(TEXTS[name])) <= concepts
    shown = "".join(root.itertext())
    assert str(LAST[name][-1]) in shown
    assert ("个参数" in shown) == (language == "zh") and ("parameters" in shown) == (language == "en")


def test_nothing_overlaps(drawn):
    """Boxes are apart, with room for the line between them."""
    for picture in drawn.values():
        found = [
            tuple(float(rect.get(key)) for key in ("x", "y", "width", "height"))
            for rect in ElementTree.fromstring(picture).iter(f"{SVG}rect")
            if not rect.get("stroke-dasharray")
        ]
        for number, (x, y, width, height) in enumerate(found):
            for x2, y2, width2, height2 in found[:number]:
                assert x + width <= x2 or x2 + width2 <= x or y + height + 8 <= y2 or y2 + height2 + 8 <= y


def test_what_repeats_is_folded(drawn):
    assert ">3 blocks, as below<" in drawn["resnet50", "en"] and ">14,964,736<" in drawn["resnet50", "en"]
    assert (
        ">24 blocks, as below<" in drawn["densenet121", "en"]
        and ">transition1, one of 3 blocks<" in drawn["densenet121", "en"]
    )
    assert "shortcut_bn, shortcut_conv: in 4 of 16" in drawn["resnet50", "en"]
    assert ">23,508,032 parameters in all<" in drawn["resnet50", "en"]
    assert len(drawn["densenet121", "en"]) < 30_000


def test_links(traced, monkeypatch):
    monkeypatch.setattr(trace, "steps", lambda text: traced[text.name])
    text = replace(TEXTS["gru"], title='<script>"&')
    picture = pictures.svg(text, link=lambda concept: f'#{concept}"' if concept == "layer:gru" else None)
    root = ElementTree.fromstring(picture)
    assert root.get("role") == "group" and root.find(f"{SVG}title").text == 'The model of <script>"&'
    (only,) = root.iter(f"{SVG}a")
    assert only.get("href") == '#layer:gru"' and only.get("aria-label") == "gru GRU"
    assert "<script>" not in picture
