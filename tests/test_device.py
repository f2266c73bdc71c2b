"""What a GPU tells of itself, from a planted framework that pretends to have one: its clock, memory and arithmetic.

No GPU is at hand: the clock is a file's, and the memory a number. That frameworks' own functions are called as they
want to be is tested in test_adapters_device.py.
"""

import contextlib
import io
import json
from dataclasses import replace
from types import SimpleNamespace as Fake

import jsonschema
import planted
import pytest
from planted import TEXT, sleeping

from dlrosetta import compare, console, device_notes, environments, frameworks, report, rounds, texts, timed
from dlrosetta.client import WorkerFailed
from dlrosetta.journal import Journal
from dlrosetta.listing import gather
from dlrosetta.proof import run
from dlrosetta.results import Filters, Today
from dlrosetta.worker import device, timing

SCHEMA = planted.ROSETTA.parents[2] / "docs" / "schema" / "compare.schema.json"

# A device whose clock runs at `SHARE` of the wall's, and that notes in which order it is called.
GPU = """
import time

from dlrosetta.worker.device import Device


class Gpu(Device):
    tf32, held = True, 7

    def mark(self):
        return time.perf_counter()

    def seconds(self, start, end):
        return SHARE * (end - start)

    def reset_memory(self):
        self.held = 3 * 2**30

    def peak_memory(self):
        return self.held

    def full_float32(self):
        self.tf32 = STUCK

    def arithmetic(self):
        return {"tf32": self.tf32, "autotune": AUTOTUNE}


_gpu = Gpu()


def device():
    return _gpu


def tune(version, switch):
    _gpu.tf32 = True


def seed(number):"""


def gpu(share=1.0, stuck=False, autotune=True):
    values = {"SHARE": share, "STUCK": stuck, "AUTOTUNE": autotune}
    text = GPU
    for name, value in values.items():
        text = text.replace(name, repr(value))
    return [("def seed(number):", text), ('"device": "cpu"', '"device": "cuda"')]


def compared(place, *slugs):
    """A comparison with short turns, and what is printed of it."""
    text = texts.load(place.stone / TEXT)
    wanted = [frameworks.load(place.frameworks / slug) for slug in slugs]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in place.environ().items():
            patch.setenv(name, value)
        patch.setattr(rounds, "ROUND_S", 0.01)
        patch.setattr(timed, "_verdict", lambda *_: {"verdict": "proven", "reason": None})  # proofs are not asked here
        found = compare.compare(text, wanted, budget=0.1)
        document = found.document()
        compare.save(document)
        found.journal.remove()
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            console.show_comparison(text, document, None)
    return document, " ".join(shown.getvalue().split())


