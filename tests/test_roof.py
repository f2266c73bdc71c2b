"""`rosetta roof` with frameworks of nothing but numpy, whose work takes as long as a test wants."""

import json

import jsonschema
import pytest
from test_schemas import schema

from dlrosetta import commands, environments, frameworks, machine, roof

SEED = "def seed(number):"
WORK = """
def work(kind, *arrays):
    import time

    if kind == "convolution":
        images, kernel = arrays
        padded = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)])
        high, wide = images.shape[2:]
        taps = [(kernel[:, :, i, j], padded[:, :, i : i + high, j : j + wide]) for i in range(3) for j in range(3)]
        result = sum(np.einsum("oc,nchw->nohw", weight, seen, optimize=True) for weight, seen in taps)
        giga = 2 * images.size * kernel.size / kernel.shape[1] / 1e9
    else:
        result = arrays[0] @ arrays[1] if kind == "product" else -arrays[0]
        giga = 2 * len(result) ** 3 / 1e9 if kind == "product" else 2 * result.nbytes / 1e9 / 16

    def once():
        {once}
        return {result}

    return once


"""
# A device that computes behind the back of who submits, as GPUs do; its arrays wait when they are read.
QUEUE = """
import concurrent.futures, time

_queue = concurrent.futures.ThreadPoolExecutor(1)


class Later:
    def __init__(self, result, seconds):
        self.future = _queue.submit(lambda: (time.sleep(seconds), result)[1])

    def __array__(self, dtype=None, copy=None):
        return self.future.result()


"""
FENCE = ("def synchronize(state, value=None):\n    pass", "def synchronize(state, value=None):\n    {}")


# A framework that plans, and computes what somebody asks for: of many results, the last.
PLAN = """
import functools, time


class Plan:
    def __init__(self, result, seconds):
        self.result, self.seconds = result, seconds

    @functools.lru_cache(None)
    def computed(self):
        time.sleep(self.seconds)
        return self.result

    def __array__(self, dtype=None, copy=None):
        return self.computed()


"""


def work(once, result="result", before=""):
    """An edit of the adapter: it has `work`, which executes a line each time."""
    return SEED, before + WORK.format(once=once, result=result).lstrip("\n") + SEED


def asleep(rate):
    """It does so many giga-operations, or 16 times as many gigabytes, a second: caches may be large."""
    return work(f"time.sleep(giga / {rate})")


def fence(line):
    return FENCE[0], FENCE[1].format(line)


