"""Nothing that was measured is lost, and the same is measured everywhere: with frameworks of nothing but numpy."""

import json
import os
import time

import planted
import pytest
from planted import STEP, TEXT, kill_when, sleeping

from dlrosetta import compare, frameworks, rounds, timed
from dlrosetta.client import WorkerFailed
from dlrosetta.journal import Journal

YIELD = "        yield images[rows], labels[rows]"


def comparison(place, *more, slugs="a,b"):
    return ("compare", TEXT, "--frameworks", slugs, "--budget", "1", "--json", *more)


# -- nothing is lost ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 4, 11])
def test_a_comparison_that_was_killed_goes_on_and_takes_no_round_twice(place, after):
    """After no round, some, and in the midst of those of the loader."""
    for slug in ("a", "b"):
        place.plant(slug, sleeping(5))
    kept = kill_when(place, comparison(place), lambda lines: len(lines) >= after)
    assert len(kept) >= after
    done = place.call(*comparison(place, "--resume"))
    assert done.returncode == 0, done.stderr
    for cell in json.loads(done.stdout)["cells"]:
        found = {"steps": cell["items_per_second"], **cell["input"]}
        for kind in rounds.KINDS:
            before = [line["turns"][cell["framework"]][0] for line in kept if line["kind"] == kind]
            samples = found[kind]["samples"]
            assert samples[: len(before)] == before
            assert len(samples) >= (rounds.LEAST_ROUNDS if kind == "steps" else rounds.LEAST_INPUT_ROUNDS)
            if after >= rounds.LEAST_ROUNDS and kind == "steps":
                assert samples == before  # they were done
    assert not (place.results / "unfinished").exists()
    deadline = time.monotonic() + 10
    while planted.processes_of(place) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert planted.processes_of(place) == []


def test_a_training_that_was_finished_is_not_done_again(place):
    """The second framework is killed in its training, with the program; the first one's is kept."""
    place.plant("a")
    log = place.folder / "log"
    place.plant("b", ("    return loss\n", f"    open({str(log)!r}, 'a').close()\n    return loss\n"))
    full = ("--profile", "full")
    lines = kill_when(place, comparison(place, *full), lambda lines: any("trained" in line for line in lines))
    (kept,) = [line for line in lines if "trained" in line]
    done = place.call(*comparison(place, "--resume", *full))
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["cells"]
    assert kept["trained"] == "a" and first["training"]["seconds"] == kept["seconds"]
    assert second["training"]["seconds"] > 0 and second["accuracy"] > 0.5


def test_another_comparison_does_not_go_on_with_these_rounds(place):
    place.plant("a")
    lines = kill_when(place, comparison(place, slugs="a"), lambda lines: len(lines) >= 2)
    kept = {line["turns"]["a"][0] for line in lines if "turns" in line}
    place.edit(place.version("a"), ("# %% Loss", "# another version\n\n# %% Loss"))
    done = place.call(*comparison(place, "--resume", slugs="a"))
    (cell,) = json.loads(done.stdout)["cells"]
    assert kept and not kept & set(cell["items_per_second"]["samples"])


def test_a_worker_that_dies_is_started_once_more_and_costs_the_round_in_hand(place):
    """It dies once, when two rounds are in the journal; what it had measured before counts."""
    died, unfinished = place.folder / "died", place.results / "unfinished"
    code = (
        "    import os, pathlib, time; time.sleep(0.005)\n"
        f"    kept = [path.read_text() for path in pathlib.Path({str(unfinished)!r}).glob('*.jsonl')]\n"
        f"    if sum(one.count('\\n') for one in kept) >= 2 and not os.path.exists({str(died)!r}):\n"
        f"        open({str(died)!r}, 'w').close()\n        os._exit(9)\n"
    )
    place.plant("dies", (STEP, code + STEP))
    place.plant("lives", sleeping(5))
    done = place.call(*comparison(place, slugs="dies,lives"))
    assert done.returncode == 0 and died.exists(), done.stderr
    dies, lives = json.loads(done.stdout)["cells"]
    assert (dies["restarts"], lives["restarts"]) == (1, 0)
    assert (dies["verdict"], lives["verdict"]) == ("proven", "proven")
    assert len(dies["items_per_second"]["samples"]) == len(lives["items_per_second"]["samples"])


