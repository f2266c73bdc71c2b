"""The program's end of a worker, against workers written here that answer whatever a test wants."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
from planted import gone

from dlrosetta import client
from dlrosetta.client import Worker, WorkerFailed
from dlrosetta.errors import UsageError

# A whole worker in another hand than ours. `reply` is what a test gives: it sees the request's line, and writes.
SCRIPT = """
import os, sys, json, time, signal, subprocess
requests, pipe = os.fdopen(int(os.environ["ROSETTA_READ"])), int(os.environ["ROSETTA_WRITE"])
for line in requests:
    request = json.loads(line)
    number = request["id"]
    {reply}
"""
ECHO = 'os.write(pipe, (json.dumps({"id": number, "ok": True, "result": request["args"]}) + "\\n").encode())'


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a worker whose answer is the given code; all are closed at the end."""
    monkeypatch.setenv("ROSETTA_CACHE", str(tmp_path / "cache"))
    started = []

    def begin(reply, patience=20.0, **limits):
        script = SCRIPT.replace("{reply}", textwrap.indent(reply, " " * 4).strip())
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        started.append(Worker([sys.executable, "-Sc", script], env, patience, **limits))
        return started[-1]

    yield begin
    for worker in started:
        worker.close()
    assert list((tmp_path / "cache" / "scratch").iterdir()) == []


def write(text):
    return f"os.write(pipe, {text!r}.encode())"


def test_answers_come_back_as_they_are(start):
    worker = start(ECHO)
    assert worker.ask("steps", count=3, seed=0.1, name="é") == {"count": 3, "seed": 0.1, "name": "é"}
    assert worker.ask("stop") == {}


def test_events_come_before_the_answer(start):
    events = "".join(f'os.write(pipe, b\'{{"id": 1, "event": {{"epoch": {number}}}}}\\n\'); ' for number in (1, 2))
    heard = []
    assert start(events + ECHO).ask("fit", heard.append) == {}
    assert heard == [{"epoch": 1}, {"epoch": 2}]


def test_an_answer_in_pieces_and_two_in_one_piece(start):
    halves = "text = json.dumps({'id': number, 'ok': True, 'result': {'n': number}}) + '\\n'\n"
    worker = start(halves + "for letter in text: os.write(pipe, letter.encode())")
    assert [worker.ask("memory")["n"], worker.ask("memory")["n"]] == [1, 2]
    both = 'os.write(pipe, b\'{"id": 1, "event": {}}\\n{"id": 1, "ok": true, "result": {}}\\n\')'
    assert start(both).ask("fit") == {}


@pytest.mark.parametrize(
    ("error", "message", "line"),
    [
        ('{"type": "ValueError", "message": "bad", "line": 7}', "ValueError: bad", 7),
        ('{"type": "ValueError", "message": "", "line": null}', "ValueError: no message", None),
        ('{"type": "ValueError", "message": "\\n \\n  bad\\nworse"}', "ValueError: bad", None),
        ('{"type": "E", "message": "\\u001b[2J\\u0007\\udce9"}', "E: �[2J��", None),
        ('{"type": "E", "message": "%s"}' % ("x" * 9999), f"E: {'x' * 500} …", None),
        ('{"type": "E", "message": ["a"], "line": "7"}', "E: ['a']", None),
        ("{}", "Error: no message", None),
    ],
)
def test_an_error_costs_the_request_and_not_the_worker(start, error, message, line):
    worker = start(
        f"os.write(pipe, ('{{\"id\": %d, \"ok\": false, \"error\": ' % number + r'''{error}''' + \"}}\\n\").encode())"
    )
    with pytest.raises(WorkerFailed) as caught:
        worker.ask("steps")
    assert (caught.value.message, caught.value.line) == (message, line)
    assert str(caught.value) == message
    assert worker.alive()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("epoch 1: loss 2.3\n", "expected JSON on the private pipe, received b'epoch 1: loss 2.3'"),
        ("\n", "expected JSON on the private pipe, received b''"),
        ("[" * 99999 + "\n", "expected JSON on the private pipe, received b'[[["),
        ("[1]\n", "expected a JSON object on the private pipe, received b'[1]'"),
        ("3\n", "expected a JSON object on the private pipe, received b'3'"),
        (
            '{"id": 7, "ok": true, "result": {}}\n',
            "expected an answer to request 1 on the private pipe, received one to",
        ),
        ("{}\n", "expected an answer to request 1 on the private pipe, received one to None"),
        ('{"id": 1}\n', "expected a result or an error on the private pipe, received"),
        ('{"id": 1, "ok": true}\n', "expected a result or an error on the private pipe, received"),
        ('{"id": 1, "ok": true, "result": [1]}\n', "expected a result or an error on the private pipe, received"),
        ('{"id": 1, "ok": false, "error": "bad"}\n', "expected a result or an error on the private pipe, received"),
        ('{"id": 1, "event": "begun"}\n', "expected a result or an error on the private pipe, received"),
        ('{"id": 1, "ok": "yes", "result": {}}\n', "expected a result or an error on the private pipe, received"),
    ],
)
def test_anything_but_the_protocol_ends_the_worker(start, answer, message):
    worker = start(write(answer) + "; time.sleep(60)")
    with pytest.raises(WorkerFailed) as caught:
        worker.ask("memory")
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message and len(caught.value.message) < 600
    assert not worker.alive()
    with pytest.raises(WorkerFailed):
        worker.ask("memory")


