"""`rosetta report`: what is drawn of which results, that the page needs and trusts nothing, and where labels go."""

import json
import re
import struct
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from planted_results import cell, document, write

from dlrosetta import charts, report, results, tables

EVIL = "<script>alert('x')</script><img src=http://127.0.0.1/x onerror=y>&"
TRAINED = {"training": {"seconds": 1200.0, "losses": [2.0, None, 1.0]}, "accuracy": 0.75}


class Page(HTMLParser):
    """Tags, attributes and text of the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.words.append(data)


def groups(*documents, today=None):
    some = [results.Result(Path(f"{number}.json"), one) for number, one in enumerate(documents)]
    today = today or results.Today()
    return report.groups_of(tables.Tables(some, today), today)


def values(spec, key):
    """Every value of a field in the data of a chart."""
    found = []
    if isinstance(spec, dict):
        rows = spec["values"] if isinstance(spec.get("values"), list) else []
        found += [row[key] for row in rows if isinstance(row, dict) and key in row]
        return found + [one for part in spec.values() for one in values(part, key)]
    return [one for part in spec for one in values(part, key)] if isinstance(spec, list) else []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of results that have everything, some of it hostile."""
    roof = {"roof": {"flops_per_s": {"torch": 1e11, "flax": 8e10}, "bytes_per_s": {"torch": 1e10}}}
    work = {"work": {"flops_per_item": 1.6e8, "bytes_per_item": 2e6}}
    one = document(cell("torch", 100.0, **TRAINED), cell("flax", 250.0, **TRAINED), cell(EVIL, 50.0), **roof, **work)
    one["pairs"] = [{"a": "flax", "b": "torch", "ratio": 1.0, "low": 0.98, "high": 1.02, "differ": False}]
    tuned = document(cell("torch", 150.0, switches=[EVIL]), track="tuned", data="CIFAR-10")
    other = document(cell("torch", 90.0), text=EVIL, cpu=EVIL, unit=EVIL, data=EVIL)
    folder = tmp_path_factory.mktemp("report")
    found = groups(one, tuned, other)
    page = report.write(found, folder, results.Filters(machine=EVIL))
    return folder, page.read_text(encoding="utf-8"), found


def test_the_page_needs_and_runs_nothing(written):
    page = Page(written[1])
    assert not {"script", "img", "link", "iframe", "object", "base", "form", "foreignobject", "image", "use"} & set(
        page.tags
    )
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "srcset", "action", "xlink:href", "style"), (tag, name)
        if name == "href":
            assert value.startswith("#")
        assert "url(" not in value
    style = re.search(r"<style>(.*?)</style>", written[1], re.S)[1]
    assert "url(" not in style and "@import" not in style