class Sleeps:
    """A cell whose worker answers at once, while the computer sleeps through some of its turns."""

    slug, batch_size, steps, restarts = "sleeps", 10, 2, 0

    def __init__(self, monkeypatch, sleeps):
        self.samples, self.counts = {kind: [] for kind in rounds.KINDS}, {}
        self.cores, self.reads, self.joules = [], [], []
        self.asked, self.asleep, self.sleeps, self.pid, self.worker = 0, 0.0, sleeps, os.getpid(), self
        monkeypatch.setattr(rounds, "asleep_s", lambda: self.asleep)

    def ask(self, op, count, work=True):
        self.asked += 1
        slept = self.asked in self.sleeps
        self.asleep += 3600 * slept
        return {"seconds": 0.05 * count + 5 * slept, "worked_s": 0.05 * count, "late_s": 0.0}

    def alive(self):
        return True


def take(cell, tmp_path, monkeypatch, budget=1.0):
    monkeypatch.setenv("ROSETTA_RESULTS", str(tmp_path))
    said = []
    ended = rounds.take([cell], budget, lambda one, action: action(), None, said.append, Journal("key"))
    return ended, said


def test_a_turn_through_which_the_computer_slept_is_taken_again(tmp_path, monkeypatch):
    cell = Sleeps(monkeypatch, {20})
    _, said = take(cell, tmp_path, monkeypatch)
    assert said.count("sleeps: the computer slept; this turn is taken again") == 1
    assert set(cell.samples["steps"]) == {cell.samples["steps"][0]}
    assert len(cell.samples["steps"]) == rounds.LEAST_ROUNDS