@pytest.fixture(scope="module")
def done(tmp_path_factory, template):
    """A CPU, a GPU whose clock agrees, one whose does not, and one whose TF32 cannot be turned off."""
    place = planted.Place(tmp_path_factory.mktemp("device"), template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSETTA_CACHE", str(place.cache))
        place.plant("agrees", sleeping(5), adapter=gpu(0.995))
        place.plant("apart", sleeping(5), adapter=gpu(0.8, autotune=False))
        place.plant("cpu", sleeping(5))
        place.plant("stuck", sleeping(5), adapter=gpu(stuck=True))
    document, shown = compared(place, "agrees", "apart", "cpu", "stuck")
    return place, shown, document, {cell["framework"]: cell for cell in document["cells"]}


def test_device_seconds_are_kept_beside_the_wall_s_of_every_round(done):
    _, _, document, cells = done
    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    for slug, share in (("agrees", 0.995), ("apart", 0.8)):
        for speed in (cells[slug]["items_per_second"], cells[slug]["input"]["both"]):
            assert len(speed["device_samples"]) == len(speed["samples"])
            for wall, own in zip(speed["samples"], speed["device_samples"], strict=True):
                assert wall / own == pytest.approx(share, rel=0.01)
        assert "device_samples" not in cells[slug]["input"]["load"]  # a loader submits nothing
    assert "device_samples" not in cells["cpu"]["items_per_second"]


def test_the_memory_of_the_device_is_counted_from_the_start_of_timing(done):
    _, shown, _, cells = done
    assert cells["agrees"]["peak_device_memory_bytes"] == 3 * 2**30
    assert "peak_device_memory_bytes" not in cells["cpu"]
    assert "import memory on device agrees" in shown
    assert " GB 3.0 GB apart" in shown and " GB 3.0 GB cpu" in shown and " GB 3.0 GB stuck" not in shown


def test_who_may_take_tf32_is_not_timed_as_float32(done):
    cells = done[3]
    assert cells["stuck"]["verdict"] == "failed"
    assert cells["stuck"]["reason"] == "expected float32 products in float32, found that the framework may take TF32"
    assert cells["agrees"]["found"]["arithmetic"] == {"tf32": False, "autotune": True}
    assert cells["cpu"]["found"]["arithmetic"] == {}


def test_the_table_says_where_clocks_and_arithmetic_differ(done):
    _, shown, _, _ = done
    assert "Clocks: of apart's wall time its GPU counts 80% between the first and the last thing submitted" in shown
    assert shown.count("Clocks: ") == 1
    assert "Not alike: kernels of convolutions tried out first in agrees, not in apart." in shown
    assert "TF32 allowed in" not in shown  # the cell that failed is in no comparison


def test_the_report_and_the_tables_say_so_too(done):
    place = done[0]
    tables, _ = gather((str(place.results),), Filters(), (str(place.stone),), (str(place.frameworks),))
    _, rows = tables.ask("select framework, device_share, peak_device_memory_bytes from cells order by framework")
    assert [(row[0], row[1] and round(row[1], 1), row[2]) for row in rows] == [
        ("agrees", 1.0, 3 * 2**30), ("apart", 0.8, 3 * 2**30), ("cpu", None, None), ("stuck", None, None),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "MAKERS", ())
        groups = report.groups_of(tables, Today((str(place.stone),), (str(place.frameworks),)))
    page = report.render(groups, Filters())
    assert "Clocks: of apart" in page and "Not alike: kernels" in page
    assert " GiB, 3.00 on the GPU</td>" in page


def test_tf32_is_turned_off_before_the_switches_of_the_tuned_track(place):
    """And who has one of that name may be timed with it."""
    place.plant("tiny", adapter=gpu())
    tiny, text = frameworks.load(place.frameworks / "tiny"), texts.load(place.stone / TEXT)
    with run.start(tiny, environments.ensure(tiny), 1, proof=True) as worker:
        for switches in ([], ["tf32"]):
            worker.ask("hello", layout=dict(tiny.layout))
            version, more = str(place.version("tiny")), {"layers": text.full_layers, "constants": []}
            worker.ask("open", version=version, dtype="float32", switches=switches, **more)
            worker.ask("create", seed=0)
            found = worker.ask("prepare", count=1)
            assert found["arithmetic"]["tf32"] is bool(switches)
    cell = timed.Timed(tiny, "proven", batch_size=found["batch_size"], found={**found, "threads": 1})
    with pytest.raises(WorkerFailed, match="may take TF32"):
        timed.check_found(cell, text, 1)
    cell.framework = replace(tiny, switches=("tf32",))
    timed.check_found(cell, text, 1)


@pytest.mark.parametrize(
    ("one", "other", "line"),
    [
        ({"tf32": True}, {"tf32": False}, "Not alike: TF32 allowed in a, not in b."),
        ({"tf32": True}, {"tf32": True}, None),
        ({"tf32": True}, {}, None),  # who does not tell
        ({"autotune": False}, {"autotune": True}, "Not alike: kernels of convolutions tried out first in b, not in a."),
    ],
)
def test_arithmetic_that_differs_is_flagged(one, other, line):
    cells = [
        {"framework": name, "items_per_second": {"samples": [1.0]}, "found": {"arithmetic": arithmetic}}
        for name, arithmetic in (("a", one), ("b", other))
    ]
    assert device_notes.notes(cells) == ([line] if line else [])
    cells[1]["items_per_second"] = None
    assert device_notes.notes(cells) == []  # of one that was not timed nothing is compared


@pytest.mark.parametrize(
    ("share", "told"), [(0.97, "is spent before or behind"), (0.99, ""), (1.05, "clocks is wrong")]
)
def test_two_per_cent_are_told(share, told):
    speed = {"samples": [share * 10] * 3, "device_samples": [10.0] * 3}
    (line,) = device_notes.notes([{"framework": "a", "items_per_second": speed}]) or [""]
    assert told in line and bool(line) == bool(told)


def test_a_device_that_tells_nothing_answers_nothing():
    silent = device.of(object())
    assert (silent.mark(), silent.peak_memory(), silent.arithmetic()) == (None, None, {})
    silent.reset_memory(), silent.full_float32()

    class Adapter:
        @staticmethod
        def synchronize(state, value=None):
            pass

        @staticmethod
        def to_numpy(value):
            return value

    found = timing.timed(Adapter, silent, None, [(1, 2)] * 3, lambda inputs, labels: inputs)
    assert found["device_s"] is None and 0 < found["seconds"] < 1


def test_the_second_mark_is_set_before_the_closing_fence():
    """Behind it, the device's own clock would count the wait for the fence too."""
    order = []

    class Adapter:
        @staticmethod
        def synchronize(state, value=None):
            order.append("fence")

        @staticmethod
        def to_numpy(value):
            return value

    class Marks(device.Device):
        def mark(self):
            order.append("mark")
            return len(order)

        def seconds(self, start, end):
            order.append("read")
            return float(end - start)

    found = timing.timed(Adapter, Marks(), None, [(1, 2)], lambda inputs, labels: order.append("step"))
    assert order == ["fence", "mark", "step", "mark", "fence", "read"] and found["device_s"] == 2


@pytest.mark.parametrize(
    ("device", "asked", "gpus", "name"),
    [
        ("cpu", None, ["T4"], None),
        ("cuda:0", None, ["T4", "A5000"], "T4"),  # what frameworks take where nothing is said
        ("gpu", "A5000", ["T4", "A5000"], "A5000"),
        ("cuda", None, [], None),  # nvidia-smi is not there
        (None, None, ["T4"], None),
    ],
)
def test_the_gpu_that_a_cell_ran_on(device, asked, gpus, name):
    document = {"machine": {"gpus": [{"name": one} for one in gpus]}, **({"device": asked} if asked else {})}
    assert device_notes.gpu(document, {"facts": {"device": device}}) == name


def test_rounds_of_both_clocks_are_recalled_from_a_journal():
    """And those of a journal that knows one clock."""
    journal = Journal(None)
    journal.add(kind="steps", turns={"a": [10.0, 1.0, 11.0], "b": [20.0, 1.0]}, seconds=1.0)
    a, b = (timed.Timed(Fake(slug=slug), "proven") for slug in "ab")
    assert rounds._recall([a, b], journal) == 1.0
    assert (a.samples["steps"], a.device["steps"]) == ([10.0], [11.0])
    assert (b.samples["steps"], b.device["steps"]) == ([20.0], [])
    assert a.speed()["device_samples"] == [11.0] and "device_samples" not in b.speed()
    a.fail("late")
    assert a.device["steps"] == []