def test_its_policy_allows_its_own_style_and_nothing_else(written):
    import base64
    import hashlib

    policy = next(value for tag, name, value in Page(written[1]).attributes if tag == "meta" and "default-src" in value)
    style = re.search(r"<style>(.*?)</style>", written[1], re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_what_results_say_is_text(written):
    page = Page(written[1])
    assert EVIL in "".join(page.words) and "<script" not in written[1] and "<img" not in written[1]
    assert all(re.fullmatch(r"[a-z0-9_-]+\.png", path.name) for path in (written[0] / "charts").iterdir())


def test_every_kind_of_chart_is_drawn_and_is_a_picture(written):
    folder, page, found = written
    kinds = [chart.kind for chart in found[1].charts]
    assert found[1].text == "cnn" and kinds == ["speed", "compile", "memory", "roofline", "loss", "accuracy"]
    files = {path.name for path in (folder / "charts").iterdir()}
    assert files == {chart.file.removeprefix("charts/") for group in found for chart in group.charts}
    for path in (folder / "charts").iterdir():
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert width > 800 and height > 80 and len(content) > 5_000
    assert page.count("<svg") == len(files)
    for group in found:
        for chart in group.charts:
            ElementTree.fromstring(chart.svg)
            assert 'fill="currentColor"' in chart.svg  # the page's ink, dark or light


def test_figures_have_units_and_intervals(written):
    page = Page(written[1])
    words = " ".join(" ".join(page.words).split())
    for told in ("100 97.0–104 0.64 s 3.00 s 1.50 s 1.00 GiB", "100 (97.0–104)", "2.36 s = 3.7 steps", "1.00 GiB"):
        assert told in words, told
    assert "0.750" in words and "No difference was found, side by side, between flax and torch (ratio 1.00" in words
    assert "images per second, with the 95 % interval of the median" in words
    assert "100 GFLOP/s" in words and "10 GB/s" in words and "0.16 GFLOP" in words
    assert f"Tuned, that is with the switches that text.toml has measured: torch: {EVIL}." in words


def test_frameworks_stand_in_alphabetical_order_whatever_their_speed():
    (group,) = groups(document(cell("torch", 300.0), cell("flax", 100.0), cell("gluon", 200.0)))
    assert [row["label"] for row in group.rows] == ["flax", "gluon", "torch"]
    (speed,) = [chart.spec for chart in group.charts if chart.kind == "speed"]
    assert {one["encoding"]["y"]["sort"] for one in speed["layer"]} == {"ascending"}
    assert "share" not in json.dumps(speed)


def test_what_may_not_be_compared_is_not_in_one_chart():
    every = [
        document(cell("torch"), cell("onnx", scope="evaluation")),
        document(cell("torch"), dtype="bfloat16"),
        document(cell("torch"), cpu="Intel"),
        document(cell("torch"), data="sample"),
        document(cell("torch"), text="gru"),
        document(cell("torch", batch_size=32)),
        document(cell("torch", facts={"device": "cuda"})),
    ]
    found = groups(*every)
    assert len(found) == 8 and [len(group.rows) for group in found] == [1] * 8
    assert len({group.name for group in found}) == 8
    facts = [group.facts for group in found if group.text == "cnn"]
    assert [("bfloat16" in one) for one in facts] == [False] * 6 + [True]
    assert any("evaluation pass" in one for one in facts) and any("GPU" in one for one in facts)


def test_tracks_stand_side_by_side():
    (group,) = groups(document(cell("torch", 100.0), cell("flax")), document(cell("torch", 120.0), track="tuned"))
    assert [row["label"] for row in group.rows] == ["flax", "torch", "torch, tuned"]
    (speed,) = [chart.spec for chart in group.charts if chart.kind == "speed"]
    assert set(values(speed, "track")) == {"default", "tuned"}


def test_the_latest_result_of_a_cell_counts():
    old, new = document(cell("torch", 50.0), date="2026-11-01T00:00:00Z"), document(cell("torch", 60.0))
    for order in ((old, new), (new, old)):
        (group,) = groups(*order)
        assert [row["speed"] for row in group.rows] == pytest.approx([60.3])


def test_what_was_not_measured_side_by_side_is_not_in_one_chart():
    """The fullest run first; what it lacks apart; the tuned track beside the first."""
    alone = document(cell("flax", 900.0), date="2026-11-30T00:00:00Z")
    lone = document(cell("gluon", 10.0), date="2026-11-20T00:00:00Z")
    most = document(cell("torch"), cell("flax", 100.0), date="2026-11-25T00:00:00Z")
    tuned = document(cell("torch", 120.0), track="tuned", date="2026-11-26T00:00:00Z")
    for order in ((alone, lone, most, tuned), (tuned, most, lone, alone)):
        found = groups(*order)
        assert [[row["label"] for row in group.rows] for group in found] == [
            ["flax", "torch", "torch, tuned"], ["gluon"]
        ]  # fmt: skip
        assert found[0].rows[0]["speed"] == pytest.approx(100.5)
        assert found[0].dates == "2026-11-25 00:00 and 2026-11-26 00:00" and len({one.name for one in found}) == 2


def test_what_was_trained_is_shown_beside_what_was_only_timed():
    """A later and fuller run of rounds alone hides no accuracy; another training does."""
    timed = document(cell("torch"), cell("flax", 100.0), date="2026-11-30T00:00:00Z")
    first, second = (
        document(cell("torch", accuracy=accuracy), profile="full", date=date)
        for accuracy, date in ((0.77, "2026-11-20T00:00:00Z"), (0.78, "2026-11-21T00:00:00Z"))
    )
    found = groups(timed, first, second)
    assert [[(row["label"], row["accuracy"]) for row in group.rows] for group in found] == [
        [("flax", None), ("torch", None)], [("torch", 0.78)]
    ]  # fmt: skip


class Current(results.Today):
    def changed(self, document, cell):
        return [] if document["date"].startswith("2026-11-30") else ["version"]


def test_what_is_current_goes_before_what_is_more():
    new = document(cell("flax", 900.0), date="2026-11-30T00:00:00Z")
    old = document(cell("flax", 100.0), cell("torch"), date="2026-11-25T00:00:00Z")
    found = groups(old, new, today=Current())
    assert [[row["label"] for row in group.rows] for group in found] == [["flax"], ["flax †", "torch †"]]


def test_a_run_that_adds_a_framework_comes_whole():
    """What does not fit in memory at once is compared in parts, of which one framework stands in all."""
    most = document(cell("torch", 100.0), cell("flax"), cell("paddle"), date="2026-11-25T00:00:00Z")
    parts = [
        document(cell("torch", 90.0), cell(name), date=f"2026-11-{day}T00:00:00Z")
        for name, day in (("mlx", 26), ("gluon", 27), ("flax", 28))
    ]
    for order in ((most, *parts), (*reversed(parts), most)):
        found = groups(*order)
        assert [[row["label"] for row in group.rows] for group in found] == [
            ["flax", "paddle", "torch"], ["gluon", "torch"], ["mlx", "torch"]
        ]  # fmt: skip
        assert [group.rows[-1]["speed"] for group in found] == pytest.approx([100.5, 90.45, 90.45])


def test_only_what_holds_and_was_timed_is_shown():
    assert groups(document(cell("torch", 50.0, "differs"), cell("flax", None, "failed"))) == []


def test_compilation_is_the_first_call_less_a_step():
    slow, eager = cell("flax", 100.0, first_call_s=10.0), cell("torch", 100.0, first_call_s=0.5)
    (group,) = groups(document(slow, eager))
    (spec,) = [chart.spec for chart in group.charts if chart.kind == "compile"]
    step = 64 / 100.5
    assert sorted(set(values(spec, "seconds"))) == pytest.approx([step, 10 - step])
    shown = set(values(spec, "shown"))
    assert shown == {"9.36 s = 15 steps", "no longer than a step"}


def test_the_roof_is_the_best_of_any_framework_and_speeds_are_shares_of_it():
    roof = {"flops_per_s": {"a": 1e10, "b": 4e10}, "bytes_per_s": {"a": 1e9}}
    high = document(cell("torch", 100.0), roof=roof, work={"flops_per_item": 1e8, "bytes_per_item": 1e6})
    (group,) = groups(high)
    (chart,) = [one for one in group.charts if one.kind == "roofline"]
    assert values(chart.spec, "shown") == ["torch 25% of the roof"] * len(values(chart.spec, "shown"))
    low = {**high, "work": {"flops_per_item": 1e8, "bytes_per_item": 1e8}}  # bound by memory: 1 GFLOP/s
    (group,) = groups(low)
    (chart,) = [one for one in group.charts if one.kind == "roofline"]
    assert "torch 1005% of the roof" in values(chart.spec, "shown")  # a roof that is too low is not hidden


def test_the_evaluation_pass_is_held_against_its_own_work():
    """A third of a train step's."""
    roof = {"flops_per_s": {"a": 1e10}, "bytes_per_s": {"a": 1e9}}
    forward = {"flops_per_item_forward": 1e8, "bytes_per_item_forward": 1e6}
    work = {"flops_per_item": 3e8, "bytes_per_item": 3e6, **forward}
    both = groups(document(cell("flax", 10.0), cell("openvino", 10.0, scope="evaluation"), roof=roof, work=work))
    shown = [values(chart.spec, "shown")[0] for one in both for chart in one.charts if chart.kind == "roofline"]
    assert sorted(shown) == ["flax 30% of the roof", "openvino 10% of the roof"]
    assert [report.share(value) for value in (0.004, 0.0996, 0.1, 1.5)] == ["0.4%", "10%", "10%", "150%"]


def test_how_the_rounds_went_is_said(tmp_path):
    went = {
        "why": "budget",
        "seconds": 61.0,
        "drift": {"alarm": True, "round": 5, "factor": 0.5, "p": 0.001},
        "others": 0.4,
    }
    quiet = {"why": "narrow", "seconds": 20.0, "drift": None, "others": 0.01}
    (group,) = groups(document(cell("torch"), rounds=went, budget_s=60.0))
    assert len(group.went) == 1
    for words in ("the budget of 60 s ended the rounds", "Drift: from round 5 on", "others took 40% of this machine's"):
        assert words in group.went[0]
        assert words in " ".join(Page(report.render([group], results.Filters())).words)
    tuned = document(cell("torch", 120.0), track="tuned", date="2026-11-29T11:00:00+00:00", rounds=quiet)
    (group,) = groups(document(cell("torch"), rounds=went, budget_s=60.0), tuned)
    assert [line.partition(".")[0] for line in group.went] == ["Default track", "Tuned track"]
    assert group.went[1] == "Tuned track. Rounds: every interval is within ±2 %."
    assert groups(document(cell("torch")))[0].went == []  # of before that was written down


@pytest.mark.parametrize("without", ["roof", "work"])
def test_no_roof_no_chart(without):
    whole = {"roof": {"flops_per_s": {"a": 1e10}, "bytes_per_s": {"a": 1e9}},
             "work": {"flops_per_item": 1e8, "bytes_per_item": 1e6}}  # fmt: skip
    del whole[without]
    (group,) = groups(document(cell("torch"), **whole))
    assert [chart.kind for chart in group.charts] == ["speed", "compile", "memory"]


class Changed(results.Today):
    def changed(self, document, cell):
        return ["version", "lock"] if cell["framework"] == "flax" else []


def test_what_has_changed_since_is_marked(tmp_path):
    found = groups(document(cell("torch"), cell("flax")), today=Changed())
    page = report.write(found, tmp_path, results.Filters()).read_text(encoding="utf-8")
    assert [row["label"] for row in found[0].rows] == ["flax †", "torch"]
    assert "version, lock" in page and "† The version, adapter or environment is another now" in page


def test_a_release_is_shown_without_its_build(tmp_path):
    facts = {"version": "2026.4.1-22982-e213a147257-releases/2026/4", "device": "cpu", "threads": 2, "python": "3.11.7"}
    (group,) = groups(document(cell("openvino", facts=facts), cell("torch")))
    page = report.write([group], tmp_path, results.Filters()).read_text(encoding="utf-8")
    assert "<td>2026.4.1</td>" in page and "<td>1.2</td>" in page and "22982" not in page


def test_old_charts_go_and_others_files_stay(tmp_path):
    mine = tmp_path / "charts" / "mine.png"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    report.write(groups(document(cell("torch"))), tmp_path, results.Filters())
    assert mine.exists()  # no report was there before
    before = set((tmp_path / "charts").iterdir())
    report.write(groups(document(cell("torch"), text="gru")), tmp_path, results.Filters())
    assert not before & set((tmp_path / "charts").iterdir())


def test_the_command(place, tmp_path):
    write(tmp_path / "some", one=document(cell("torch"), cell("flax")), two=document(cell("torch"), text="gru"))
    (tmp_path / "some" / "broken.json").write_text("{", encoding="utf-8")
    done = place.call("report", "--results", tmp_path / "some", "--text", "cnn", "--output", tmp_path / "out")
    assert done.returncode == 0 and done.stdout.startswith(f"wrote {tmp_path / 'out' / 'report.html'} and 3 charts")
    assert done.stderr.startswith(f"{tmp_path / 'some' / 'broken.json'}: Expected JSON.")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "only text cnn" in page and "CNN on CIFAR-10" in page and "gru" not in page.lower()
    done = place.call("report", "--results", tmp_path / "some", "--until", "2020-01-01")
    assert done.returncode == 1 and "Expected results to report on." in done.stderr
    assert place.call("report", "--results", tmp_path / "some", "--framework", "flax").returncode == 0
    assert (place.results / "report" / "report.html").is_file()


# -- where labels go ---------------------------------------------------------------------------------------------------


def test_labels_keep_their_distance_and_stay_near():
    values = [0.5, 0.5, 0.51, 0.9, 0.02, 0.0]
    places = charts.spread(values, 0.05)
    ordered = sorted(places)
    assert all(b - a > 0.0499 for a, b in pairwise(ordered)) and ordered[0] >= 0 and ordered[-1] <= 1
    assert [sorted(values).index(value) for value in values if value != 0.5] == [
        ordered.index(place) for place, value in zip(places, values, strict=True) if value != 0.5
    ]
    assert places[3] == 0.9 and abs(places[0] - 0.5) < 0.06
    assert charts.spread([0.99, 0.99], 0.1) == pytest.approx([0.9, 1.0])
    assert charts.spread([], 0.1) == []


def test_labels_beside_points_cover_nothing():
    marks = [(100.0, 100.0, "torch"), (104.0, 103.0, "tensorflow"), (550.0, 100.0, "keras_tensorflow"), (5.0, 5.0, "a")]
    places = charts.beside(marks, 560, 220)
    boxes = [
        (x, y - 7, x + charts.LETTER * len(text), y + 7) for (x, y), (_, _, text) in zip(places, marks, strict=True)
    ]
    assert not any(charts._shared(a, b) for a, b in combinations(boxes, 2))
    assert all(box[0] >= 0 and box[2] <= 560 for box in boxes)


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.00123, "1.2 ms"), (0.0123, "12 ms"), (0.38, "0.38 s"), (9.4, "9.40 s"), (42.0, "42 s"), (5569.0, "93 min")],
)
def test_durations(value, told):
    assert report.seconds(value) == told