QUEUED = work("pass", "Later(result, giga / 4)", QUEUE)
PLANTED = {
    "early": [QUEUED],  # whose fence does not wait
    "fast": [asleep(8)],
    "fewer": [work("result = arrays[0].astype('f2').astype('f4') @ arrays[1] if arrays[1:] else arrays[0]")],
    "lazy": [work("pass", "Plan(result, giga / 4)", PLAN), fence("value is None or value.computed()")],
    "none": [],
    "unconvolved": [
        asleep(4),
        ("        giga = 2 * images.size", "        result *= 1.01\n        giga = 2 * images.size"),
    ],
    "queued": [QUEUED, fence("value is None or value.future.result()")],
    "slow": [asleep(4)],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory, template):
    import planted

    place = planted.Place(tmp_path_factory.mktemp("roof"), template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSETTA_CACHE", str(place.cache))
        for slug, edits in PLANTED.items():
            place.plant(slug, adapter=edits)
    shown = place.call("roof", "--frameworks", ",".join(PLANTED), "--json", timeout=300)
    return place, shown, json.loads(shown.stdout)


def test_who_takes_half_as_long_reaches_twice_as_much(done):
    rates = done[2]["roof"]
    for kind in roof.RATES:
        giga = 16e9 if kind == "bytes_per_s" else 1e9
        assert rates[kind]["fast"] == pytest.approx(8 * giga, rel=0.2) and rates[kind]["fast"] < 8.001 * giga
        assert rates[kind]["slow"] == pytest.approx(4 * giga, rel=0.2) and rates[kind]["slow"] < 4.001 * giga


def test_a_queue_that_its_fence_waits_for_is_measured_like_the_rest(done):
    rates = done[2]["roof"]
    assert rates["flops_per_s"]["queued"] == pytest.approx(rates["flops_per_s"]["slow"], rel=0.2)


@pytest.mark.parametrize(
    ("slug", "reason"),
    [
        ("early", "its fence returns before the work is done: a round of "),
        ("fewer", "ValueError: Expected a product in float32. Received: one with a relative error of "),
        ("lazy", "its time does not grow with the work: "),
        ("none", "ValueError: Expected a kind of work: none: the adapter has no `work`. Received: 'product'"),
    ],
)
def test_who_cheats_or_cannot_has_no_rate_and_is_told_why(done, slug, reason):
    found = done[2]["roof"]
    assert found["reasons"][slug].startswith(reason)
    assert slug not in found["flops_per_s"] and slug not in found["bytes_per_s"]


def test_a_reason_is_what_remains_of_a_failure_and_the_exit_status(done):
    _, shown, document = done
    assert shown.returncode == 1 and shown.stderr == ""
    assert set(document["roof"]["reasons"]) == {"early", "fewer", "lazy", "none", "unconvolved"}
    assert set(document["roof"]["flops_per_s"]) == {"fast", "queued", "slow", "unconvolved"}


def test_a_wrong_convolution_costs_that_alone(done):
    found = done[2]["roof"]
    expected = "ValueError: Expected a convolution in float32. Received: one with a relative error of 1e-02"
    assert found["reasons"]["unconvolved"] == expected
    assert set(found["convolution_flops_per_s"]) == {"fast", "queued", "slow"}


def test_the_document_is_what_the_schemas_say(done):
    schema("roof").validate(done[2])
    with pytest.raises(jsonschema.ValidationError):
        schema("roof").validate({**done[2], "roof": {"flops_per_s": {"torch": 0}}})


def test_the_table(done, monkeypatch, capsys):
    """Alphabetical, with shares of the best. Nobody had a reason to fail: the exit status is 0."""
    rates = done[2]["roof"]
    reached = {name: {slug: rates[name][slug] for slug in ("slow", "fast")} for name in roof.RATES}
    reached["reasons"] = {}
    monkeypatch.setattr(roof, "measure_all", lambda *arguments: reached)
    monkeypatch.setattr(environments, "ensure_all", lambda wanted: {})
    assert commands.roof("torch", False, 1.0, ()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "The roof of this device"
    assert lines[1].split() == [
        "framework",
        "product",
        "GFLOP/s",
        "share",
        "copy",
        "GB/s",
        "share",
        "convolution",
        "GFLOP/s",
    ]
    fast, slow = lines[2].split(), lines[3].split()
    assert (fast[0], fast[2], fast[4]) == ("fast", "100%", "100%")
    assert slow[0] == "slow" and all(35 <= int(slow[place].rstrip("%")) <= 65 for place in (2, 4))


def test_workers_that_are_there_already_are_asked_as_they_are(done):
    """What `compare` calls: and a worker whose framework cannot is not ended for it."""
    from dlrosetta import environments
    from dlrosetta.proof import run

    place = done[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSETTA_CACHE", str(place.cache))
        one = frameworks.load(place.frameworks / "none")
        with run.start(one, environments.ensure(one), 1) as worker:
            worker.ask("hello", layout=dict(one.layout))
            found = roof.measure({"none": worker})
            assert list(found["reasons"]) == ["none"] and worker.alive()
            assert all(found[rate] == {} for rate in roof.RATES)


def test_the_copied_array_is_larger_than_the_caches_and_smaller_than_the_memory(monkeypatch):
    assert roof.copied_bytes() >= min(64 * 2**20, machine.facts()["memory_bytes"] // 16 // 2**20 * 2**20)
    monkeypatch.setattr(machine, "largest_cache", lambda: 2**50)
    assert roof.copied_bytes() == machine.facts()["memory_bytes"] // 16 // 2**20 * 2**20
    assert roof.best({}) is None and roof.best({"a": 1.0, "b": 2.0}) == 2.0


# By default those where most people are, one that is lazy, and one whose worker speaks C++; with `-m wide` the rest.
USUAL = ("flax", "keras_tensorflow", "libtorch", "mlx", "torch")


@pytest.mark.frameworks
@pytest.mark.parametrize(
    "slug", [pytest.param(one, marks=[] if one in USUAL else [pytest.mark.wide]) for one in sorted(frameworks.find(()))]
)
def test_every_framework_has_work_to_show(slug):
    """In a small size, in which even the slowest takes no time."""
    from dlrosetta import environments
    from dlrosetta.proof import run

    one = frameworks.find(())[slug]
    with run.start(one, environments.ensure(one), machine.threads()) as worker:
        worker.ask("hello", layout=dict(one.layout))
        for kind, size in (("product", 64), ("copy", 2**14), ("convolution", 8), ("product", 128)):
            answer = worker.ask("work", kind=kind, size=size, count=3)
            assert answer["seconds"] > 0 <= answer["late_s"]