def test_bytes_that_are_no_text_are_no_protocol(start):
    with pytest.raises(WorkerFailed, match="expected JSON on the private pipe"):
        start("os.write(pipe, bytes(range(128, 256)) + b'\\n')").ask("memory")


def test_a_line_without_an_end_does_not_fill_our_memory(start):
    worker = start("while True: os.write(pipe, b'x' * 65536)")
    before = psutil.Process().memory_info().rss
    with pytest.raises(WorkerFailed, match="expected an answer of at most 16 MB"):
        worker.ask("memory")
    assert psutil.Process().memory_info().rss - before < 200 * 2**20


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.exit(0)", "exited with status 0 in the middle of a request"),
        (
            "sys.stderr.write('no licence\\n\\n'); sys.exit(4)",
            "exited with status 4 in the middle of a request: no licence",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV (a segmentation fault)"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "ended by SIGABRT (aborted)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL (killed, most likely for want of memory)"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "ended by SIGTERM"),
        (
            "os.kill(os.getpid(), 40)",
            f"ended by {signal.Signals(40).name if 40 in set(signal.Signals) else 'signal 40'}",
        ),
        ("requests.close(); os.close(pipe); time.sleep(60)", "closed the private pipe without ending"),
    ],
)
def test_a_worker_that_ends_says_how(start, code, message):
    with pytest.raises(WorkerFailed) as caught:
        start(code).ask("memory")
    assert caught.value.message == message


def test_a_worker_that_is_gone_before_it_is_asked(start):
    worker = start("pass")
    worker._process.kill()
    worker._process.wait()
    with pytest.raises(WorkerFailed, match=r"ended by SIGKILL"):
        worker.ask("memory")


def test_a_child_that_holds_the_pipe_open_does_not_hide_its_parent_s_death(start):
    worker = start("if os.fork():\n    os._exit(5)\ntime.sleep(60)", patience=30)
    begin = time.monotonic()
    with pytest.raises(WorkerFailed, match="exited with status 5"):
        worker.ask("memory")
    assert time.monotonic() - begin < 10


def test_patience_is_for_one_request_and_each_event_renews_it(start):
    worker = start("time.sleep(60)", patience=0.5)
    with pytest.raises(WorkerFailed) as caught:
        worker.ask("steps", patience=1.0)
    assert caught.value.message == "no answer to 'steps' for 1 s; it was ended (--patience allows more)"
    assert not worker.alive()
    beat = 'os.write(pipe, b\'{"id": 1, "event": {}}\\n\'); time.sleep(0.4)\n'
    begin = time.monotonic()
    assert start(f"for _ in range(5):\n    {beat}{ECHO}", patience=1.5).ask("fit") == {}
    assert time.monotonic() - begin > 1.5


def test_memory_of_children_counts_too(start):
    child = "hoard = b'x' * 3 * 10**8; import time; time.sleep(60)"
    worker = start(f"subprocess.Popen([sys.executable, '-Sc', {child!r}])\ntime.sleep(60)", memory=10**8)
    with pytest.raises(WorkerFailed, match=r"held 0\.\d GB of memory, more than 0\.1 GB \(ROSETTA_MEMORY_GB"):
        worker.ask("memory")