def test_rounds_end_when_every_interval_is_narrow_or_the_time_is_up(tmp_path, monkeypatch):
    quiet = Sleeps(monkeypatch, set())
    assert take(quiet, tmp_path, monkeypatch)[0].why == "narrow"
    noisy, number = Sleeps(monkeypatch, set()), iter(range(10**6))
    noisy.ask = lambda op, count, work=True: {
        "seconds": 0.1 + 0.1 * (next(number) // 2 % 2),
        "worked_s": 0.1,
        "late_s": 0.0,
    }
    ended, _ = take(noisy, tmp_path, monkeypatch, budget=0.0)
    assert ended.why == "budget" and len(noisy.samples["steps"]) == rounds.LEAST_ROUNDS
    many, _ = take(noisy, tmp_path, monkeypatch, budget=60)
    assert many.why == "rounds" and len(noisy.samples["steps"]) >= rounds.MOST_ROUNDS


def test_each_round_is_a_turn_of_each_in_shuffled_order_and_one_ends_before_the_next_begins(tmp_path, monkeypatch):
    cells, asked = [Sleeps(monkeypatch, set()) for _ in range(3)], []
    for cell, slug in zip(cells, "abc", strict=True):
        cell.slug, real = slug, cell.ask
        cell.ask = lambda op, count, work=True, slug=slug, real=real: (asked.append(slug), real(op, count, work))[1]
    monkeypatch.setenv("ROSETTA_RESULTS", str(tmp_path))
    rounds.take(
        cells, 0.0, lambda one, action: action(), None, lambda line: asked.append(line), Journal(None), inputs=False
    )
    orders = []
    for line in asked[asked.index("round 1") :]:
        if line.startswith("round"):
            orders.append("")
        else:
            orders[-1] += line
    assert len(orders) == rounds.LEAST_ROUNDS
    # A turn is a step to wake up and then the timed ones; nobody is asked between the two.
    assert all(sorted(order[::2]) == ["a", "b", "c"] and order[::2] == order[1::2] for order in orders)
    assert len(set(orders)) > 2


@pytest.mark.parametrize(
    ("slower", "turns"),
    [((), 3), ((3.0, 2.0, 1.5, 1.2), 7), ((3.0, 1.04), 4), (tuple(1 + 0.1 * (n % 2) for n in range(99)), 10)],
    ids=["at once", "compiles", "nearly", "never steady"],
)
def test_it_is_warm_once_three_turns_agree_and_after_ten_at_most(monkeypatch, slower, turns):
    """A step takes 20 ms, in the first turns so many times as much; a turn is then sized to a quarter of a second."""
    cell, asked = Sleeps(monkeypatch, set()), []
    cell.steps = 1

    def ask(op, count, work=True):
        asked.append(count)
        turn = (len(asked) - 1) // 2
        each = 0.02 * (slower[turn] if turn < len(slower) else 1.0)
        return {"seconds": each * count, "worked_s": each * count, "late_s": 0.0}

    cell.ask = ask
    rounds.warm(cell)
    assert len(asked) == 2 * turns
    assert cell.steps == (13 if turns < 10 else 12)


def test_a_worker_that_answers_an_error_is_not_started_anew(tmp_path, monkeypatch):
    cell = Sleeps(monkeypatch, set())

    def fails(op, count, work=True):
        raise WorkerFailed("RuntimeError: out of luck")

    cell.ask = fails
    with pytest.raises(WorkerFailed, match="out of luck"):
        take(cell, tmp_path, monkeypatch)
    assert cell.restarts == 0


# -- the same is measured ----------------------------------------------------------------------------------------------


def test_the_loader_is_timed_apart_and_together_with_the_steps(place):
    """A step takes 20 ms, a batch of the slow loader 40, together 60: whatever else the machine does is little."""
    place.plant("slow_loader", sleeping(20), (YIELD, f"        import time; time.sleep(0.040)\n{YIELD}"))
    place.plant("usual", sleeping(20))
    done = place.call(*comparison(place, slugs="slow_loader,usual"))
    slow, usual = json.loads(done.stdout)["cells"]
    batch = {kind: 64 / slow["input"][kind]["median"] for kind in ("load", "both")}
    step = 64 / slow["items_per_second"]["median"]
    assert 0.040 < batch["load"] < 0.060 and 0.060 < batch["both"] < 0.090
    assert batch["both"] == pytest.approx(batch["load"] + step, rel=0.3)
    assert usual["input"]["load"]["median"] > 3 * slow["input"]["load"]["median"]
    both, steps = usual["input"]["both"]["median"], usual["items_per_second"]["median"]
    assert both == pytest.approx(steps, rel=0.3)


AHEAD = """
def batches(images, labels, shuffle):
    import queue, threading, time
    store = queue.Queue(6)

    def work():
        for pair in made(images, labels, shuffle):
            time.sleep(0.040)
            store.put(pair)
        store.put(None)

    threading.Thread(target=work, daemon=True).start()
    return iter(store.get, None)


"""


def test_what_a_loader_has_in_store_from_while_others_had_their_turn_does_not_count(place):
    """Six batches lie ready after each other turn; making one takes 40 ms, in the 20 ms of a step and after."""
    first = "def batches(images, labels, shuffle):\n"
    place.plant("ahead", sleeping(20), (first, AHEAD + first.replace("batches", "made")))
    place.plant("usual", sleeping(20))
    done = place.call(*comparison(place, slugs="ahead,usual"))
    assert done.returncode == 0, done.stderr
    ahead, _ = json.loads(done.stdout)["cells"]
    for kind in ("load", "both"):
        assert all(0.038 < 64 / sample < 0.070 for sample in ahead["input"][kind]["samples"]), ahead["input"][kind]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        # The proof sets the batch's size; whoever then takes another one is found in the worker.
        (("rows = order[start : start + BATCH_SIZE]", "rows = order[start : start + 32]"), None),
        (("self.bias = np.zeros(outputs, np.float32)", "self.bias = np.zeros(outputs, np.float64)"), None),
    ],
)
def test_a_version_of_another_batch_or_precision_is_not_timed(place, edit, reason):
    place.plant("other", edit)
    done = place.call(*comparison(place, slugs="other"))
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["items_per_second"] is None and cell["verdict"] in ("differs", "failed"), reason


def test_who_takes_more_threads_than_it_was_given_is_not_timed(place):
    place.plant("greedy", adapter=[('"threads": 1', '"threads": 2')])
    place.plant("modest", sleeping(5))
    done = place.call(*comparison(place, "--threads", "1", slugs="greedy,modest"))
    greedy, modest = json.loads(done.stdout)["cells"]
    assert (greedy["verdict"], greedy["items_per_second"]) == ("failed", None)
    assert greedy["reason"] == "expected 1 threads, the framework says 2"
    assert modest["items_per_second"] and modest["found"]["threads"] == 1


def test_nor_who_takes_more_than_it_says(place):
    """The clock of all its threads tells, where the machine has processors for them."""
    place.plant("tiny")
    cell = compare.Timed(frameworks.load(place.frameworks / "tiny"), "proven", given_threads=1, cores=[0.9, 1.0, 1.05])
    timed.check_turns(cell)
    cell.cores = [1.9, 2.0, 1.0]
    with pytest.raises(WorkerFailed, match=r"expected at most 1 threads, 1\.9 processors were kept busy"):
        timed.check_turns(cell)


QUEUED = """    import threading
    loss = loss_fn(model, images, labels)

    def work(before=getattr(model, "pending", None)):
        import time
        before and before.join()
        time.sleep(0.005)

    model.pending = threading.Thread(target=work)
    model.pending.start()
    optimizer.step(model, model.backward(labels))
    return Promise(model.pending, loss)
"""
PROMISE = """class Promise:
    def __init__(self, thread, loss):
        self.thread, self.loss = thread, loss

    def wait(self):
        self.thread.join()
        return self.loss


"""


def test_who_returns_before_it_is_done_is_not_timed_unless_its_fence_waits(place):
    """Steps of 5 ms are only queued; reading the loss waits. So does one adapter's fence; the other's does not."""
    update = "    optimizer.step(model, model.backward(labels))\n    return loss\n"
    step = "    loss = loss_fn(model, images, labels)\n" + update
    version = [(step, QUEUED), ("# %% Train step\n", "# %% Train step\n" + PROMISE)]
    reads = (
        "def to_numpy(value):\n    return np.asarray(value)",
        "def to_numpy(value):\n    return np.asarray(value.wait() if hasattr(value, 'thread') else value)",
    )
    fence = "def synchronize(state, value=None):\n    "
    waits = (f"{fence}pass", f"{fence}hasattr(value, 'thread') and value.wait()")
    place.plant("honest", *version, adapter=[reads, waits])
    place.plant("liar", *version, adapter=[reads])
    done = place.call(*comparison(place, slugs="honest,liar"))
    honest, liar = json.loads(done.stdout)["cells"]
    assert honest["items_per_second"] and 64 / honest["items_per_second"]["median"] > 0.005
    assert (liar["verdict"], liar["items_per_second"]) == ("failed", None)
    assert liar["reason"].startswith("returned before it was done: a turn took ")


def test_a_result_says_how_it_was_measured(place):
    place.plant("tiny", sleeping(5))
    document = json.loads(place.call(*comparison(place, slugs="tiny")).stdout)
    assert document["rounds"]["why"] in ("narrow", "budget", "rounds") and document["budget_s"] == 1
    assert 0 < document["rounds"]["seconds"] < 60 and 0 <= document["rounds"]["others"] <= 1
    (cell,) = document["cells"]
    assert cell["found"]["parameters"] == ["float32"] and cell["found"]["inputs"] == "float32"
    assert cell["found"]["batch_size"] == 64 and 0 < cell["cores_busy"] < 1
    assert document["commit"] is None or len(document["commit"].rstrip("+")) == 40


def test_energy_an_item_where_the_machine_tells(tmp_path, monkeypatch):
    """A counter that grows by a joule a request: a turn's steps are one, of however many items."""
    cell, told = Sleeps(monkeypatch, set()), iter(range(10**6))
    monkeypatch.setattr(rounds.energy, "read", lambda: {"intel-rapl:0": (next(told) * 10**6, 10**12)})
    take(cell, tmp_path, monkeypatch)
    assert cell.joules[-1] == pytest.approx(1 / (cell.steps * cell.batch_size))
    assert len(cell.joules) >= rounds.LEAST_ROUNDS