def test_the_memory_limit_has_a_name_and_wrong_ones_are_refused(monkeypatch):
    monkeypatch.delenv("ROSETTA_MEMORY_GB", raising=False)
    assert 0 < client.memory_limit() <= 12 * 2**30
    monkeypatch.setenv("ROSETTA_MEMORY_GB", "1.5")
    assert client.memory_limit() == 1.5 * 2**30
    for wrong in ("lots", "0", "-1", "nan", "inf", "1,5"):
        monkeypatch.setenv("ROSETTA_MEMORY_GB", wrong)
        with pytest.raises(UsageError, match=f"Expected ROSETTA_MEMORY_GB to be .*Received: '{wrong}'"):
            client.memory_limit()


def test_what_a_worker_started_ends_with_it(start):
    """A child, one in a session of its own, and one whose parent is gone."""
    child = [sys.executable, "-Sc", "import time; time.sleep(600)"]
    orphan = (
        f"import subprocess; print(subprocess.Popen({child}, stdout=subprocess.DEVNULL, start_new_session=True).pid)"
    )
    reply = (
        f"ours = subprocess.Popen({child}).pid\n"
        f"own = subprocess.Popen({child}, start_new_session=True).pid\n"
        f"left = int(subprocess.check_output([sys.executable, '-Sc', {orphan!r}]))\n"
        f"request['args'] = {{'family': [os.getpid(), ours, own, left]}}\n{ECHO}"
    )
    worker = start(reply)
    family = worker.ask("hello")["family"]
    assert not any(map(gone, family))
    worker.close()
    deadline = time.monotonic() + 5
    while not all(map(gone, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [pid for pid in family if not gone(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    worker.close()  # twice does no harm


def test_a_worker_gets_the_allowed_environment_and_nothing_else(monkeypatch):
    for name in ("SECRET_TOKEN", "PYTHONPATH", "VIRTUAL_ENV", "LD_PRELOAD", "ROSETTA_CACHE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = client.worker_environment({"TINY": "1", "LANG": "C"}, threads=3)
    assert set(found) <= client.ALLOWED | {"TINY", "ROSETTA_THREADS"}
    assert (found["CUDA_VISIBLE_DEVICES"], found["TINY"], found["LANG"], found["ROSETTA_THREADS"]) == (
        "1",
        "1",
        "C",
        "3",
    )


def test_a_worker_has_that_environment_an_empty_input_and_its_own_group(start, tmp_path):
    look = "{'env': dict(os.environ), 'input': sys.stdin.read(), 'group': os.getpgid(0), 'cwd': os.getcwd()}"
    worker = start(f"request['args'] = {look}\n{ECHO}")
    seen = worker.ask("hello")
    assert set(seen["env"]) - {"LC_CTYPE"} == {"PATH", "HOME", "ROSETTA_READ", "ROSETTA_WRITE", "ROSETTA_RUN"}
    assert (seen["input"], seen["group"], seen["cwd"]) == ("", worker.pid, str(worker.scratch))


def test_no_descriptor_is_left_open(start):
    def descriptors():
        return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()

    start(ECHO).close()
    before = descriptors()
    for _ in range(3):
        worker = start(ECHO)
        worker.ask("hello")
        worker.close()
    with pytest.raises(FileNotFoundError):
        Worker(["/no/such/python"], {})
    assert descriptors() == before


def test_when_the_program_is_gone_its_worker_ends_in_the_midst_of_its_work(tmp_path, place):
    """Even where the program had no time for anything: SIGKILL."""
    environment = place.plant(
        "tiny", ("# %% Data", "import time\n\nprint('begun', flush=True)\ntime.sleep(600)\n\n\n# %% Data")
    )
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from dlrosetta import frameworks, texts\nfrom dlrosetta.proof import run\n"
        "framework, text = frameworks.load(Path(sys.argv[1])), texts.load(Path(sys.argv[2]))\n"
        "worker = run.start(framework, Path(sys.argv[3]), 1)\n"
        "worker.ask('hello', layout=dict(framework.layout))\n"
        "print(worker.pid, flush=True)\n"
        "worker.ask('open', version=str(run.version_of(text, framework)), dtype='float32', layers=[], constants=[])\n"
    )
    arguments = [place.frameworks / "tiny", place.stone / "mine", environment / "bin" / "python"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=place.environ()
    )
    with process:
        pid = int(process.stdout.readline())
        scratch = place.cache / "scratch"
        deadline = time.monotonic() + 20
        while "begun" not in "".join(path.read_text() for path in scratch.glob("*/output.txt")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not gone(pid)
        process.kill()
    deadline = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(pid)
